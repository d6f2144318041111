package engine

import (
	"bytes"
	"unicode/utf8"
)

// An answer turns the pieces of tokens into text that may be sent. It holds back what
// is not certain yet: the first bytes of a character whose rest comes with the next
// token, and text that may turn out to be the beginning of a stop sequence.
type answer struct {
	stops []string

	raw     []byte // bytes that may become a character: fewer than utf8.UTFMax
	held    []byte // whole characters that may begin a stop sequence
	out     []byte // what the last call returned
	stopped bool
}

// add takes the bytes of a token and returns the text that is certain now. The result
// is valid until the next call. It reports true once a stop sequence has come; the
// text before it has been returned then, and there will be no more.
func (a *answer) add(piece []byte) ([]byte, bool) {
	a.raw = append(a.raw, piece...)
	n := a.decode(false)
	a.raw = append(a.raw[:0], a.raw[n:]...)
	return a.release(false), a.stopped
}

// end returns what was held back when the model has ended its answer.
func (a *answer) end() []byte {
	if a.stopped {
		return nil
	}
	a.decode(true)
	a.raw = a.raw[:0]
	return a.release(true)
}

// decode moves whole characters from raw to held and returns how many bytes it has
// dealt with. Bytes that no continuation can make valid become U+FFFD; so does, at the
// end, a character that never became whole.
func (a *answer) decode(final bool) int {
	n := 0
	for n < len(a.raw) {
		rest := a.raw[n:]
		r, size := utf8.DecodeRune(rest)
		if r == utf8.RuneError && size == 1 {
			if !final && !utf8.FullRune(rest) {
				break
			}
			a.held = utf8.AppendRune(a.held, utf8.RuneError)
		} else {
			a.held = append(a.held, rest[:size]...)
		}
		n += size
	}
	return n
}

// release takes from held what no stop sequence can begin with.
func (a *answer) release(final bool) []byte {
	keep := 0
	if len(a.stops) > 0 {
		first := -1
		for _, stop := range a.stops {
			if i := bytes.Index(a.held, []byte(stop)); i >= 0 && (first < 0 || i < first) {
				first = i
			}
		}
		if first >= 0 {
			a.stopped = true
			a.out = append(a.out[:0], a.held[:first]...)
			return a.out
		}
		if !final {
			keep = overlap(a.held, a.stops)
		}
	}
	cut := len(a.held) - keep
	a.out = append(a.out[:0], a.held[:cut]...)
	a.held = append(a.held[:0], a.held[cut:]...)
	return a.out
}

// overlap returns the length of the longest end of text that is the beginning of a
// stop sequence.
func overlap(text []byte, stops []string) int {
	longest := 0
	for _, stop := range stops {
		for n := min(len(stop)-1, len(text)); n > longest; n-- {
			if string(text[len(text)-n:]) == stop[:n] {
				longest = n
			}
		}
	}
	return longest
}
