package vocab

import "github.com/inferd-go/inferd/internal/automaton"

// Masks makes the masks of the cursors of one automaton over one vocabulary.
type Masks struct {
	// Plainly switches the groups and the kept masks off. The masks are the same; tests compare them.
	Plainly bool

	v *Vocab
	a *automaton.Automaton

	ends     []int32 // the walk: of each open subtree, its end
	states   []automaton.State
	found    []int32 // tokens of the last walk, with flags, but for those of a ready mask
	base     int     // the group of the ready mask; -1 is none
	guarded  []int32 // tokens of the last walk that pass marks of guards
	kept     kept
	renewed  int
	pathEnds []int32
	paths    []automaton.Spelling
}

// NewMasks returns the masks of an automaton over a vocabulary.
func NewMasks(v *Vocab, a *automaton.Automaton) *Masks {
	return &Masks{v: v, a: a, renewed: a.Renewed()}
}

// Next follows a token: its bytes, or its id where the grammar names that. If it does not fit
// it reports false and c stays where it was.
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

// Mask sets the bits of the tokens that fit next, and clears all others. Tokens that end an
// answer are the caller's: they fit where c may end. The error is [automaton.ErrItems].
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
	m.byID(c.State(), mask)
	return m.a.Err()
}

// byID sets the bits of the tokens that the grammar names.
func (m *Masks) byID(s automaton.State, mask []uint64) {
	m.a.Tokens(s, func(id int32, other bool) {
		n := int32(m.v.Len())
		switch {
		case !other:
			if id < n {
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

// fill makes the mask of a state without its guard. It returns the tokens that the guard has
// to check.
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

// walkAll walks the groups that the state does not take or refuse as a whole.
func (m *Masks) walkAll(s automaton.State, mask []uint64) {
	m.found, m.guarded, m.base = m.found[:0], m.guarded[:0], -1
	plain, only := m.a.Plain(s)
	switch {
	case m.Plainly || plain == 0:
		clear(mask)
		m.walk(&m.v.all, s, mask)
		return
	case plain >= m.v.longest:
		m.base = groups - 1
	case plain >= 32:
		m.base = single
	default:
		m.base = min(plain, single) - 1
	}
	copy(mask, m.v.ready[m.base])
	s = m.walk(&m.v.rest, s, mask)
	for g := m.base + 1; g < groups; g++ {
		if only && (g < single || g == single && plain <= single || g > single && plain <= 32) {
			continue // too long, all of them
		}
		s = m.walk(&m.v.plain[g], s, mask)
	}
}

// walk sets the bits of the tokens of a trie that fit behind a state. It returns the state,
// as the automaton may begin anew.
func (m *Masks) walk(t *trie, s automaton.State, mask []uint64) automaton.State {
	fits := m.a.Fits(s)
	for b := range 256 {
		if from, to := t.first[b], t.first[b+1]; from < to && fits.Has(byte(b)) {
			s = m.walkPart(t.nodes[from:to], s, mask)
		}
	}
	return s
}

// walkPart walks the subtree behind one byte.
func (m *Masks) walkPart(nodes []node, s automaton.State, mask []uint64) automaton.State {
	a := m.a
	m.ends, m.states = m.ends[:0], append(m.states[:0], s)
	passed := -1 // the depth from which on the path has passed a mark of a guard
	count := a.States()
	for i := 0; i < len(nodes); {
		for k := len(m.ends); k > 0 && int(m.ends[k-1]) <= i; k = len(m.ends) {
			m.ends, m.states = m.ends[:k-1], m.states[:k]
			if passed >= k {
				passed = -1
			}
		}
		n := nodes[i]
		end := i + int(n.size>>byteBits)
		next := a.Next(m.states[len(m.states)-1], byte(n.size))
		if next == automaton.Dead {
			i = end
			continue
		}
		if passed < 0 && a.Guarding(next) {
			passed = len(m.ends) + 1
		}
		if n.token >= 0 {
			m.v.set(mask, n.token)
			m.found = append(m.found, n.token)
			if passed >= 0 {
				m.guarded = append(m.guarded, n.token&^twinned)
			}
		}
		if i++; i < end {
			m.ends, m.states = append(m.ends, int32(end)), append(m.states, next)
		} else if passed > len(m.ends) {
			passed = -1
		}
		if a.States() != count {
			if a.Full() {
				a.Renew(m.states)
			}
			count = a.States()
		}
	}
	return m.states[0]
}

// follow checks the tokens along the finished spellings of the guard: beyond them every
// token of the mask fits.
func (m *Masks) follow(c *automaton.Cursor, at automaton.Spelling, nodes []node, mask []uint64) {
	m.pathEnds, m.paths = m.pathEnds[:0], append(m.paths[:0], at)
	for i := 0; i < len(nodes); {
		for k := len(m.pathEnds); k > 0 && int(m.pathEnds[k-1]) <= i; k = len(m.pathEnds) {
			m.pathEnds, m.paths = m.pathEnds[:k-1], m.paths[:k]
		}
		n := nodes[i]
		end := i + int(n.size>>byteBits)
		next, ok := c.Follow(m.paths[len(m.paths)-1], byte(n.size))
		if !ok {
			i = end
			continue
		}
		if id := n.token &^ twinned; n.token >= 0 && Has(mask, id) && !c.Try(m.v.tokens[id]) {
			m.v.clear(mask, id)
		}
		if i++; i < end {
			m.pathEnds, m.paths = append(m.pathEnds, int32(end)), append(m.paths, next)
		}
	}
}
