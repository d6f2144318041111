package regex

import "github.com/inferd-go/inferd/internal/automaton"

// ASCII returns the strings of the language as the inside of a JSON string in ASCII, spelt as by
// Python's json.dumps: DEL and all characters beyond ASCII are \uXXXX with lower-case digits, and
// characters beyond the basic plane are two such escapes.
func ASCII(b *Budget, d *DFA) *automaton.DFA { return spell(b, d, ascii) }

const hexDigits = "0123456789abcdef"

// Surrogates are the first (high) and second (low) halves of characters beyond the basic plane.
const (
	firstHigh, firstLow, halves = 0xd800, 0xdc00, 0x400
	firstAstral                 = 0x10000
)

// asASCII returns the edges of a state between characters, in the style ascii.
func (s *speller) asASCII(spans []span) []automaton.Edge {
	var edges, escapes []automaton.Edge
	var hex []span
	for _, p := range cut(spans, 0, 0x7e) {
		for c := p.lo; c <= p.hi; c++ {
			letter := shortOf(c)
			switch {
			case letter != 0:
				escapes = append(escapes, automaton.Edge{Lo: letter, Hi: letter, To: p.to})
			case escaped(c):
				hex = append(hex, span{c, c, p.to})
			default:
				edges = widen(edges, byte(c), p.to)
			}
		}
	}
	hex = append(hex, cut(spans, 0x7f, firstHigh-1)...)
	hex = append(hex, s.high(cut(spans, firstAstral, maxRune))...)
	hex = append(hex, cut(spans, firstHigh+2*halves, firstAstral-1)...)
	if len(hex) > 0 {
		escapes = append(escapes, automaton.Edge{Lo: 'u', Hi: 'u', To: s.state(s.hex(hex, 4))})
	}
	if len(escapes) > 0 {
		edges = append(edges, automaton.Edge{Lo: '\\', Hi: '\\', To: s.state(sorted(escapes))})
	}
	return sorted(edges)
}

// high returns spans of the first surrogates of the characters in spans, which must be beyond the basic
// plane. The state of a returned span follows the first escape, and the second escape begins there.
func (s *speller) high(spans []span) (out []span) {
	for h := range int32(halves) {
		base := firstAstral + h*halves
		low := shifted(cut(spans, base, base+halves-1), firstLow-base)
		if len(low) == 0 {
			continue
		}
		state := s.state([]automaton.Edge{{Lo: 'u', Hi: 'u', To: s.state(s.hex(low, 4))}})
		state = s.state([]automaton.Edge{{Lo: '\\', Hi: '\\', To: state}})
		if n := len(out); n > 0 && out[n-1].to == state && out[n-1].hi == firstHigh+h-1 {
			out[n-1].hi++
		} else {
			out = append(out, span{firstHigh + h, firstHigh + h, state})
		}
	}
	return out
}

// hex returns the edges for the first digit of the numbers in spans, spelt with the given number of
// hexadecimal digits.
func (s *speller) hex(spans []span, digits int) (edges []automaton.Edge) {
	block := int32(1) << (4 * (digits - 1))
	for d := range int32(len(hexDigits)) {
		within := shifted(cut(spans, d*block, (d+1)*block-1), -d*block)
		if len(within) == 0 {
			continue
		}
		to := within[0].to
		switch {
		case digits == 1:
		case within[0].lo == 0 && within[0].hi == block-1:
			for range digits - 1 { // all further digits lead to the same state
				to = s.state([]automaton.Edge{{Lo: '0', Hi: '9', To: to}, {Lo: 'a', Hi: 'f', To: to}})
			}
		default:
			to = s.state(s.hex(within, digits-1))
		}
		edges = widen(edges, hexDigits[d], to)
	}
	return edges
}

// shifted adds the number by to the bounds of spans, in place.
func shifted(spans []span, by int32) []span {
	for i := range spans {
		spans[i].lo += by
		spans[i].hi += by
	}
	return spans
}

// widen adds an edge for byte c, or widens the last edge if it can.
func widen(edges []automaton.Edge, c byte, to int32) []automaton.Edge {
	if n := len(edges); n > 0 && edges[n-1].To == to && edges[n-1].Hi+1 == c {
		edges[n-1].Hi = c
		return edges
	}
	return append(edges, automaton.Edge{Lo: c, Hi: c, To: to})
}
