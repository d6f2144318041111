package vocab

import (
	"math/bits"

	"github.com/inferd-go/inferd/internal/automaton"
)

// Limits of the search for ends.
const (
	// slowEnd is the maximum length of an end that is spelt out for a single token, in bytes.
	// slowGuarded is the same with a guard, where each byte takes longer.
	slowEnd     = 4096
	slowGuarded = 512
	guardedEnd  = 16 << 10 // maximum length of an end with a guard, in bytes
)

// guarded returns an upper bound of the number of bytes to an end with a guard. cost is that of a
// state, which ignores the guard. With a guard the items must be new, and the shortest text for a
// cost of n spells n integers in n²/20 bytes.
func guarded(cost int) int { return cost*cost/32 + 4*cost + 64 }

// Ends reports whether the answer can end after the token id, which must fit, and at most the given
// number of further tokens. It also reports false if that is too expensive to find out.
func (m *Masks) Ends(c *automaton.Cursor, id int32, tokens int) bool {
	s := m.behind(c.State(), id)
	if s == automaton.Dead {
		return false
	}
	if !m.a.Grammar().Guarded() {
		return m.endsFrom(s, tokens)
	}
	if !m.ByID(c, id) {
		if s = c.Behind(m.v.tokens[id]); s == automaton.Dead { // the guard may remove ways to continue
			return false
		}
	}
	cost := m.a.Cost(s)
	switch {
	case guarded(cost) <= tokens:
		return true
	case cost > tokens*m.v.most || cost > slowGuarded || m.v.control[id]:
		return false
	}
	text, ok := c.ShortestBehind(m.v.tokens[id], guardedEnd)
	return ok && m.v.Count(text) <= tokens
}

// Within clears the tokens of a mask after which the answer cannot end within the given number of
// further tokens. It ignores the guard. It looks at every token of the mask, which takes some
// milliseconds for a large mask.
func (m *Masks) Within(c *automaton.Cursor, mask []uint64, tokens int) {
	fits := make(map[automaton.State]bool)
	renewed := m.a.Renewed()
	for w, word := range mask {
		for rest := word; rest != 0; rest &= rest - 1 {
			id := int32(w<<6 + bits.TrailingZeros64(rest))
			if m.a.Full() {
				m.a.Renew(nil)
			}
			s := m.behind(c.State(), id)
			if m.a.Renewed() != renewed {
				renewed = m.a.Renewed()
				clear(fits)
			}
			ok, known := fits[s]
			if !known {
				ok = s != automaton.Dead && m.endsFrom(s, tokens)
				fits[s] = ok // stale if the search renewed the automaton; the next round clears it
			}
			if !ok {
				mask[w] &^= 1 << (id & 63)
			}
		}
	}
}

// endsFrom reports whether the answer can end within the given number of tokens from a state,
// without regard to a guard.
func (m *Masks) endsFrom(s automaton.State, tokens int) bool {
	cost := m.a.Cost(s)
	switch {
	case cost <= tokens:
		return true
	case cost > tokens*m.v.most || cost > slowEnd:
		return false
	}
	text, ok := m.a.ShortestFrom(s, slowEnd)
	return ok && m.v.Count(text) <= tokens
}

// behind returns the state after a token, without regard to a guard.
func (m *Masks) behind(s automaton.State, id int32) automaton.State {
	if next := m.a.NextToken(s, id); next != automaton.Dead || m.v.control[id] {
		return next
	}
	for _, b := range m.v.tokens[id] {
		if s = m.a.Next(s, b); s == automaton.Dead {
			break
		}
	}
	return s
}
