package kv

import "slices"

// Retained sequences make every step slower while they have cells, because attention scans the
// cache from end to end. So they are moved to memory, from which they come back in a fraction
// of the time of a prefill: piece by piece from the end, as the steps wait meanwhile.

// A piece is the KV state of some tokens.
type piece struct {
	state  []byte
	tokens int
}

// pieceTokens is how many tokens a piece has, if sequences can be truncated: some milliseconds
// of copying. It is less than the attention windows of models: a longer piece would not have
// the state of all of its tokens.
const pieceTokens = 96

// CanOffload reports whether there are cells that only retained sequences have, and that may
// be offloaded.
func (c *Cache) CanOffload() bool {
	return c.options.Offloaded > 0 && c.cells.used() > c.cells.active && slices.ContainsFunc(c.retained, (*Sequence).evictable)
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
	if i < 0 {
		return
	}
	s, from := c.retained[i], 0
	if !c.options.Whole {
		from = max(0, s.cells-pieceTokens)
	}
	end := s.cells
	state, err := c.memory.Save(s.id, from, end)
	if from > 0 && (err != nil || c.truncate(s, from) != nil) { // for an attention window, say: then the whole at once
		from = 0
		state, err = c.memory.Save(s.id, from, end)
	}
	if err != nil || from == 0 && c.Free(s) != nil {
		_ = c.forget(s) // a later prompt is prefilled again
		return
	}
	s.pieces = slices.Insert(s.pieces, 0, piece{state, end - from})
	c.offloaded += end - from
	for c.offloaded > c.options.Offloaded {
		i := slices.IndexFunc(c.retained, func(s *Sequence) bool { return len(s.pieces) > 0 })
		_ = c.forget(c.retained[i]) // an error leaves cells in use, but no sequence that is found
	}
}

// loadPieces continues a sequence that has all tokens of a prefix with cells with the offloaded
// ones. If it cannot load a piece, it stops there.
func (c *Cache) loadPieces(s *Sequence, p Prefix) {
	for _, piece := range p.source.pieces {
		has := s.cells
		if has >= p.N || c.Load(s, p.source.tokens[has:has+piece.tokens], piece.state) != nil {
			break
		}
	}
	if s.cells <= p.N {
		return
	}
	if n := p.N; c.truncate(s, n) == nil {
		s.tokens = s.tokens[:n]
		return
	}
	_ = c.memory.Truncate(s.id, 0)
	c.cells.truncate(s.id, 0)
	s.cells, s.tokens = 0, nil
}
