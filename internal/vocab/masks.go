package vocab

import (
	"math"

	"github.com/inferd-go/inferd/internal/automaton"
)

// Masks computes the masks of cursors of one automaton, over one vocabulary.
type Masks struct {
	// Plainly disables the groups and the kept masks. The results are the same; tests compare them.
	Plainly bool

	v *Vocab
	a *automaton.Automaton

	kept    kept
	renewed int

	// Results of the last walk.
	states  []automaton.State // by depth: the states along the path
	parts   [groups + 1]*trie // the tries that it walks
	base    int               // the group of the ready mask; -1 if there is none
	count   int               // the number of tokens that fit and are not in the ready mask
	found   []int32           // these tokens, with flags; complete if count < len(found)
	guarded []int32           // tokens that pass a mark of a guard

	paths []automaton.Spelling // by depth: finished spellings of a guard

	counts  counts             // of Within, and of Ends without a guard
	symbols []automaton.Symbol // scratch of Ends
}

// NewMasks returns the masks of an automaton over a vocabulary.
func NewMasks(v *Vocab, a *automaton.Automaton) *Masks {
	return &Masks{
		v: v, a: a, renewed: a.Renewed(),
		states: make([]automaton.State, v.most+1), paths: make([]automaton.Spelling, v.most+1),
		found: make([]int32, mostFound*v.Words()+1),
	}
}

// Next moves c over a token: by its id if that fits, otherwise by its bytes. If the token does not fit,
// Next reports false and c does not move.
func (m *Masks) Next(c *automaton.Cursor, id int32) bool {
	if c.FeedToken(id) {
		return true
	}
	p := m.v.tokens[id]
	return !m.v.control[id] && len(p) > 0 && c.Feed(p)
}

// ByID reports whether a token fits next by its id.
func (m *Masks) ByID(c *automaton.Cursor, id int32) bool {
	return m.a.NextToken(c.State(), id) != automaton.Dead
}

// Mask sets the bits of the tokens that fit next, and clears all others. The caller must handle
// tokens that end an answer: they fit where c may end. The error is [automaton.ErrItems].
func (m *Masks) Mask(c *automaton.Cursor, mask []uint64) error {
	if m.a.Full() {
		m.a.Renew(nil)
	}
	guarded := m.fill(c, mask)
	for _, id := range guarded {
		if Has(mask, id) && !c.Try(m.v.tokens[id]) {
			m.v.clear(mask, id)
		}
	}
	if at, ok := c.Spelling(); ok {
		m.follow(c, at, m.v.all.nodes, mask)
	}
	m.byID(c, mask)
	return m.a.Err()
}

// byID sets the bits of the tokens that the grammar takes by id.
func (m *Masks) byID(c *automaton.Cursor, mask []uint64) {
	m.a.Tokens(c.State(), func(id int32, other bool) {
		n := int32(m.v.Len())
		switch {
		case !other:
			if id < n && c.TryToken(id) {
				mask[id>>6] |= 1 << (id & 63)
			}
		default:
			for t := range n {
				if t != id {
					mask[t>>6] |= 1 << (t & 63)
				}
			}
		}
	})
}

// fill computes the mask of the state of c, without regard to its guard. It returns the tokens that
// the guard must check.
func (m *Masks) fill(c *automaton.Cursor, mask []uint64) []int32 {
	if m.renewed != m.a.Renewed() {
		m.renewed = m.a.Renewed()
		m.kept.forget()
	}
	s := c.State()
	if m.Plainly {
		m.walkAll(s, mask)
		return m.guarded
	}
	if m.v.most <= automaton.Lookahead {
		s = m.a.Alike(s)
	}
	if k := m.kept.find(s); k != nil {
		m.restore(k, mask)
		return k.guarded
	}
	m.walkAll(s, mask)
	if m.renewed != m.a.Renewed() {
		return m.guarded
	}
	return m.keep(s, mask).guarded
}

