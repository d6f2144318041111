package llama

import "slices"

// A utf8State is the position of a text in a character: 0 at its end, else the bytes that must
// follow.
type utf8State uint8

// States: how many bytes must follow, and which of them the next one may be.
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

// after returns the state behind a byte, and whether UTF-8 has such a byte there.
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

// utf8Masks scans the vocabulary for the tokens that an answer with a grammar may contain. For
// every token it has a bit for each state in which the token keeps the text UTF-8. A token that
// ends the answer may only follow a whole character. A token that stands for nothing is never
// allowed, though llama.cpp would accept it by its spelling; nor is one with a NUL, behind which
// llama.cpp does not look.
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
