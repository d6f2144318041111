// Package wire is the common part of all dialects: it reads messages, determines which of their
// faults end a connection, and encodes errors. The packages below it define the messages of each
// dialect.
//
// JSON is read strictly: names are case-sensitive; duplicate members, invalid UTF-8, lone
// surrogates, deep nesting and too many values are errors. Unknown members are checked for these
// faults as well, and then ignored.
package wire

import (
	"errors"
	"maps"
	"reflect"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
)

// Limits of a message.
const (
	MaxID     = 1024    // bytes of a request's ID
	maxDepth  = 128     // nested arrays and objects
	maxValues = 1 << 18 // arrays, objects and their elements
)

// valueSize bounds the bytes of memory that a decoded value takes in addition to its bytes in the
// message. The worst case is the shortest value: 3 bytes of the message, {} and a comma, become a
// struct of a dozen words in a slice that has grown.
const valueSize = 256

// A FatalError ends the connection, because the rest of the stream cannot be trusted. The error is
// sent to the client first.
type FatalError struct {
	Err error // an [infer.Error]
	// Member is the member of the message at fault; it is empty if unknown.
	Member string
}

func (e *FatalError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *FatalError) Unwrap() error { return e.Err }

// Decodef returns the error for a message that the dialect cannot decode.
func Decodef(format string, args ...any) error {
	return &FatalError{Err: infer.Errorf(infer.Invalid, "decode: "+format, args...)}
}

// Missing returns the error for a message in which a required member is missing or null.
func Missing(member string) error { return Decodef("%q is missing or null", member) }

// ReadJSON reads the next message into v, which must be zero. It returns a [FatalError] if the
// message is too long, is malformed, has too many values or does not fit v. Other errors are those
// of the stream and of r.Reserve; [io.EOF] means a clean end.
//
// A null member counts as missing. For a required member or element, v has a pointer or a slice,
// and the caller checks that it is not nil.
func ReadJSON(r frame.Reader, v any) error {
	_, err := ReadMessage(r, v)
	return err
}

// ReadMessage is like ReadJSON, and also returns the bytes of the message. They are valid until the
// next read, like those of r.ReadFrame.
func ReadMessage(r frame.Reader, v any) ([]byte, error) {
	kind, msg, err := r.ReadFrame()
	if err != nil {
		return nil, Fault(err)
	}
	if kind != frame.JSON {
		return nil, Malformed("expected a JSON control frame, got a BLOB frame")
	}
	memory, err := Weigh(msg)
	if err != nil {
		return nil, err
	}
	if memory > frame.FreeBytes {
		if err := r.Reserve(memory); err != nil {
			return nil, err
		}
	}
	if err := Unmarshal(msg, v); err != nil {
		return nil, err
	}
	return msg, nil
}

// Weigh returns how many bytes of memory decoding msg may take, in addition to msg itself. It
// returns an error if msg has too many values or is nested too deeply.
func Weigh(msg []byte) (memory int, err error) {
	values, depth := countValues(msg)
	switch {
	case depth > maxDepth:
		return 0, Decodef("nested deeper than %d", maxDepth)
	case values > maxValues:
		return 0, Decodef("more than %d values", maxValues)
	}
	return values * valueSize, nil
}

// Unmarshal decodes msg into v, as [ReadJSON] does. The caller must have checked msg with [Weigh].
func Unmarshal(msg []byte, v any) error {
	if err := json.Unmarshal(msg, v); err != nil {
		return decodeError(err)
	}
	return nil
}

// Malformed returns the [FatalError] for a frame that is malformed, missing or of the wrong kind.
func Malformed(what string) error { return Fault(&frame.MalformedError{What: what}) }

// Fault converts an error about a frame to a [FatalError] with a code. It returns errors of the
// stream unchanged.
func Fault(err error) error {
	if _, ok := errors.AsType[*frame.TooLongError](err); ok {
		return &FatalError{Err: infer.Errorf(infer.TooLarge, "%w", err)}
	}
	if _, ok := errors.AsType[*frame.MalformedError](err); ok {
		return &FatalError{Err: infer.Errorf(infer.Invalid, "%w", err)}
	}
	return err
}

// maxPointer bounds the bytes of a JSON pointer in an error.
const maxPointer = 64