// walkAll computes the mask of a state. It walks only those groups that the state neither takes nor
// refuses as a whole.
func (m *Masks) walkAll(s automaton.State, mask []uint64) {
	m.count, m.guarded, m.base = 0, m.guarded[:0], -1
	plain, only := m.a.Plain(s)
	switch {
	case m.Plainly || plain == 0:
	case plain >= m.v.longest:
		m.base = groups - 1
	case plain >= 32:
		m.base = single
	default:
		m.base = min(plain, single) - 1
	}
	parts := m.parts[:0]
	if m.base >= 0 {
		parts = append(parts, &m.v.rest)
		nodes := len(m.v.rest.nodes)
		for g := m.base + 1; g < groups; g++ {
			if only && (g < single || g == single && plain <= single || g > single && plain <= 32) {
				continue // all tokens of the group are too long
			}
			parts = append(parts, &m.v.plain[g])
			nodes += len(m.v.plain[g].nodes)
		}
		if nodes > len(m.v.all.nodes) { // more work than one trie of all tokens: the tokens of a group share fewer beginnings
			m.base = -1
		}
	}
	if m.base < 0 {
		parts = append(parts[:0], &m.v.all)
		clear(mask)
	} else {
		copy(mask, m.v.ready[m.base])
	}
	for _, t := range parts {
		s = m.walk(t, s, mask)
	}
}

// walk sets the bits of the tokens of a trie that fit after state s. It returns s, with a new number if
// it has renewed the automaton.
func (m *Masks) walk(t *trie, s automaton.State, mask []uint64) automaton.State {
	fits := m.a.Fits(s)
	for b := range 256 {
		if from, to := t.first[b], t.first[b+1]; from < to && fits.Has(byte(b)) {
			s = m.walkPart(t.nodes[from:to], s, mask)
		}
	}
	return s
}

// walkPart walks the part of a trie that begins with one byte. Mispredicted branches would take
// half of a walk's time, so there are few branches: the state before a node is found by the depth
// of the node, and the bits of nodes without a token are masked out.
func (m *Masks) walkPart(nodes []node, s automaton.State, mask []uint64) automaton.State {
	a, states, found, count := m.a, m.states, m.found, m.count
	guarded := a.Grammar().Guarded()
	const nowhere = math.MaxInt
	passed := nowhere // the depth at which the path has passed a mark of a guard
	states[0] = s
	for i := 0; i < len(nodes); {
		n := &nodes[i]
		depth := int(n.depth)
		next := a.Known(states[depth], n.b)
		if next == 0 {
			next = m.step(depth, n.b)
		}
		if next == automaton.Dead {
			i += int(n.size)
			continue
		}
		i++
		states[depth+1] = next
		id := n.token &^ flags
		has := uint64(^n.token&none) / none
		mask[id>>6] |= has << (id & 63)
		found[min(count, len(found)-1)] = n.token
		count += int(has)
		if n.token&twinned != 0 {
			m.v.set(mask, n.token)
		}
		if guarded {
			if depth <= passed {
				passed = nowhere
			}
			if passed == nowhere && a.Guarding(next) {
				passed = depth
			}
			if passed != nowhere && has != 0 {
				m.guarded = append(m.guarded, id)
			}
		}
	}
	m.count = count
	return states[0]
}

// step returns the state after byte b from the state at a depth of the path. If the automaton is
// full, step renews it.
func (m *Masks) step(depth int, b byte) automaton.State {
	next := m.a.Next(m.states[depth], b)
	if m.a.Full() {
		m.states[depth+1] = next
		m.a.Renew(m.states[:depth+2])
		next = m.states[depth+1]
	}
	return next
}

// follow removes from the mask the tokens that the guard refuses. It checks only tokens along the
// finished spellings, from position at on: the guard refuses no other token of the mask.
func (m *Masks) follow(c *automaton.Cursor, at automaton.Spelling, nodes []node, mask []uint64) {
	m.paths[0] = at
	for i := 0; i < len(nodes); {
		n := &nodes[i]
		next, ok := c.Follow(m.paths[n.depth], n.b)
		if !ok {
			i += int(n.size)
			continue
		}
		i++
		m.paths[n.depth+1] = next
		if id := n.token &^ flags; n.token&none == 0 && Has(mask, id) && !c.Try(m.v.tokens[id]) {
			m.v.clear(mask, id)
		}
	}
}
