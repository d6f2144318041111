// Package openai is the dialect of OpenAI's HTTP interface: chat completions, completions of texts,
// embeddings, reranking and models, as requests and as the bytes of their answers. It determines the
// HTTP status of errors; package bridge handles headers, keys and connections.
//
// Clients of this interface send many members that no local engine can use. An unknown member is
// ignored. A known member has an effect, is refused by name, or is listed as ignored.
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

// The types of an [Error].
const (
	invalidType   = "invalid_request_error"
	rateLimitType = "rate_limit_error"
	serverType    = "api_error"
)

// An Error is an error in the form of this dialect.
type Error struct {
	Status  int // HTTP status code
	Type    string
	Code    string // null if empty
	Param   string // the member at fault; null if empty
	Message string
}

// statuses maps the code of an error to its status, type and code in this dialect.
var statuses = map[infer.Code]Error{
	infer.Invalid:     {Status: http.StatusBadRequest, Type: invalidType},
	infer.Unsupported: {Status: http.StatusBadRequest, Type: invalidType},
	infer.TooLarge:    {Status: http.StatusRequestEntityTooLarge, Type: invalidType},
	infer.Busy:        {Status: http.StatusTooManyRequests, Type: rateLimitType, Code: "queue_full"},
	infer.Unavailable: {Status: http.StatusServiceUnavailable, Type: serverType, Code: "server_is_overloaded"},
	infer.Internal:    {Status: http.StatusInternalServerError, Type: serverType},
	infer.Malformed:   {Status: http.StatusBadGateway, Type: serverType},
}

// TooLong is the error code for a prompt that does not fit into the context.
const TooLong = "context_length_exceeded"

// ErrorOf returns err in the form of this dialect.
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

// Failure returns the status and the body of the answer to a request that has failed with cause. The
// ID of the request is not used.
func Failure(cause error, _ string) (status int, body []byte) {
	f := ErrorOf(cause)
	return f.Status, f.Append(nil)
}

// params maps members of v2 to members of this dialect, for errors.
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