// decodeError describes the fault of a message. It quotes a few bytes of the message at most,
// because messages contain prompts, and clients may log the error.
func decodeError(err error) error {
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return Decodef("%w at byte %d", e.Err, e.ByteOffset) // e.Err quotes a few bytes at most
	}
	if e, ok := errors.AsType[*json.SemanticError](err); ok {
		place := string(e.JSONPointer)
		switch {
		case place == "":
			return Decodef("not a JSON object")
		case len(place) > maxPointer:
			place = place[:maxPointer] + "…"
		}
		member, _, _ := strings.Cut(strings.TrimPrefix(string(e.JSONPointer), "/"), "/")
		return &FatalError{
			Err:    infer.Errorf(infer.Invalid, "decode: %q at byte %d has the wrong type or is out of range%s", place, e.ByteOffset, expected(e)),
			Member: member,
		}
	}
	return Decodef("not JSON")
}

// A TypeError is the error of a decoder for a value of the wrong type. It names the right type,
// such as "a whole number".
type TypeError string

func (e TypeError) Error() string { return "it must be " + string(e) }

// expected returns the right type of the value at fault, after a colon, or an empty text if the
// type is unknown.
func expected(e *json.SemanticError) string {
	if wrong, ok := errors.AsType[TypeError](e.Err); ok {
		return ": " + wrong.Error()
	}
	if e.GoType == nil {
		return ""
	}
	switch e.GoType.Kind() { //nolint:exhaustive // the types of members
	case reflect.Bool:
		return ": it must be true or false"
	case reflect.String:
		return ": it must be a string"
	case reflect.Slice, reflect.Array:
		return ": it must be an array"
	case reflect.Struct, reflect.Map:
		return ": it must be an object"
	}
	return ""
}

// countValues returns the approximate number of values in msg, and the depth of nesting at the point
// where it stops: the end of msg, or the first byte at which one of the two exceeds its limit. It must
// run before the decoder, which would descend ten thousand levels, and allocate gigabytes for a
// message that consists of brackets.
func countValues(msg []byte) (values, depth int) {
	for i := 0; i < len(msg); i++ {
		switch msg[i] {
		case '"':
			for i++; i < len(msg) && msg[i] != '"'; i++ {
				if msg[i] == '\\' {
					i++
				}
			}
		case ',':
			values++
		case '{', '[':
			values++
			depth++
		case '}', ']':
			depth--
		}
		if depth > maxDepth || values > maxValues {
			break
		}
	}
	return values, depth
}

// CheckID returns an error if an ID is too long to be echoed. The answer with that error must have
// an empty ID.
func CheckID(id string) error {
	if len(id) > MaxID {
		return Invalid("id has %d bytes, at most %d are allowed", len(id), MaxID)
	}
	return nil
}

// Codes maps error codes to the names that they have in a dialect.
type Codes map[infer.Code]string

// Common has a name for every code. Unsupported and Malformed have names of their own in some
// dialects only; here they have the name of the nearest other code.
var Common = Codes{
	infer.Invalid:     "invalid_request",
	infer.TooLarge:    "frame_too_large",
	infer.Busy:        "queue_full",
	infer.Unavailable: "backend_unavailable",
	infer.Internal:    "internal",
	infer.Unsupported: "invalid_request",
	infer.Malformed:   "backend_unavailable",
}

// With returns a copy of c in which others replace some names.
func (c Codes) With(others Codes) Codes {
	all := maps.Clone(c)
	maps.Copy(all, others)
	return all
}

// Encode returns the code and the text of an error for a client. The text of an error that is not
// an [infer.Error] is only for the log; the client gets "internal error".
func (c Codes) Encode(failure error) (code, text string) {
	if e, ok := errors.AsType[*infer.Error](failure); ok {
		return c[e.Code], e.Error()
	}
	return c[infer.Internal], "internal error"
}

// Decode is the inverse of Encode, for clients. An unknown code, which a newer daemon may send,
// becomes [infer.Internal].
func (c Codes) Decode(code, text string) error {
	for _, class := range classes {
		if c[class] == code {
			return infer.Errorf(class, "%s", text)
		}
	}
	return infer.Errorf(infer.Internal, "%s: %s", code, text)
}

// classes are the codes in the order in which Decode looks them up: if two share a name, it returns
// the first.
var classes = []infer.Code{
	infer.Invalid, infer.TooLarge, infer.Busy, infer.Unavailable, infer.Internal, infer.Unsupported, infer.Malformed,
}

// AppendString appends text as a JSON string. It does not allocate if dst has room. Invalid UTF-8
// becomes U+FFFD, and only characters that JSON requires to be escaped are escaped.
func AppendString[Bytes ~[]byte | ~string](dst []byte, text Bytes) []byte {
	dst, _ = jsontext.AppendQuote(dst, text) // it fails only for invalid UTF-8
	return dst
}
