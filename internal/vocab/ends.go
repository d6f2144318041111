package vocab

import (
	"math/bits"
	"slices"

	"github.com/inferd-go/inferd/internal/automaton"
)

// Limits of the search for an end, which is a text that completes the answer.
const (
	longestEnd = 32 << 10 // maximum number of symbols of an end
	mostCounts = 1 << 15  // maximum number of states with a count
)

// counts holds, for some states, the number of tokens of the shortest end. It ignores guards.
type counts struct {
	byState map[automaton.State]int32
	path    []automaton.State // scratch
	renewed int               // Automaton.Renewed when they were counted
}

// Ends reports whether the answer can end within the given number of tokens after the token id, which
// must fit. It considers only the end that [automaton.Cursor.Shortest] returns, divided into tokens as by
// [Vocab.Count], up to 32,768 symbols. With a guard, finding that end takes some 30 ns for each symbol,
// unless the cursor still has it from an earlier call.
func (m *Masks) Ends(c *automaton.Cursor, id int32, tokens int) bool {
	if !m.a.Grammar().Guarded() {
		s := m.stateAfter(c.State(), id)
		return s != automaton.Dead && m.endsFrom(s, tokens)
	}
	m.symbols = m.symbols[:0]
	if m.ByID(c, id) {
		m.symbols = append(m.symbols, 256+automaton.Symbol(id))
	} else {
		for _, b := range m.v.tokens[id] {
			m.symbols = append(m.symbols, automaton.Symbol(b))
		}
	}
	text, ok := c.ShortestBehind(m.symbols, min(longestEnd, tokens*m.v.most))
	return ok && (len(text) <= tokens || m.v.Count(text) <= tokens)
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
			s := m.stateAfter(c.State(), id)
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
	case cost > min(longestEnd, tokens*m.v.most):
		return false
	}
	n, ok := m.countFrom(s)
	return ok && n <= tokens
}

// countFrom returns the number of tokens of the text of [automaton.Automaton.ShortestFrom], divided as
// by [Vocab.Count]. It reports false if it finds no such text within longestEnd.
func (m *Masks) countFrom(s automaton.State) (n int, ok bool) {
	k := &m.counts
	if k.renewed != m.a.Renewed() || len(k.byState) > mostCounts {
		k.renewed = m.a.Renewed()
		clear(k.byState)
	}
	if k.byState == nil {
		k.byState = make(map[automaton.State]int32)
	}
	k.path = k.path[:0]
	for at := s; !m.a.MayEnd(at); {
		if known, ok := k.byState[at]; ok {
			n = int(known)
			break
		}
		if m.a.Full() { // ShortestFrom renews the automaton on its way
			text, ok := m.a.ShortestFrom(s, longestEnd)
			return m.v.Count(text), ok
		}
		if len(k.path) == longestEnd {
			return 0, false
		}
		k.path = append(k.path, at)
		if at = m.longest(at); at == automaton.Dead {
			return 0, false
		}
	}
	for _, at := range slices.Backward(k.path) {
		n++
		k.byState[at] = int32(n)
	}
	return n, true
}

// longest returns the state after the longest token with which the shortest text from a state to the
// end begins. It returns Dead if there is no such text.
func (m *Masks) longest(s automaton.State) automaton.State {
	x, next := m.a.Nearest(s)
	if x < 0 || x >= 256 {
		return next
	}
	to, nodes := next, m.v.all.nodes
	at, end := int(m.v.all.first[x]), int(m.v.all.first[x+1])
	for x >= 0 && x < 256 {
		for at < end && nodes[at].b != byte(x) {
			at += int(nodes[at].size)
		}
		if at >= end {
			break
		}
		if nodes[at].token&none == 0 {
			to = next
		}
		if m.a.MayEnd(next) {
			break
		}
		end = at + int(nodes[at].size)
		at++
		x, next = m.a.Nearest(next)
	}
	return to
}

// stateAfter returns the state after a token, or Dead if it does not fit. It ignores guards.
func (m *Masks) stateAfter(s automaton.State, id int32) automaton.State {
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
