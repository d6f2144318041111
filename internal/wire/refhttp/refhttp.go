// Package refhttp is the dialect of the reference's HTTP bridge, which inferd-http replaces: chat
// completions and embeddings, in the form that the clients of that bridge expect. It converts
// requests to requests of package client, and events of that package to answers. It determines the
// HTTP status of errors; inferd-http handles HTTP.
//
// It differs from package openai in many details on which clients may depend: fewer members are
// read and more are required, statuses are those of the reference, and a stream has the usage in
// its last chunk.
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

// The types of an [Error].
const (
	invalidType   = "invalid_request_error"
	rateLimitType = "rate_limit_error"
	serverType    = "api_error"
)

// An Error is an error together with the HTTP answer for it.
type Error struct {
	Status  int // HTTP status code
	Type    string
	Code    string // the reference's name of the daemon's error code; may be empty
	Message string
	// Plain means that the request could not be read, and that the answer is the message as plain
	// text.
	Plain bool
}

func (e *Error) Error() string { return e.Message }

// Invalid returns the error for a request that the bridge itself refuses.
func Invalid(format string, args ...any) *Error {
	return &Error{Status: http.StatusBadRequest, Type: invalidType, Message: fmt.Sprintf(format, args...)}
}

// ErrUnauthorized is the error for a request without the token.
var ErrUnauthorized = &Error{Status: http.StatusUnauthorized, Type: invalidType, Message: "missing or invalid bearer token"}

// Plain returns the error for a request that could not be read.
func Plain(status int, format string, args ...any) *Error {
	return &Error{Status: status, Message: fmt.Sprintf(format, args...), Plain: true}
}

// unreachable returns the error for a daemon that does not answer.
func unreachable(err error) *Error {
	return &Error{Status: http.StatusBadGateway, Type: serverType, Message: "daemon unreachable: " + err.Error()}
}

// A class is the status, the type and the code of the answer for an error code of the daemon.
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

// ErrorOf returns the error for a chat that has failed with err. If err is neither a [client.Error] nor
// an [Error], the daemon cannot be reached.
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

// EmbedErrorOf returns the error for a request for embeddings that has failed with err. All errors
// of the daemon have the same status and type.
func EmbedErrorOf(err error) *Error {
	if own, ok := errors.AsType[*Error](err); ok {
		return own
	}
	if answer, ok := errors.AsType[*client.Error](err); ok {
		return &Error{Status: http.StatusBadGateway, Type: serverType, Message: answer.Message}
	}
	return unreachable(err)
}

// camel converts a code of the wire, such as queue_full, to the reference's name for it: QueueFull.
func camel(code string) string {
	var out strings.Builder
	for word := range strings.SplitSeq(code, "_") {
		if word != "" {
			out.WriteString(strings.ToUpper(word[:1]) + word[1:])
		}
	}
	return out.String()
}

// Append appends the error as the body of an answer or as the data of an event.
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

// AppendModels appends the list of models, which contains only the given name.
func AppendModels(dst []byte, name string) []byte {
	dst = append(dst, `{"object":"list","data":[{"id":`...)
	dst = wire.AppendString(dst, name)
	return append(dst, `,"object":"model","owned_by":"inferd"}]}`...)
}

// unmarshal decodes a body. The error has the status 422 if the body is JSON but not a request, and
// 400 if it is not JSON.
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

// missing returns the error for a request without a required member.
func missing(member string) error {
	return Plain(http.StatusUnprocessableEntity, "the body is not a request: %s is missing", member)
}
