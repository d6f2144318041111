package vocab

import "github.com/inferd-go/inferd/internal/automaton"

// Masks kept of a grammar, each Words long, and the nodes of a walk from which on keeping its mask pays.
const (
	keptMasks = 64
	keepFrom  = 4096
)

// Masks makes the masks of the cursors of one automaton over one vocabulary.
type Masks struct {
	// Plainly switches the groups and the kept masks off. The masks are the same; tests compare them.
	Plainly bool

	v *Vocab
	a *automaton.Automaton

	ends     []int32 // the walk: of each open subtree, its end
	states   []automaton.State
	visited  int
	guarded  []int32 // tokens of the last walk that pass marks of guards
	kept     [keptMasks]kept
	turn     uint64
	renewed  int
	pathEnds []int32
	paths    []automaton.Spelling
}

// A kept mask belongs to a state.
type kept struct {
	state   automaton.State // 0 is none
	used    uint64          // the turn of its last use
	mask    []uint64
	guarded []int32
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
	m.turn++
	guarded := m.fill(c, mask)
	for _, id := range guarded {
		if Has(mask, id) && !c.Try(m.v.tokens[id]) {
			m.v.clear(mask, id)
		}
	}
	if at, ok := c.Spelling(); ok {
		m.follow(c, at, m.v.rest, mask)
		for g := range m.v.plain {
			m.follow(c, at, m.v.plain[g], mask)
		}
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
		for i := range m.kept {
			m.kept[i].state = 0
		}
	}
	s := c.State()
	if m.v.most <= automaton.Lookahead && !m.Plainly {
		s = m.a.Alike(s)
	}
	oldest := 0
	if !m.Plainly {
		for i := range m.kept {
			k := &m.kept[i]
			if k.state == s {
				k.used = m.turn
				copy(mask, k.mask)
				return k.guarded
			}
			if k.used < m.kept[oldest].used {
				oldest = i
			}
		}
	}
	m.visited = 0
	m.guarded = m.guarded[:0]
	m.walkAll(s, mask)
	if m.visited >= keepFrom && !m.Plainly && m.renewed == m.a.Renewed() {
		k := &m.kept[oldest]
		k.state, k.used = s, m.turn
		k.mask = append(k.mask[:0], mask...)
		k.guarded = append(k.guarded[:0], m.guarded...)
		return k.guarded
	}
	return m.guarded
}

// walkAll walks the groups that the state does not take or refuse as a whole.
func (m *Masks) walkAll(s automaton.State, mask []uint64) {
	plain, only := m.a.Plain(s)
	whole := -1 // the last group of which all tokens fit
	switch {
	case m.Plainly:
		only = false
	case plain >= m.v.longest:
		whole = groups - 1
	case plain >= 32:
		whole = single
	default:
		whole = min(plain, single) - 1
	}
	if whole >= 0 {
		copy(mask, m.v.ready[whole])
	} else {
		clear(mask)
	}
	s = m.walk(m.v.rest, s, mask)
	for g := whole + 1; g < groups; g++ {
		if only && (g < single || g == single && plain <= single || g > single && plain <= 32) {
			continue // too long, all of them
		}
		s = m.walk(m.v.plain[g], s, mask)
	}
}

// walk sets the bits of the tokens of a trie that fit behind a state. It returns the state,
// as the automaton may begin anew.
func (m *Masks) walk(nodes []node, s automaton.State, mask []uint64) automaton.State {
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
		m.visited++
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
			if passed >= 0 {
				m.guarded = append(m.guarded, n.token)
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
		if n.token >= 0 && Has(mask, n.token) && !c.Try(m.v.tokens[n.token]) {
			m.v.clear(mask, n.token)
		}
		if i++; i < end {
			m.pathEnds, m.paths = append(m.pathEnds, int32(end)), append(m.paths, next)
		}
	}
}
