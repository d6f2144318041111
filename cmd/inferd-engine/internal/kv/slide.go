package kv

import (
	"cmp"
	"errors"
	"slices"
)

// The model's cache puts a new token into the first empty cell. If a cell before the last one of a
// sequence were empty, the next token of the sequence could get it, out of order. Therefore dead
// cells stay occupied in the model's cache, by sequences that have ended or by the truncated ends
// of others. They are emptied by a slide, or when no cell with references is behind them; only then
// is the number of an ended sequence free.

// sink lowers the top to the last cell with references, and empties the dead cells above it. It frees
// the numbers of ended sequences that no longer hold a dead cell.
func (c *Cache) sink() error {
	top := c.cells.lastLive()
	var failure error
	for seq, s := range c.sequences {
		n := c.cells.heldBelow(seq, top)
		if s == nil {
			n = c.cells.lastDead(seq, n)
		}
		failure = errors.Join(failure, c.cut(seq, n))
	}
	if !c.torn {
		c.cells.top = top
	}
	return failure
}

// cut removes all but the first n cells that a sequence holds from the model's cache; its tokens must
// be on the first n. If memory fails, cut marks the cache as torn, and removes all cells of an ended
// sequence.
func (c *Cache) cut(seq, n int) error {
	if n == len(c.cells.held[seq]) {
		return nil
	}
	err := c.memory.Truncate(seq, n)
	if err != nil {
		c.torn = true
		if c.sequences[seq] != nil {
			return nil // a slide will repair it
		}
		n, err = 0, c.memory.Truncate(seq, 0)
	}
	c.cells.release(seq, n)
	return err
}

// slide moves all cells with references behind the first dead one down, in order, so that no cell is
// dead. If the state of a sequence cannot be saved or loaded, the sequence loses tokens at its end.
// If offloading is enabled, retained sequences are offloaded instead of moved.
func (c *Cache) slide() {
	if c.options.Whole {
		c.cells.renumber()
		return
	}
	for first := c.cells.firstDead(); c.options.Offloaded > 0; {
		i := slices.IndexFunc(c.retained, func(s *Sequence) bool { return s.evictable() && c.cells.below(s.id, first) < s.cells })
		if i < 0 {
			break
		}
		c.offload(c.retained[i], 0)
	}
	c.slides++
	for !c.slideFrom(c.cells.firstDead()) { // ends, because each failure leaves fewer cells to move
	}
}

// A move is the part of one sequence in a slide.
type move struct {
	seq    *Sequence
	keeps  int       // tokens on cells that are not moved
	source *Sequence // a sequence moved earlier that shares cells; nil if there is none
	common int       // number of leading tokens that need no state: those on cells shared with source, or keeps
	state  State     // of the tokens behind common
}

// slideFrom moves the cells at or behind first that have references down to first, without gaps. It
// reports false if memory has failed to empty the cells: then sequences have lost their tokens there,
// and the slide must be repeated.
func (c *Cache) slideFrom(first int) bool {
	moves := c.moves(first)
	if !c.empty(first, moves) {
		for id, s := range c.sequences {
			if s != nil {
				c.shorten(s, c.cells.live[id])
			}
		}
		return false
	}
	for i := range moves {
		c.move(&moves[i])
	}
	return true
}

// moves returns one move for each sequence with tokens on cells at or behind first, with the saved
// state of these tokens. The state of shared cells is saved only once.
func (c *Cache) moves(first int) []move {
	var moves []move
	for _, s := range c.sequences {
		if s == nil {
			continue
		}
		if n := c.cells.below(s.id, first); n < s.cells {
			moves = append(moves, move{seq: s, keeps: n})
		}
	}
	slices.SortStableFunc(moves, func(a, b move) int {
		return cmp.Compare(c.cells.held[a.seq.id][a.keeps], c.cells.held[b.seq.id][b.keeps])
	})
	for i := range moves {
		m := &moves[i]
		m.common = m.keeps
		for _, before := range moves[:i] {
			if n := c.cells.shared(before.seq.id, m.seq.id); n > m.common {
				m.source, m.common = before.seq, n
			}
		}
		if m.common < m.seq.cells {
			m.state, _ = c.save(m.seq.id, m.common, m.seq.cells, 0) // after an error, only the first pieces
		}
	}
	return moves
}

// empty empties the cells at or behind first. It reports false if memory fails.
func (c *Cache) empty(first int, moves []move) bool {
	shares := make([]bool, len(c.sequences))
	for i := range moves {
		shares[moves[i].seq.id] = moves[i].source != nil
	}
	c.torn = false
	for id, s := range c.sequences {
		n := c.cells.below(id, first)
		if s == nil || shares[id] {
			n = 0
		}
		if n == len(c.cells.held[id]) {
			continue
		}
		if err := c.memory.Truncate(id, n); err != nil {
			c.torn, n = true, 0
			_ = c.memory.Truncate(id, 0)
		}
		c.cells.truncate(id, min(n, c.cells.live[id]))
		c.cells.release(id, n)
	}
	if !c.torn {
		c.cells.top = first
	}
	return !c.torn
}

// move copies the shared cells of a sequence from its source, and loads its saved state. After an
// error the sequence has fewer tokens.
func (c *Cache) move(m *move) {
	s, has := m.seq, m.keeps
	if m.source != nil {
		has = min(m.common, m.source.cells)
		if has > 0 && c.memory.Copy(m.source.id, s.id, has) != nil {
			has = 0
		}
		c.cells.copy(m.source.id, s.id, has)
	}
	if has == m.common {
		for _, p := range m.state {
			if c.memory.Load(s.id, p.state) != nil {
				break
			}
			c.cells.grow(s.id, p.tokens)
			has += p.tokens
			c.slid += int64(p.tokens)
		}
	}
	c.shorten(s, has)
}

// shorten records that the model's cache has only the first n tokens of a sequence. A retained
// sequence without tokens is removed.
func (c *Cache) shorten(s *Sequence, n int) {
	if n >= s.cells {
		return
	}
	c.dropState(s)
	s.cells, s.tokens, s.fresh = n, s.tokens[:n], min(s.fresh, n)
	if n == 0 && s.retained {
		c.retained = slices.DeleteFunc(c.retained, func(r *Sequence) bool { return r == s })
		c.sequences[s.id] = nil
		c.cells.retained[s.id] = false
	}
}

// settle prepares the cache for a sequence with prefix p that starts while no other one is active, so
// that it gets the same cells as in an empty cache. While another one is active, without offloading,
// or with Options.Whole, it does nothing.
func (c *Cache) settle(p Prefix) {
	if c.options.Whole || c.options.Offloaded == 0 || !c.Idle() {
		return
	}
	for _, s := range slices.Clone(c.retained) {
		switch {
		case !s.evictable():
		case s == p.source:
			c.offload(s, min(p.N, s.cells))
		default:
			c.offload(s, 0)
		}
	}
	if c.cells.dead() > 0 && p.source != nil && p.source.evictable() {
		c.offload(p.source, 0)
	}
	if c.cells.dead() > 0 || c.torn {
		c.slide()
	}
}

// Dead returns the number of dead cells, and as cost the number of cells that a slide would move.
func (c *Cache) Dead() (dead, cost int) {
	if c.options.Whole {
		return 0, 0
	}
	return c.cells.dead(), c.cells.used - c.cells.firstDead()
}

// Slide empties the dead cells; see [Cache.Dead].
func (c *Cache) Slide() { c.slide() }
