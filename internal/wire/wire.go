// Package wire holds what all dialects share: how a message is read, which failures of
// it end a connection, and how a failure is told. It does not know what any message
// says.
//
// JSON is read strictly: names are case-sensitive; a member twice, invalid UTF-8, a lone
// surrogate, deep nesting and a great many values are errors; members that nobody asked for
// are ignored, but checked like the others.
package wire

import (
	"errors"
	"maps"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
)

// Limits of a message.
const (
	MaxID     = 1024    // bytes of a request's id
	maxDepth  = 128     // arrays and objects inside each other
	maxValues = 1 << 18 // arrays, objects, and what is in them
)

// valueSize is how many bytes a value may take once it has been decoded, beside those that
// it has in the message. The shortest are the worst: 3 bytes of message, {} and a comma,
// become a struct of a dozen words in a slice that has grown.
const valueSize = 256

// A FatalError ends its connection: what follows in the stream cannot be trusted. The
// peer is told first.
type FatalError struct {
	Err error // an [infer.Error]
}

func (e *FatalError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *FatalError) Unwrap() error { return e.Err }

// Decodef makes the error of a message that is not what the dialect asks for.
func Decodef(format string, args ...any) error {
	return &FatalError{infer.Errorf(infer.Invalid, "decode: "+format, args...)}
}

// Missing makes the error of a message in which a member that must be there is missing
// or null.
func Missing(member string) error { return Decodef("%q is missing or null", member) }

// ReadJSON reads the next message into v, which must be zero. It returns a [FatalError]
// for what is no message or does not fit into v, and else the error of the stream:
// [io.EOF] if it has ended cleanly.
//
// A member that is null reads as one that is missing. Where one must be there, v has a
// pointer or a slice, and the caller looks; so it does with elements of an array.
func ReadJSON(r frame.Reader, v any) error {
	_, err := ReadMessage(r, v)
	return err
}

// ReadMessage is ReadJSON for those who need the bytes of the message as well. They are
// valid as long as those of r.ReadFrame.
func ReadMessage(r frame.Reader, v any) ([]byte, error) {
	kind, msg, err := r.ReadFrame()
	if err != nil {
		return nil, Fault(err)
	}
	if kind != frame.JSON {
		return nil, Malformed("expected a JSON control frame, got a BLOB frame")
	}
	values, depth := weigh(msg)
	switch {
	case depth > maxDepth:
		return nil, Decodef("nested deeper than %d", maxDepth)
	case values > maxValues:
		return nil, Decodef("more than %d values", maxValues)
	}
	if n := values * valueSize; n > frame.Small {
		if err := r.Hold(n); err != nil {
			return nil, err
		}
	}
	if err := json.Unmarshal(msg, v); err != nil {
		return nil, misfit(err)
	}
	return msg, nil
}

// Malformed makes the error of frames that do not come as the dialect asks for.
func Malformed(what string) error { return Fault(&frame.MalformedError{What: what}) }

// Fault gives what is wrong with a frame a class: it is a [FatalError] then. Any other
// error is that of the stream, and comes back as it is.
func Fault(err error) error {
	if _, ok := errors.AsType[*frame.TooLongError](err); ok {
		return &FatalError{infer.Errorf(infer.TooLarge, "%w", err)}
	}
	if _, ok := errors.AsType[*frame.MalformedError](err); ok {
		return &FatalError{infer.Errorf(infer.Invalid, "%w", err)}
	}
	return err
}

// maxPointer bounds how much of a place in a message is told.
const maxPointer = 64

// misfit says what is wrong with a message without repeating it: messages hold prompts,
// and what is told to the client may be logged there.
func misfit(err error) error {
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return Decodef("%w at byte %d", e.Err, e.ByteOffset) // quotes a few bytes at most
	}
	if e, ok := errors.AsType[*json.SemanticError](err); ok {
		place := string(e.JSONPointer)
		switch {
		case place == "":
			return Decodef("not a JSON object")
		case len(place) > maxPointer:
			place = place[:maxPointer] + "…"
		}
		return Decodef("%q at byte %d has the wrong type or is out of range", place, e.ByteOffset)
	}
	return Decodef("not JSON")
}

// weigh returns about how many values msg has, and how deep they lie, as soon as it is
// sure that either is too much. It looks before the decoder does, which would follow ten
// thousand levels down, and make gigabytes of one message of nothing but brackets.
func weigh(msg []byte) (values, depth int) {
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

// CheckID refuses an id that is too long to be echoed. The refusal is then told with an
// empty id.
func CheckID(id string) error {
	if len(id) > MaxID {
		return Invalid("id has %d bytes, at most %d are allowed", len(id), MaxID)
	}
	return nil
}

// Codes are the classes of failure as a dialect spells them.
type Codes map[infer.Code]string

// Common are the codes that all dialects have. What only some can say becomes what comes
// nearest.
var Common = Codes{
	infer.Invalid:     "invalid_request",
	infer.TooLarge:    "frame_too_large",
	infer.Busy:        "queue_full",
	infer.Unavailable: "backend_unavailable",
	infer.Internal:    "internal",
	infer.Unsupported: "invalid_request",
	infer.Malformed:   "backend_unavailable",
}

// With returns c with other words for some classes.
func (c Codes) With(others Codes) Codes {
	all := maps.Clone(c)
	maps.Copy(all, others)
	return all
}

// Told returns the code and the text with which a failure is told to a client. Only an
// [infer.Error] speaks for itself: the text of any other is for our log.
func (c Codes) Told(failure error) (code, text string) {
	if e, ok := errors.AsType[*infer.Error](failure); ok {
		return c[e.Code], e.Error()
	}
	return c[infer.Internal], "internal error"
}

// Untold is the other way round, for clients. A code that it does not know, as a newer
// daemon may have, is taken for a fault of the daemon.
func (c Codes) Untold(code, text string) error {
	for _, class := range classes {
		if c[class] == code {
			return infer.Errorf(class, "%s", text)
		}
	}
	return infer.Errorf(infer.Internal, "%s: %s", code, text)
}

// classes are all classes. Where two have one word, the first is meant.
var classes = []infer.Code{
	infer.Invalid, infer.TooLarge, infer.Busy, infer.Unavailable, infer.Internal, infer.Unsupported, infer.Malformed,
}

// AppendString appends text as a JSON string. It does not allocate if dst has room.
// What is not UTF-8 becomes U+FFFD; only what JSON demands is escaped.
func AppendString[Bytes ~[]byte | ~string](dst []byte, text Bytes) []byte {
	dst, _ = jsontext.AppendQuote(dst, text) // it only tells of invalid UTF-8
	return dst
}
