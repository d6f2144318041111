package wire

import (
	"errors"
	"math"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// An Integer is the value of an integer member. It accepts integers of any size, so that the error
// for a number out of range has the name of the member and the ID of the request. Fractions and
// exponents are decode errors.
type Integer struct {
	negative  bool
	magnitude uint64 // MaxUint64 if the number has more than 64 bits
	large     bool   // the number has more than 64 bits
}

// IntegerOf returns n as an Integer.
func IntegerOf(n int) Integer {
	if n < 0 {
		return Integer{negative: true, magnitude: -uint64(n)}
	}
	return Integer{magnitude: uint64(n)}
}

const errNotInteger = TypeError("a whole number")

// UnmarshalJSONFrom accepts a number without fraction or exponent; null is 0.
func (i *Integer) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	value, err := d.ReadValue()
	if err != nil {
		return err
	}
	*i = Integer{}
	if value.Kind() == jsontext.KindNull {
		return nil
	}
	if value.Kind() != jsontext.KindNumber {
		return errNotInteger
	}
	digits := []byte(value)
	if digits[0] == '-' {
		i.negative, digits = true, digits[1:]
	}
	i.magnitude, err = strconv.ParseUint(string(digits), 10, 64)
	if i.large = errors.Is(err, strconv.ErrRange); err != nil && !i.large {
		return errNotInteger
	}
	i.negative = i.negative && i.magnitude > 0
	return nil
}

// MarshalJSONTo writes the number.
func (i Integer) MarshalJSONTo(e *jsontext.Encoder) error {
	return e.WriteValue(jsontext.Value(i.String()))
}

// String returns the number in decimal; a magnitude of more than 64 bits becomes the largest of 64 bits.
func (i Integer) String() string {
	text := strconv.FormatUint(i.magnitude, 10)
	if i.negative {
		return "-" + text
	}
	return text
}

// Within returns the number if it is not below least and fits into 32 bits. Otherwise it returns an
// [infer.Invalid] error that names the member.
func (i Integer) Within(name string, least uint32) (int, error) {
	switch {
	case i.negative || i.magnitude < uint64(least):
		return 0, Invalid("%s must be at least %d", name, least)
	case i.magnitude > math.MaxUint32:
		return 0, Invalid("%s must be at most %d", name, uint32(math.MaxUint32))
	}
	return int(i.magnitude), nil
}

// Is reports whether the number equals n.
func (i Integer) Is(n uint32) bool { return !i.negative && i.magnitude == uint64(n) }

// Seed returns the number as a seed. A number from 0 to 1<<32-1 is used unchanged; any other is
// folded by [FoldSeed], a negative one in two's complement. A number that needs more than 64 bits
// is an error.
func (i Integer) Seed() (uint32, error) {
	bits := i.magnitude
	if i.large || i.negative && bits > 1<<63 {
		return 0, Invalid("seed must have 64 bits at most")
	}
	if i.negative {
		bits = -bits
	}
	return FoldSeed(bits), nil
}

// FoldSeed returns a seed of 32 bits for one of 64 bits: the upper half XOR the lower half.
func FoldSeed(seed uint64) uint32 { return uint32(seed>>32) ^ uint32(seed) }

// A Number is the value of a member that may have a fraction. A number beyond the range of float64
// becomes infinite, so that the error about it has the name of the member and the ID of the
// request.
type Number float64

// UnmarshalJSONFrom accepts a number; null is 0.
func (n *Number) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	value, err := d.ReadValue()
	if err != nil {
		return err
	}
	*n = 0
	if value.Kind() == jsontext.KindNull {
		return nil
	}
	if value.Kind() != jsontext.KindNumber {
		return TypeError("a number")
	}
	x, err := strconv.ParseFloat(string(value), 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return err
	}
	*n = Number(x)
	return nil
}
