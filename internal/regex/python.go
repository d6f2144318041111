package regex

import (
	"strconv"
	"sync"
	"unicode"

	"github.com/inferd-go/inferd/internal/automaton"
)

// Python returns the strings of the language as the inside of a Python string between the quotation marks quote, which
// is a single or a double one. Each character has the one spelling that Python's repr gives it. If the language has
// more than maxUnseen states, characters beyond ASCII that are not printable are not escaped, although repr escapes
// them: there are 700 ranges of them.
func Python(b *Budget, d *DFA, quote byte) *automaton.DFA {
	if quote == '"' {
		return spell(b, d, inDouble)
	}
	return spell(b, d, inSingle)
}

// maxUnseen is the maximum number of states of a language in which characters that are not printable are escaped.
const maxUnseen = 32

// unseen returns, in order, the ranges of characters beyond ASCII that are not printable, so that Python's repr escapes
// them. Characters of private use are not among them, because package jinja does not escape them.
var unseen = sync.OnceValue(func() (all []span) {
	for c := rune(0x80); c <= maxRune; c++ {
		if strconv.IsPrint(c) || unicode.Is(unicode.Co, c) || unicode.Is(unicode.Cs, c) {
			continue
		}
		if n := len(all); n > 0 && all[n-1].hi == c-1 {
			all[n-1].hi = c
		} else {
			all = append(all, span{lo: c, hi: c})
		}
	}
	return all
})

// divided returns the parts of spans beyond ASCII that are printable, and the parts that are not; see unseen.
func divided(spans []span) (seen, hidden []span) {
	next := unseen()
	for _, p := range cut(spans, 0x80, maxRune) {
		for p.lo <= p.hi {
			for len(next) > 0 && next[0].hi < p.lo {
				next = next[1:]
			}
			part, parts := span{p.lo, p.hi, p.to}, &seen
			switch {
			case len(next) == 0 || next[0].lo > p.hi:
			case next[0].lo <= p.lo:
				part.hi, parts = min(p.hi, next[0].hi), &hidden
			default:
				part.hi = next[0].lo - 1
			}
			*parts = append(*parts, part)
			p.lo = part.hi + 1
		}
	}
	return seen, hidden
}

// pythonEscapes maps the characters that have a short escape in Python's repr, except the quotation marks, to the
// letter of the escape.
var pythonEscapes = map[int32]byte{'\\': '\\', '\n': 'n', '\r': 'r', '\t': 't'}

// asPython returns the edges of a state between characters, in a Python string. If exact is set, characters beyond
// ASCII that are not printable are escaped.
func (s *speller) asPython(spans []span, quote int32, exact bool) []automaton.Edge {
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
	seen, hidden := cut(spans, 0x80, maxRune), []span(nil)
	if exact {
		seen, hidden = divided(spans)
	}
	edges := s.first(append(bare, seen...), false)
	if hex = append(hex, cut(hidden, 0x80, 0xff)...); len(hex) > 0 {
		escapes = append(escapes, automaton.Edge{Lo: 'x', Hi: 'x', To: s.state(s.hex(hex, 2))})
	}
	if four := cut(hidden, 0x100, 0xffff); len(four) > 0 {
		escapes = append(escapes, automaton.Edge{Lo: 'u', Hi: 'u', To: s.state(s.hex(four, 4))})
	}
	if eight := cut(hidden, firstAstral, maxRune); len(eight) > 0 {
		to := s.state(s.hex(eight, 6))
		for range 2 {
			to = s.state([]automaton.Edge{{Lo: '0', Hi: '0', To: to}})
		}
		escapes = append(escapes, automaton.Edge{Lo: 'U', Hi: 'U', To: to})
	}
	if len(escapes) > 0 {
		edges = append(edges, automaton.Edge{Lo: '\\', Hi: '\\', To: s.state(sorted(escapes))})
	}
	return sorted(edges)
}
