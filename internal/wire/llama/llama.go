// Package llama is the dialect of llama.cpp's server: completions of prompts, gaps in code, and the
// tokens of texts, as requests and as the bytes of their answers. It does not know HTTP beyond the
// number of a status. Tokens are also read and written as vLLM does, which has the same paths.
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

// statuses are the statuses by the class of a failure.
var statuses = map[infer.Code]int{
	infer.Invalid:     http.StatusBadRequest,
	infer.Unsupported: http.StatusBadRequest,
	infer.TooLarge:    http.StatusRequestEntityTooLarge,
	infer.Busy:        http.StatusTooManyRequests,
	infer.Unavailable: http.StatusServiceUnavailable,
	infer.Internal:    http.StatusInternalServerError,
	infer.Malformed:   http.StatusInternalServerError,
}

// kinds are the words for a status; others are invalid requests.
var kinds = map[int]string{
	http.StatusUnauthorized:        "authentication_error",
	http.StatusForbidden:           "permission_error",
	http.StatusNotFound:            "not_found_error",
	http.StatusTooManyRequests:     "rate_limit_error",
	http.StatusInternalServerError: "server_error",
	http.StatusNotImplemented:      "not_supported_error",
	http.StatusServiceUnavailable:  "unavailable_error",
}

// Failure returns the whole answer to a request that has failed.
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

// Slots makes the failure of a request for the state of the slots, which has the prompts of others.
func Slots() error {
	return web.Refused(http.StatusNotImplemented, "", "/slots is off: it would show the prompts of others")
}

// A Model is the model that answers. 0 and empty are unknown.
type Model struct {
	Name     string // of the entry
	NCtx     int    // tokens of the context
	Slots    int    // requests that run at once
	Can      infer.Abilities
	Template string // of chats, in Jinja
}

// Props returns the body with the properties of the server. It has no path of the machine.
func (m *Model) Props() []byte {
	type settings struct {
		NCtx int `json:"n_ctx"`
	}
	body, _ := json.Marshal(struct { // it has texts and numbers only
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
