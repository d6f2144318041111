// Package refhttp is the dialect of the reference's HTTP bridge, which inferd-http speaks: chat
// completions and embeddings as its clients know them. Requests become those of the package
// client, and events of client become answers. The package does not know HTTP beyond the number
// of a status, nor connections.
//
// It differs from wire/openai in many small ways, which its clients may depend on: fewer members
// are read and more are required, statuses are those of the reference, and a stream carries the
// usage in its last chunk.
package refhttp

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/client"
	"github.com/inferd-go/inferd/internal/wire"
)

// Types of an [Error].
const (
	invalidType   = "invalid_request_error"
	rateLimitType = "rate_limit_error"
	serverType    = "api_error"
)

// An Error is a failure with its answer.
type Error struct {
	Status  int // of HTTP
	Type    string
	Code    string // empty is none
	Message string
	// Plain says that the answer is the message as plain text: the request could not be read.
	Plain bool
}

func (e *Error) Error() string { return e.Message }

// Invalid makes the error of a request that the bridge itself refuses.
func Invalid(format string, args ...any) *Error {
	return &Error{Status: http.StatusBadRequest, Type: invalidType, Message: fmt.Sprintf(format, args...)}
}

// ErrUnauthorized is the error of a request without the token.
var ErrUnauthorized = &Error{Status: http.StatusUnauthorized, Type: invalidType, Message: "missing or invalid bearer token"}

// Plain makes the error of a request that could not be read.
func Plain(status int, format string, args ...any) *Error {
	return &Error{Status: status, Message: fmt.Sprintf(format, args...), Plain: true}
}

// unreachable makes the error for a daemon that gives no answer.
func unreachable(err error) *Error {
	return &Error{Status: http.StatusBadGateway, Type: serverType, Message: "daemon unreachable: " + err.Error()}
}

// A class is the answer to an error code of the daemon.
type class struct {
	status int
	kind   string
	code   string
}

var classes = map[client.Code]class{
	client.QueueFull:             {http.StatusTooManyRequests, rateLimitType, "QueueFull"},
	client.BackendUnavailable:    {http.StatusServiceUnavailable, serverType, "BackendUnavailable"},
	client.InvalidRequest:        {http.StatusBadRequest, invalidType, "InvalidRequest"},
	client.AttachmentUnsupported: {http.StatusBadRequest, invalidType, "AttachmentUnsupported"},
	client.FrameTooLarge:         {http.StatusRequestEntityTooLarge, invalidType, "FrameTooLarge"},
	client.ToolCallMalformed:     {http.StatusBadGateway, serverType, "ToolCallMalformed"},
	client.Internal:              {http.StatusInternalServerError, serverType, "Internal"},
}

// ErrorOf returns the error for a failure of a chat. Failures that are neither the daemon's nor
// of this package mean that the daemon cannot be reached.
func ErrorOf(err error) *Error {
	if own, ok := errors.AsType[*Error](err); ok {
		return own
	}
	answer, ok := errors.AsType[*client.Error](err)
	if !ok {
		return unreachable(err)
	}
	c, ok := classes[answer.Code]
	if !ok {
		c = class{http.StatusBadGateway, serverType, camel(string(answer.Code))}
	}
	return &Error{Status: c.status, Type: c.kind, Code: c.code, Message: answer.Message}
}

// EmbedErrorOf returns the error for a failure of embeddings: those of the daemon are all alike.
func EmbedErrorOf(err error) *Error {
	if own, ok := errors.AsType[*Error](err); ok {
		return own
	}
	if answer, ok := errors.AsType[*client.Error](err); ok {
		return &Error{Status: http.StatusBadGateway, Type: serverType, Message: answer.Message}
	}
	return unreachable(err)
}

// camel spells a code of the wire as the reference names it.
func camel(code string) string {
	var out strings.Builder
	for word := range strings.SplitSeq(code, "_") {
		if word != "" {
			out.WriteString(strings.ToUpper(word[:1]) + word[1:])
		}
	}
	return out.String()
}

// Append appends the error as the body of an answer, or of an event.
func (e *Error) Append(dst []byte) []byte {
	if e.Plain {
		return append(dst, e.Message...)
	}
	dst = append(dst, `{"error":{"message":`...)
	dst = wire.AppendString(dst, e.Message)
	dst = append(dst, `,"type":"`...)
	dst = append(dst, e.Type...)
	dst = append(dst, '"')
	if e.Code != "" {
		dst = append(dst, `,"code":"`...)
		dst = append(dst, e.Code...)
		dst = append(dst, '"')
	}
	return append(dst, "}}"...)
}

// AppendModels appends the list of models, which has one name only.
func AppendModels(dst []byte, name string) []byte {
	dst = append(dst, `{"object":"list","data":[{"id":`...)
	dst = wire.AppendString(dst, name)
	return append(dst, `,"object":"model","owned_by":"inferd"}]}`...)
}

// unmarshal reads a body. A body that is JSON, but not a request, has a status of its own.
func unmarshal(body []byte, v any) error {
	if _, err := wire.Weigh(body); err != nil {
		return Plain(http.StatusBadRequest, "the body is not accepted: %v", err)
	}
	switch err := wire.Unmarshal(body, v); {
	case err == nil:
		return nil
	case jsontext.Value(body).IsValid():
		return Plain(http.StatusUnprocessableEntity, "the body is not a request: %v", err)
	default:
		return Plain(http.StatusBadRequest, "the body is not JSON: %v", err)
	}
}

// missing makes the error of a request without a required member.
func missing(member string) error {
	return Plain(http.StatusUnprocessableEntity, "the body is not a request: %s is missing", member)
}
