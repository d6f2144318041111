// Package openai is the dialect of OpenAI's HTTP interface: chat completions, embeddings and
// models, as requests and as the bytes of their answers. It does not know HTTP beyond the
// number of a status: headers, keys and connections are the bridge's.
//
// Clients of this interface send much that no local engine has a use for. A member that is
// unknown is ignored; a known one is honoured, refused by its name, or on the list of ignored
// members, which a request reports.
package openai

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// Limits of a request.
const (
	maxStops    = 16
	maxStop     = 256 // bytes
	maxLogprobs = 20
	maxBias     = 100
	maxNumber   = 1e6
	minTopP     = 1e-6
	// MaxInputs bounds the texts of a request for embeddings.
	MaxInputs = 2048
)

// Types of an [Error].
const (
	invalidType   = "invalid_request_error"
	rateLimitType = "rate_limit_error"
	serverType    = "api_error"
)

// An Error is a failure in the words of this dialect.
type Error struct {
	Status  int // of HTTP
	Type    string
	Code    string // empty is null
	Param   string // the member that the failure is about; empty is null
	Message string
	// NoRetry asks the client not to repeat a request that would fail again, although its
	// status says otherwise.
	NoRetry bool
}

func (f *Error) Error() string { return f.Message }

// As makes the error an [infer.Error], for records of the failure.
func (f *Error) As(target any) bool {
	e, ok := target.(**infer.Error)
	if !ok {
		return false
	}
	code := infer.Invalid
	switch f.Status {
	case http.StatusRequestEntityTooLarge:
		code = infer.TooLarge
	case http.StatusTooManyRequests:
		code = infer.Busy
	case http.StatusServiceUnavailable:
		code = infer.Unavailable
	case http.StatusInternalServerError, http.StatusBadGateway:
		code = infer.Internal
	}
	*e = &infer.Error{Code: code, Err: errors.New(f.Message)}
	return true
}

// Invalid makes the error for a request with an invalid value; param is the member, or empty.
func Invalid(param, format string, args ...any) *Error {
	return &Error{Status: http.StatusBadRequest, Type: invalidType, Param: param, Message: fmt.Sprintf(format, args...)}
}

// Refused makes the error for a request that is refused with a status of class 4xx before it is
// read, such as 404 or 413.
func Refused(status int, code, format string, args ...any) *Error {
	return &Error{Status: status, Type: invalidType, Code: code, Message: fmt.Sprintf(format, args...)}
}

// UnknownModel makes the error for a request with an unknown model.
func UnknownModel(name string) *Error {
	f := Refused(http.StatusNotFound, "model_not_found", "The model %s does not exist: GET /v1/models lists the models", strconv.Quote(cut(name)))
	f.Param = "model"
	return f
}

// maxQuoted bounds the bytes of a client's text in an error.
const maxQuoted = 64

func cut(text string) string {
	if len(text) > maxQuoted {
		return text[:maxQuoted] + "…"
	}
	return text
}

// statuses are the errors by the class of their cause.
var statuses = map[infer.Code]Error{
	infer.Invalid:     {Status: http.StatusBadRequest, Type: invalidType},
	infer.Unsupported: {Status: http.StatusBadRequest, Type: invalidType},
	infer.TooLarge:    {Status: http.StatusRequestEntityTooLarge, Type: invalidType},
	infer.Busy:        {Status: http.StatusTooManyRequests, Type: rateLimitType, Code: "queue_full"},
	infer.Unavailable: {Status: http.StatusServiceUnavailable, Type: serverType, Code: "server_is_overloaded"},
	infer.Internal:    {Status: http.StatusInternalServerError, Type: serverType},
	infer.Malformed:   {Status: http.StatusBadGateway, Type: serverType, NoRetry: true},
}

// tooLong is the code of a prompt that does not fit into the context.
const tooLong = "context_length_exceeded"

// ErrorOf returns the error for a failure. The text of an error that has no class is not for
// clients.
func ErrorOf(err error) *Error {
	if f, ok := errors.AsType[*Error](err); ok {
		return f
	}
	f := statuses[infer.CodeOf(err)]
	f.Message = "internal error"
	if e, ok := errors.AsType[*infer.Error](err); ok {
		f.Message = e.Error()
	}
	if fatal, ok := errors.AsType[*wire.FatalError](err); ok {
		f.Param = fatal.Member
	}
	if feature, ok := errors.AsType[*infer.FeatureError](err); ok {
		f.Param = params[feature.Member]
	}
	if _, ok := errors.AsType[*infer.PromptError](err); ok {
		f.Code, f.Param = tooLong, "messages"
	}
	return &f
}

// params are this dialect's names of the members of v2.
var params = map[string]string{
	"prompt": "prompt", "suffix": "suffix", "tools": "tools", "tool_choice": "tool_choice",
	"response_format": "response_format", "thinking": "reasoning_effort", "thinking_budget": "reasoning_effort",
	"logprobs": "logprobs", "messages": "messages",
}

// Append appends the error as the body of an answer.
func (f *Error) Append(dst []byte) []byte {
	dst = append(dst, `{"error":{"message":`...)
	dst = wire.AppendString(dst, f.Message)
	dst = append(dst, `,"type":"`...)
	dst = append(dst, f.Type...)
	dst = append(dst, `","param":`...)
	dst = appendNullable(dst, f.Param)
	dst = append(dst, `,"code":`...)
	dst = appendNullable(dst, f.Code)
	return append(dst, "}}"...)
}

// appendNullable appends text as a JSON string, or null if it is empty.
func appendNullable(dst []byte, text string) []byte {
	if text == "" {
		return append(dst, "null"...)
	}
	return wire.AppendString(dst, text)
}

// present reports whether a member is there and not null.
func present(v jsontext.Value) bool { return len(v) > 0 && v.Kind() != jsontext.KindNull }

// decode decodes a part of a request.
func decode(param string, value jsontext.Value, v any) error {
	if err := wire.Unmarshal(value, v); err != nil {
		return Invalid(param, "%s: it has the wrong form", param)
	}
	return nil
}

// integer returns the value of a member that is said, at least least.
func integer(param string, i *wire.Integer, least uint32) (int, error) {
	n, err := i.Within(param, least)
	if err != nil {
		return 0, Invalid(param, "%v", err)
	}
	return n, nil
}
