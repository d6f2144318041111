package kv

import (
	"cmp"
	"slices"
)

// Retained sequences with cells make every step slower, because attention scans all occupied cells.
// So they are offloaded to memory. To load them back takes a fraction of the time of a prefill. They
// are offloaded in pieces, the last tokens first, because the steps wait for each piece.

// A State is the KV state of consecutive tokens, in pieces.
type State []piece

// A piece is the KV state of some tokens.
type piece struct {
	state  []byte
	tokens int
}

// tokens is the number of tokens of a state.
func (s State) tokens() (n int) {
	for _, p := range s {
		n += p.tokens
	}
	return n
}

// pieceTokens is the number of tokens in an offloaded piece, if sequences can be truncated. To copy a
// piece takes a few milliseconds.
const pieceTokens = 96

// pieceSize is the maximum number of tokens in an offloaded piece.
func (c *Cache) pieceSize() int { return min(pieceTokens, cmp.Or(c.options.Piece, pieceTokens)) }

// save returns the KV state of a sequence for the positions from ≤ p < to. A piece has at most size
// tokens (0 is no limit) and at most Options.Piece; with Options.Whole there is one piece. With an
// error, save returns the pieces before it.
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

// CanOffload reports whether a retained sequence can be offloaded to free cells.
func (c *Cache) CanOffload() bool {
	return c.options.Offloaded > 0 && c.cells.used > c.cells.active && slices.ContainsFunc(c.retained, (*Sequence).evictable)
}

// Offload moves the last piece of the least recently used retained sequence with cells to memory, if
// there is one. With Options.Whole the piece is a whole sequence, and unless idle is set, only a
// sequence of at most pieceTokens tokens is moved.
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

// pinnedBase returns the pinned sequence that shares the most cells with s, and their number.
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

// offload moves the tokens of a retained sequence at the positions p ≥ from to memory, except
// tokens on cells of a pinned sequence. With Options.Whole it moves the whole sequence. After an
// error it drops the sequence. Finally it drops the least recently used offloaded sequences, until
// at most Options.Offloaded tokens are in memory.
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
		_ = c.remove(s)
		return
	}
	s.pieces = append(state, s.pieces...)
	c.offloaded += state.tokens()
	for c.offloaded > c.options.Offloaded {
		i := slices.IndexFunc(c.retained, func(s *Sequence) bool { return len(s.pieces) > 0 })
		_ = c.remove(c.retained[i]) // after an error the cells stay in use, but no prompt finds the sequence
	}
}

// dropState drops the offloaded state of a sequence.
func (c *Cache) dropState(s *Sequence) {
	c.offloaded -= s.pieces.tokens()
	s.pieces = nil
}

// loadPieces appends the offloaded tokens of a prefix to s. They begin at position at; if s does not
// have all tokens before it, none are appended. loadPieces stops at the first piece that it cannot
// load.
func (c *Cache) loadPieces(s *Sequence, p Prefix, at int) {
	tokens := p.source.tokens
	for _, piece := range slices.Clone(p.source.pieces) { // Load may offload more of them to make room
		if s.cells != at || at >= p.N || c.Load(s, tokens[at:at+piece.tokens], State{piece}) != nil {
			break
		}
		at += piece.tokens
	}
	if s.cells > p.N {
		_ = c.truncate(s, p.N) // cannot fail for an active sequence
	}
}
