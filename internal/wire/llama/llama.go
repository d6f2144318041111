// Package llama decodes the requests of llama.cpp's server and encodes their answers: to continue a
// prompt, to fill a gap in code, to convert between text and tokens, and to apply the model's
// template. It determines the HTTP status of errors; package bridge handles HTTP. Requests for
// tokens may also have the form of vLLM, which uses the same paths.
package llama

import (
	"cmp"
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// statuses maps the code of an error to an HTTP status.
var statuses = map[infer.Code]int{
	infer.Invalid:     http.StatusBadRequest,
	infer.Unsupported: http.StatusBadRequest,
	infer.TooLarge:    http.StatusRequestEntityTooLarge,
	infer.Busy:        http.StatusTooManyRequests,
	infer.Unavailable: http.StatusServiceUnavailable,
	infer.Internal:    http.StatusInternalServerError,
	infer.Malformed:   http.StatusInternalServerError,
}

// kinds maps an HTTP status to the type of an error. For any other status the type is that of an
// invalid request.
var kinds = map[int]string{
	http.StatusUnauthorized:        "authentication_error",
	http.StatusForbidden:           "permission_error",
	http.StatusNotFound:            "not_found_error",
	http.StatusTooManyRequests:     "rate_limit_error",
	http.StatusInternalServerError: "server_error",
	http.StatusNotImplemented:      "not_supported_error",
	http.StatusServiceUnavailable:  "unavailable_error",
}

// Failure returns the status and the body of the answer to a request that has failed with cause. The
// ID of the request is not used.
func Failure(cause error, _ string) (status int, body []byte) {
	f := web.ErrorOf(cause)
	status = statusOf(f)
	return status, appendFailure(nil, status, f)
}

func statusOf(f *web.Error) int { return cmp.Or(f.Status, statuses[f.Code]) }

func appendFailure(dst []byte, status int, f *web.Error) []byte {
	dst = append(dst, `{"error":{"code":`...)
	dst = strconv.AppendInt(dst, int64(status), 10)
	dst = append(dst, `,"message":`...)
	dst = wire.AppendString(dst, f.Message)
	if f.Prompt != nil {
		dst = append(dst, `,"n_prompt_tokens":`...)
		dst = strconv.AppendInt(dst, int64(f.Prompt.Tokens), 10)
		dst = append(dst, `,"n_ctx":`...)
		dst = strconv.AppendInt(dst, int64(f.Prompt.Most), 10)
		return append(dst, `,"type":"exceed_context_size_error"}}`...)
	}
	dst = append(dst, `,"type":"`...)
	dst = append(dst, cmp.Or(kinds[status], "invalid_request_error")...)
	return append(dst, `"}}`...)
}

// Slots returns the error for a request for the state of the slots, which would show prompts of
// other clients.
func Slots() error {
	return web.Refused(http.StatusNotImplemented, "", "/slots is not supported: it would show the prompts of other users")
}

// A Model is the model that answers. A field is 0 or empty if unknown.
type Model struct {
	Name     string // name of the entry
	NCtx     int    // size of the context in tokens
	Slots    int    // requests that can run at once
	Can      infer.Abilities
	Template string // chat template, in Jinja
}

// Props returns the body with the properties of the server. It contains no path of the machine.
func (m *Model) Props() []byte {
	type settings struct {
		NCtx int `json:"n_ctx"`
	}
	body, _ := json.Marshal(struct { // cannot fail: texts and numbers only
		Settings   settings        `json:"default_generation_settings"`
		Slots      int             `json:"total_slots"`
		Alias      string          `json:"model_alias"`
		Modalities map[string]bool `json:"modalities"`
		Template   string          `json:"chat_template"`
		Dialect    string          `json:"tools_dialect,omitempty"` // not in llama.cpp's server
		Build      string          `json:"build_info"`
		Sleeping   bool            `json:"is_sleeping"`
	}{
		Settings: settings{m.NCtx}, Slots: m.Slots, Alias: m.Name, Build: "inferd", Template: m.Template, Dialect: m.Can.ToolsDialect,
		Modalities: map[string]bool{"vision": m.Can.Vision, "audio": m.Can.Audio},
	}, json.Deterministic(true), jsontext.AllowInvalidUTF8(true))
	return body
}
