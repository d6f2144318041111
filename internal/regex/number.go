package regex

import (
	"errors"
	"math/big"
	"strconv"
	"strings"
)

// A set of numbers is represented by a language of decimals without exponent. The language contains
// all spellings of each of its numbers (1, 1.0, 1.00; 0 and -0), so that the intersection or the
// difference of two languages represents that of the two sets.

// maxDigits is the maximum number of digits of a [Decimal] before the point, and also after it.
const maxDigits = 400

// MaxMultiple is the largest divisor of [Multiples], after it is multiplied by a power of ten that
// makes it an integer.
const MaxMultiple = 4096

// Errors of numbers.
var (
	ErrDigits   = errors.New("the number has too many digits")
	ErrMultiple = errors.New("the divisor has too many digits: at most " + strconv.Itoa(MaxMultiple) + " once scaled to an integer")
)

// A Decimal is the exact value of a JSON number.
type Decimal struct {
	Negative        bool
	whole, fraction string // the digits before the point, without leading zeros, and behind it, without trailing zeros
}

// ParseDecimal parses a JSON number, which must be valid. The error is [ErrDigits] if it has too
// many digits.
func ParseDecimal(s string) (d Decimal, err error) {
	s, d.Negative = strings.CutPrefix(s, "-")
	exponent := 0
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		if exponent, err = strconv.Atoi(strings.TrimPrefix(s[i+1:], "+")); err != nil || exponent > 4*maxDigits || exponent < -4*maxDigits {
			return d, ErrDigits
		}
		s = s[:i]
	}
	whole, fraction, _ := strings.Cut(s, ".")
	digits, point := whole+fraction, len(whole)+exponent
	if point < 0 {
		digits, point = strings.Repeat("0", -point)+digits, 0
	}
	if point > len(digits) {
		digits += strings.Repeat("0", point-len(digits))
	}
	d.whole, d.fraction = strings.TrimLeft(digits[:point], "0"), strings.TrimRight(digits[point:], "0")
	if len(d.whole) > maxDigits || len(d.fraction) > maxDigits {
		return d, ErrDigits
	}
	if d.whole == "" && d.fraction == "" {
		d.Negative = false
	}
	return d, nil
}

// String returns the shortest spelling without exponent.
func (d Decimal) String() string {
	s := d.whole
	if s == "" {
		s = "0"
	}
	if d.fraction != "" {
		s += "." + d.fraction
	}
	if d.Negative {
		s = "-" + s
	}
	return s
}

// zero reports whether the number is 0.
func (d Decimal) zero() bool { return d.whole == "" && d.fraction == "" }

// digitAlphabet has a class for each digit, the point and the minus.
var digitAlphabet = single([]rune("-.0123456789"))

// Classes of digitAlphabet.
const (
	minus = 1
	point = 2
	zero  = 3 // the digits follow
)

// machine returns the automaton over digitAlphabet with the states that next reaches from start. next
// returns the state that follows a state at a character of a class, or reports false if none does.
func machine[S comparable](b *Budget, start S, next func(S, int) (S, bool), accept func(S) bool) *DFA {
	d := &DFA{alphabet: digitAlphabet}
	index := map[S]int32{start: 0}
	states := []S{start}
	for i := 0; i < len(states); i++ {
		if !b.Spend(4*d.classes + 48) {
			return None()
		}
		d.accept = append(d.accept, accept(states[i]))
		for c := range d.classes {
			to, ok := next(states[i], c)
			if !ok {
				d.next = append(d.next, -1)
				continue
			}
			k, known := index[to]
			if !known {
				k = int32(len(states))
				index[to] = k
				states = append(states, to)
			}
			d.next = append(d.next, k)
		}
	}
	return d.trim(b)
}

// A position is a state of the grammar of decimals.
type position uint8

const (
	atStart    position = iota
	atSign              // after the minus
	atZero              // after a leading zero
	atWhole             // within the digits before the point
	atPoint             // after the point
	atFraction          // within the digits after it
)

// step returns the position after a character of class c. It reports false if the character does
// not fit.
func (p position) step(c int) (position, bool) {
	digit := c >= zero
	switch p {
	case atStart, atSign:
		switch {
		case c == minus && p == atStart:
			return atSign, true
		case c == zero:
			return atZero, true
		case digit:
			return atWhole, true
		}
	case atZero, atWhole:
		switch {
		case c == point:
			return atPoint, true
		case digit && p == atWhole:
			return atWhole, true
		}
	case atPoint, atFraction:
		return atFraction, digit
	}
	return 0, false
}

// ends reports whether a decimal may end at p.
func (p position) ends() bool { return p == atZero || p == atWhole || p == atFraction }

// Decimals returns the language of all decimals.
func Decimals(b *Budget) *DFA {
	return machine(b, atStart, position.step, position.ends)
}

