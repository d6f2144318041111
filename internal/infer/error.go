package infer

import (
	"errors"
	"fmt"
)

// Code is the class of a failure, for the client. The set is closed.
type Code string

// Failure classes.
const (
	Invalid     Code = "invalid"     // the request is invalid; a retry would fail again
	TooLarge    Code = "too large"   // the request exceeds a limit of the surface
	Busy        Code = "busy"        // no room now; the client may retry later
	Unavailable Code = "unavailable" // no backend is available now
	Internal    Code = "internal"    // a fault of the daemon, the engine or the model
	Unsupported Code = "unsupported" // the chosen backend lacks the ability
	Malformed   Code = "malformed"   // the model wrote an invalid tool call
)

// An Error is a failure with a class for the client to act on. Its text is sent to the client.
type Error struct {
	Code Code
	Err  error // never nil
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf returns an error of class code. Its format may wrap with %w.
func Errorf(code Code, format string, args ...any) error {
	return &Error{Code: code, Err: fmt.Errorf(format, args...)}
}

// CodeOf returns the class of err, or Internal if err has none.
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return Internal
}

// A FeatureError is the cause of an error that concerns one member of the request.
type FeatureError struct {
	// Member is the name of the member in v2: "tools", "response_format".
	Member string
	Err    error
}

// Refusef returns an [Invalid] error that concerns a member of the request; its cause is a
// [FeatureError].
func Refusef(member, format string, args ...any) error {
	return &Error{Invalid, &FeatureError{member, fmt.Errorf("invalid request: "+format, args...)}}
}

func (e *FeatureError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *FeatureError) Unwrap() error { return e.Err }

// A PromptError is the cause of the error for a prompt that does not fit into the context.
type PromptError struct {
	Tokens  int  // of the prompt
	AtLeast bool // the prompt has more than Tokens
	Most    int  // tokens that the context holds
}

func (e *PromptError) Error() string {
	if e.AtLeast {
		return fmt.Sprintf("the prompt has more than %d tokens, the context holds %d", e.Tokens, e.Most)
	}
	return fmt.Sprintf("the prompt has %d tokens, the context holds %d", e.Tokens, e.Most)
}
