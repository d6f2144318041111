package llama

import "slices"

// A textState is how far into a character a text is: 0 at the end of one, else what must
// follow.
type textState uint8

// States: how many bytes must follow, and where not any will do for the next.
const (
	whole textState = iota
	one
	two
	three
	afterE0 // as two, but no character that fits into less
	afterED // as two, but no surrogate
	afterF0 // as three, but no character that fits into less
	afterF4 // as three, but none beyond the last
)

// after returns the state behind a byte, and whether UTF-8 has such a byte there.
func (s textState) after(b byte) (textState, bool) {
	between := func(first, last byte, then textState) (textState, bool) { return then, b >= first && b <= last }
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
func (s textState) afterAll(piece []byte) (textState, bool) {
	ok := true
	for _, b := range piece {
		if s, ok = s.after(b); !ok {
			break
		}
	}
	return s, ok
}

// textual looks through the vocabulary for what an answer that is bound to a grammar may
// consist of. For every token it says, a bit a state, where it may stand so that the text
// stays UTF-8. What ends the answer may only stand behind a whole character. A token that
// stands for nothing may not stand anywhere, though llama.cpp would take it by its spelling;
// nor one with a NUL, behind which llama.cpp does not look.
func (m *Model) textual() []uint8 {
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
