// Package openai is the dialect of OpenAI's HTTP interface: chat completions, embeddings and
// models, as requests and as the bytes of their answers. It does not know HTTP beyond the
// number of a status: headers, keys and connections are the bridge's.
//
// Clients of this interface send much that no local engine has a use for. A member that is
// unknown is ignored; a known one is honoured, refused by its name, or on the list of ignored
// members, which a request reports.
package openai

import (
	"cmp"
	"net/http"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// Limits of a request.
const (
	maxLogprobs = 20
	maxBias     = 100
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
}

// statuses are the errors by the class of their cause.
var statuses = map[infer.Code]Error{
	infer.Invalid:     {Status: http.StatusBadRequest, Type: invalidType},
	infer.Unsupported: {Status: http.StatusBadRequest, Type: invalidType},
	infer.TooLarge:    {Status: http.StatusRequestEntityTooLarge, Type: invalidType},
	infer.Busy:        {Status: http.StatusTooManyRequests, Type: rateLimitType, Code: "queue_full"},
	infer.Unavailable: {Status: http.StatusServiceUnavailable, Type: serverType, Code: "server_is_overloaded"},
	infer.Internal:    {Status: http.StatusInternalServerError, Type: serverType},
	infer.Malformed:   {Status: http.StatusBadGateway, Type: serverType},
}

// TooLong is the code of a prompt that does not fit into the context.
const TooLong = "context_length_exceeded"

// ErrorOf returns the error for a failure.
func ErrorOf(err error) *Error {
	cause := web.ErrorOf(err)
	f := statuses[cause.Code]
	if cause.Status != 0 {
		f = Error{Status: cause.Status, Type: invalidType, Code: cause.Reason}
	}
	f.Message, f.Param = cause.Message, cmp.Or(cause.Member, params[cause.Feature])
	if cause.Prompt != nil {
		f.Code, f.Param = TooLong, "messages"
	}
	return &f
}

// Failure returns the whole answer to a request that has failed.
func Failure(cause error, _ string) (status int, body []byte) {
	f := ErrorOf(cause)
	return f.Status, f.Append(nil)
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
	dst = web.AppendNullable(dst, f.Param)
	dst = append(dst, `,"code":`...)
	dst = web.AppendNullable(dst, f.Code)
	return append(dst, "}}"...)
}
