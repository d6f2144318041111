// Package web is the common part of the dialects of HTTP: errors with their status, and members
// that the requests of all these dialects have in some form, such as images, tools, sampling and
// thinking. Each dialect has a package for its own form; package bridge handles connections.
package web

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// An Error is the reason why a request has failed. Each dialect encodes it in its own form.
type Error struct {
	Code infer.Code
	// Status is the HTTP status code if Code does not determine it, for example for requests that
	// are refused before they are read, and for unknown models. Otherwise it is 0, and the dialect
	// maps Code to a status.
	Status int
	Reason string // machine-readable reason for Status, such as NoModel; may be empty
	// Member is the member of the request at fault, as the client spells it; may be empty.
	Member string
	// Feature is the name of the member in v2, if the error comes from code that does not depend on
	// a dialect. The dialect maps it to the name of its own member.
	Feature string
	Prompt  *infer.PromptError // not nil if the prompt is too long
	Message string             // for the client
}

func (f *Error) Error() string { return f.Message }

// As converts the error to an [infer.Error], for records.
func (f *Error) As(target any) bool {
	e, ok := target.(**infer.Error)
	if ok {
		*e = &infer.Error{Code: f.Code, Err: errors.New(f.Message)}
	}
	return ok
}

// Values of [Error.Reason] that several packages use.
const (
	NoModel  = "model_not_found"
	WrongKey = "invalid_api_key"
)

// Invalid returns the error for a request with an invalid value. member may be empty.
func Invalid(member, format string, args ...any) *Error {
	return &Error{Code: infer.Invalid, Member: member, Message: fmt.Sprintf(format, args...)}
}

// Refused returns the error for a request that is refused with the given HTTP status. reason may be
// empty. The code is [infer.TooLarge] for the status 413, and [infer.Invalid] for any other.
func Refused(status int, reason, format string, args ...any) *Error {
	code := infer.Invalid
	if status == http.StatusRequestEntityTooLarge {
		code = infer.TooLarge
	}
	return &Error{Code: code, Status: status, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// UnknownModel returns the error for a request with an unknown model.
func UnknownModel(name string) *Error {
	f := Refused(http.StatusNotFound, NoModel, "The model %s does not exist: GET /v1/models lists the models", strconv.Quote(cut(name)))
	f.Member = "model"
	return f
}

// maxQuoted bounds the bytes of a client's text that an error quotes.
const maxQuoted = 64

func cut(text string) string {
	if len(text) > maxQuoted {
		return text[:maxQuoted] + "…"
	}
	return text
}

// ErrorOf converts err to an Error. If err is neither an Error nor an [infer.Error], its text is
// not for clients, and the message is "internal error".
func ErrorOf(err error) *Error {
	if f, ok := errors.AsType[*Error](err); ok {
		return f
	}
	f := &Error{Code: infer.CodeOf(err), Message: "internal error"}
	if e, ok := errors.AsType[*infer.Error](err); ok {
		f.Message = e.Error()
	}
	if fatal, ok := errors.AsType[*wire.FatalError](err); ok {
		f.Member = fatal.Member
	}
	if feature, ok := errors.AsType[*infer.FeatureError](err); ok {
		f.Feature = feature.Member
	}
	if prompt, ok := errors.AsType[*infer.PromptError](err); ok {
		f.Prompt = prompt
	}
	return f
}

// Present reports whether a member is present and not null.
func Present(v jsontext.Value) bool { return len(v) > 0 && v.Kind() != jsontext.KindNull }

// Decode decodes value, which is a member of a request or a part of a member, into v. Errors name
// member.
func Decode(member string, value jsontext.Value, v any) error {
	if err := wire.Unmarshal(value, v); err != nil {
		return Invalid(member, "%s: it has the wrong form", member)
	}
	return nil
}

// Integer returns the value of a member that is present. It returns an error if the value is below
// least or does not fit into 32 bits.
func Integer(member string, i *wire.Integer, least uint32) (int, error) {
	n, err := i.Within(member, least)
	if err != nil {
		return 0, Invalid(member, "%v", err)
	}
	return n, nil
}

// Bytes returns the value of a member, or nil if it is missing or null.
func Bytes(v jsontext.Value) []byte {
	if !Present(v) {
		return nil
	}
	return v
}

// AppendNullable appends text as a JSON string, or null if it is empty.
func AppendNullable(dst []byte, text string) []byte {
	if text == "" {
		return append(dst, "null"...)
	}
	return wire.AppendString(dst, text)
}
