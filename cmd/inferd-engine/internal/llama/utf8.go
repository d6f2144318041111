package llama

import "slices"

// A utf8State is the state of a text that may end within a character: the bytes that must follow; 0
// after a whole character.
type utf8State uint8

// States: the number of bytes that must follow, and the range of the next one.
const (
	whole utf8State = iota
	one
	two
	three
	afterE0 // as two, but no overlong encoding
	afterED // as two, but no surrogate
	afterF0 // as three, but no overlong encoding
	afterF4 // as three, but no character beyond the last
)

// after returns the state after a byte, and whether the byte is valid in UTF-8 there.
func (s utf8State) after(b byte) (utf8State, bool) {
	between := func(first, last byte, then utf8State) (utf8State, bool) { return then, b >= first && b <= last }
	switch s {
	case whole: // below
	case one:
		return between(0x80, 0xbf, whole)
	case two:
		return between(0x80, 0xbf, one)
	case three:
		return between(0x80, 0xbf, two)
	case afterE0:
		return between(0xa0, 0xbf, one)
	case afterED:
		return between(0x80, 0x9f, one)
	case afterF0:
		return between(0x90, 0xbf, two)
	case afterF4:
		return between(0x80, 0x8f, two)
	}
	switch {
	case b < 0x80:
		return whole, true
	case b >= 0xc2 && b <= 0xdf:
		return one, true
	case b == 0xe0:
		return afterE0, true
	case b == 0xed:
		return afterED, true
	case b >= 0xe1 && b <= 0xef:
		return two, true
	case b == 0xf0:
		return afterF0, true
	case b >= 0xf1 && b <= 0xf3:
		return three, true
	case b == 0xf4:
		return afterF4, true
	}
	return whole, false
}

// afterAll is after for several bytes.
func (s utf8State) afterAll(piece []byte) (utf8State, bool) {
	ok := true
	for _, b := range piece {
		if s, ok = s.after(b); !ok {
			break
		}
	}
	return s, ok
}

// utf8Masks scans the vocabulary for the tokens that an answer with a grammar may contain. A token's
// mask has a bit for each state after which the token is valid UTF-8. A token that ends the answer
// may only follow a whole character. A token without text is never allowed, although llama.cpp would
// accept it by its spelling; nor is a token with a NUL, where llama.cpp stops reading.
func (m *Model) utf8Masks() []uint8 {
	table := make([]uint8, m.size)
	var piece []byte
	for tok := range Token(m.size) {
		if m.isEOG(tok) {
			table[tok] = 1 << whole
			continue
		}
		piece = m.AppendPiece(piece[:0], tok)
		if len(piece) == 0 || slices.Contains(piece, 0) {
			continue
		}
		for s := range afterF4 + 1 {
			if _, ok := s.afterAll(piece); ok {
				table[tok] |= 1 << s
			}
		}
	}
	return table
}
