package regex

import "github.com/inferd-go/inferd/internal/automaton"

// Python spells the language as the inside of a string of Python between quotation marks, each character in the one
// spelling that Python's repr has for it. quote is a single or a double mark. Letters beyond ASCII are not escaped, also
// where repr would, as they have no glyph.
func Python(b *Budget, d *DFA, quote byte) *automaton.DFA {
	if quote == '"' {
		return spell(b, d, inDouble)
	}
	return spell(b, d, inSingle)
}

// pythonEscapes are the characters with an escape of their own in Python's repr, beside the quotation mark, and its letter.
var pythonEscapes = map[int32]byte{'\\': '\\', '\n': 'n', '\r': 'r', '\t': 't'}

// asPython returns the edges of a state between characters.
func (s *speller) asPython(spans []span, quote int32) []automaton.Edge {
	var bare, hex []span
	var escapes []automaton.Edge
	for _, p := range cut(spans, 0, 0x7f) {
		for c := p.lo; c <= p.hi; c++ {
			letter, ok := pythonEscapes[c]
			switch {
			case c == quote:
				escapes = append(escapes, automaton.Edge{Lo: byte(c), Hi: byte(c), To: p.to})
			case ok:
				escapes = append(escapes, automaton.Edge{Lo: letter, Hi: letter, To: p.to})
			case c < 0x20 || c == 0x7f:
				hex = append(hex, span{c, c, p.to})
			default:
				if n := len(bare); n > 0 && bare[n-1].to == p.to && bare[n-1].hi+1 == c {
					bare[n-1].hi = c
				} else {
					bare = append(bare, span{c, c, p.to})
				}
			}
		}
	}
	edges := s.first(append(bare, cut(spans, 0x80, maxRune)...), false)
	if len(hex) > 0 {
		escapes = append(escapes, automaton.Edge{Lo: 'x', Hi: 'x', To: s.state(s.hex(hex, 2))})
	}
	if len(escapes) > 0 {
		edges = append(edges, automaton.Edge{Lo: '\\', Hi: '\\', To: s.state(sorted(escapes))})
	}
	return sorted(edges)
}
