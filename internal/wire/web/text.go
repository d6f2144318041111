package web

import (
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// ErrCanceled is the error for an answer that the daemon has ended early. Such an answer must not
// look complete.
var ErrCanceled = infer.Errorf(infer.Unavailable, "the daemon has ended the answer early")

// MaxAnswer bounds the bytes of an answer in one piece.
const MaxAnswer = 64 << 20

// TooLong returns the error for an answer in one piece that exceeds MaxAnswer.
func TooLong() error {
	return infer.Errorf(infer.TooLarge, "the answer has more than %d bytes: ask for a stream", MaxAnswer)
}

// ReadStops reads the stop texts of a request: a text, or a list of texts.
func ReadStops(member string, value jsontext.Value) ([]string, error) {
	if !Present(value) {
		return nil, nil
	}
	var all []string
	if value.Kind() == jsontext.KindString {
		all = make([]string, 1)
		if err := Decode(member, value, &all[0]); err != nil {
			return nil, err
		}
	} else if err := Decode(member, value, &all); err != nil {
		return nil, err
	}
	return Stops(member, all)
}

// Comma appends a comma to a list, unless the list is empty.
func Comma(list []byte) []byte {
	if len(list) > 0 {
		return append(list, ',')
	}
	return list
}

// Negative reports whether a member is present and below 0. In some dialects a negative value means
// the same as a missing member.
func Negative(i *wire.Integer) bool { return i != nil && strings.HasPrefix(i.String(), "-") }
