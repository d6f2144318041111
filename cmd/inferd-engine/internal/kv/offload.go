package kv

import (
	"cmp"
	"slices"
)

// Retained sequences make every step slower while they have cells, because attention scans the
// cache from end to end. So they are moved to memory, from which they come back in a fraction
// of the time of a prefill: piece by piece from the end, as the steps wait meanwhile.

// A State is the KV state of consecutive tokens, in pieces.
type State []piece

// A piece is the KV state of some tokens.
type piece struct {
	state  []byte
	tokens int
}

// tokens is how many tokens a state has.
func (s State) tokens() (n int) {
	for _, p := range s {
		n += p.tokens
	}
	return n
}

// pieceTokens is how many tokens an offloaded piece has, if sequences can be truncated: some
// milliseconds of copying.
const pieceTokens = 96

// pieceSize is how many tokens an offloaded piece has at most.
func (c *Cache) pieceSize() int { return min(pieceTokens, cmp.Or(c.options.Piece, pieceTokens)) }

// save returns the KV state of a sequence from one position up to another, in pieces of at most
// that size, and of the size that memory can save at once; 0 is no limit. After an error, it is that of
// the first pieces.
func (c *Cache) save(seq, from, to, size int) (State, error) {
	var all State
	size = min(cmp.Or(size, to-from), cmp.Or(c.options.Piece, to-from))
	if c.options.Whole {
		size = to - from
	}
	for from < to {
		n := min(size, to-from)
		state, err := c.memory.Save(seq, from, from+n)
		if err != nil {
			return all, err
		}
		all = append(all, piece{state, n})
		from += n
	}
	return all, nil
}

// CanOffload reports whether there are cells that only retained sequences have, and that may
// be offloaded.
func (c *Cache) CanOffload() bool {
	return c.options.Offloaded > 0 && c.cells.used > c.cells.active && slices.ContainsFunc(c.retained, (*Sequence).evictable)
}

// Offload moves a piece of the least recently used retained sequence to memory, if there is
// one. Without truncation the piece is the whole sequence: then, unless the loop is idle, only
// a small one is moved.
func (c *Cache) Offload(idle bool) {
	if !c.CanOffload() {
		return
	}
	i := slices.IndexFunc(c.retained, func(s *Sequence) bool {
		return s.evictable() && (!c.options.Whole || idle || s.cells <= pieceTokens)
	})
	if i >= 0 {
		s := c.retained[i]
		from := s.cells - c.pieceSize()
		if _, common := c.pinnedBase(s); from <= common {
			from = 0
		}
		c.offload(s, from)
	}
}

// pinnedBase returns the pinned sequence that shares most cells with another one, and how many.
func (c *Cache) pinnedBase(s *Sequence) (base *Sequence, common int) {
	for _, p := range c.retained {
		if !p.pinned || c.options.Whole {
			continue
		}
		if n := c.cells.shared(p.id, s.id); n > common {
			base, common = p, n
		}
	}
	return base, common
}

// offload moves the tokens of a retained sequence with cells from position from on to memory, but for
// those on cells of a pinned one. It drops the sequence after an error: a later prompt is prefilled
// again. Without truncation, it moves the whole sequence.
func (c *Cache) offload(s *Sequence, from int) {
	if c.options.Whole {
		from = 0
	}
	base, common := c.pinnedBase(s)
	begin := max(from, common)
	state, err := c.save(s.id, begin, s.cells, pieceTokens)
	switch {
	case err != nil:
	case from > 0:
		err = c.truncate(s, begin)
	default:
		s.base, s.common = base, common
		err = c.Free(s)
	}
	if err != nil || len(s.pieces)+len(state) == 0 && s.cells == 0 {
		_ = c.forget(s)
		return
	}
	s.pieces = append(state, s.pieces...)
	c.offloaded += state.tokens()
	for c.offloaded > c.options.Offloaded {
		i := slices.IndexFunc(c.retained, func(s *Sequence) bool { return len(s.pieces) > 0 })
		_ = c.forget(c.retained[i]) // an error leaves cells in use, but no sequence that is found
	}
}

// dropState drops the state of a sequence in memory.
func (c *Cache) dropState(s *Sequence) {
	c.offloaded -= s.pieces.tokens()
	s.pieces = nil
}

// loadPieces continues a sequence that has all tokens of a prefix with cells with the offloaded
// ones, which begin at a position. If it cannot load a piece, it stops there.
func (c *Cache) loadPieces(s *Sequence, p Prefix, at int) {
	tokens := p.source.tokens
	for _, piece := range slices.Clone(p.source.pieces) { // room for one may be made by moving more of them
		if s.cells != at || at >= p.N || c.Load(s, tokens[at:at+piece.tokens], State{piece}) != nil {
			break
		}
		at += piece.tokens
	}
	if s.cells > p.N {
		_ = c.truncate(s, p.N) // of an active sequence it succeeds
		s.tokens = s.tokens[:s.cells]
	}
}
