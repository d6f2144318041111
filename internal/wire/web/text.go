package web

import (
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// ErrCanceled ends an answer that the daemon has ended early: it must not look complete.
var ErrCanceled = infer.Errorf(infer.Unavailable, "the daemon has ended the answer early")

// MaxAnswer bounds an answer in one piece, in bytes.
const MaxAnswer = 64 << 20

// TooLong makes the failure of an answer in one piece beyond its bound.
func TooLong() error {
	return infer.Errorf(infer.TooLarge, "the answer has more than %d bytes: ask for a stream", MaxAnswer)
}

// ReadStops reads the texts that end an answer: one, or a list.
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

// Comma appends a comma to a list that has a member.
func Comma(list []byte) []byte {
	if len(list) > 0 {
		return append(list, ',')
	}
	return list
}

// Negative reports whether a member is there and below 0, which some dialects take for a value
// that is not said.
func Negative(i *wire.Integer) bool { return i != nil && strings.HasPrefix(i.String(), "-") }