// Canonical returns the language that has exactly one decimal for each number: the one without
// redundant zeros, and 0 instead of -0.
func Canonical(b *Budget) *DFA {
	type state struct {
		position
		zero  bool // the last digit of the fraction is 0
		minus bool // a minus, followed only by zeros so far
	}
	return machine(b, state{}, func(s state, c int) (state, bool) {
		p, ok := s.step(c)
		next := state{position: p, minus: s.minus}
		switch {
		case c == minus:
			next.minus = true
		case c > zero:
			next.minus = false
		}
		next.zero = p == atFraction && c == zero
		return next, ok
	}, func(s state) bool { return s.ends() && !s.zero && !s.minus })
}

// Compare returns the decimals that are less than bound if less is set, equal to it if equal is
// set, or greater than it if greater is set.
func Compare(b *Budget, bound Decimal, less, equal, greater bool) *DFA {
	return machine(b, comparing{}, func(s comparing, c int) (comparing, bool) { return s.next(&bound, c) }, func(s comparing) bool {
		order := s.sum(&bound)
		return s.ends() && (order < 0 && less || order == 0 && equal || order > 0 && greater)
	})
}

// comparing is the state of the comparison of a decimal with a bound. Their magnitudes are compared:
// first the number of digits of the whole parts, then these digits, then the digits of the fractions.
type comparing struct {
	position
	negative, nonzero bool
	digits            int  // digits of the whole part or of the fraction so far, at most one more than the bound has
	order             int8 // -1, 0 or 1: these digits are less than, equal to or greater than those of the bound
}

func compareInts(have, want int) int8 { return int8(max(-1, min(have-want, 1))) }

// whole compares the whole parts, at the point or at the end of the decimal. If they differ in
// length, the longer one is larger.
func (s comparing) whole(bound *Decimal) int8 {
	if s.position == atFraction || s.digits == len(bound.whole) {
		return s.order
	}
	return compareInts(s.digits, len(bound.whole))
}

func (s comparing) next(bound *Decimal, c int) (comparing, bool) {
	p, ok := s.step(c)
	t := s
	t.position = p
	t.nonzero = s.nonzero || c > zero
	switch {
	case c == minus:
		t.negative = true
	case c == point:
		t.order, t.digits = s.whole(bound), 0
	case p == atFraction:
		if t.order != 0 {
			break
		}
		want := 0
		if s.digits < len(bound.fraction) {
			want = int(bound.fraction[s.digits] - '0')
		}
		t.order = compareInts(c-zero, want)
		t.digits = min(s.digits+1, len(bound.fraction))
	case p == atZero: // a leading zero does not count
	case s.digits < len(bound.whole):
		if t.order == 0 {
			t.order = compareInts(c-zero, int(bound.whole[s.digits]-'0'))
		}
		t.digits++
	default:
		t.digits, t.order = len(bound.whole)+1, 1
	}
	return t, ok
}

// sum compares a complete decimal with the bound.
func (s comparing) sum(bound *Decimal) int8 {
	order, digits := s.whole(bound), 0
	if s.position == atFraction {
		digits = s.digits
	}
	if order == 0 && digits < len(bound.fraction) { // the last digit of the bound is not 0
		order = -1
	}
	negative := s.negative && s.nonzero // -0 is 0
	switch {
	case negative && bound.Negative:
		return -order
	case negative:
		return -1
	case bound.Negative:
		return 1
	}
	return order
}

// Equals returns the spellings of a number.
func Equals(b *Budget, d Decimal) *DFA { return Compare(b, d, false, true, false) }

// Multiples returns the decimals that are multiples of a number. The error is [ErrMultiple] if the number
// is not positive, or exceeds [MaxMultiple].
func Multiples(b *Budget, of Decimal) (*DFA, error) {
	scaled, ok := new(big.Int).SetString("0"+of.whole+of.fraction, 10)
	if !ok || of.Negative || of.zero() || scaled.Cmp(big.NewInt(MaxMultiple)) > 0 {
		return nil, ErrMultiple
	}
	n, scale := int(scaled.Int64()), len(of.fraction)
	type state struct {
		position
		rest   int // the number that the digits so far form, modulo n
		digits int // of the fraction, at most scale
	}
	return machine(b, state{}, func(s state, c int) (state, bool) {
		p, ok := s.step(c)
		s.position = p
		if c >= zero {
			switch {
			case p != atFraction:
				s.rest = (s.rest*10 + c - zero) % n
			case s.digits < scale:
				s.rest = (s.rest*10 + c - zero) % n
				s.digits++
			case c != zero:
				return s, false
			}
		}
		return s, ok
	}, func(s state) bool {
		rest := s.rest
		for range scale - s.digits {
			rest = rest * 10 % n
		}
		return s.ends() && rest == 0
	}), nil
}

// JSONNumbers returns the language of all JSON numbers with exponents of at most three digits: programs
// that read the numbers may fail at larger exponents.
func JSONNumbers(b *Budget) *DFA {
	d, err := Compile(b, `^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?$`)
	if err != nil {
		return None()
	}
	return d
}
