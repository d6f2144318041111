// Package kv accounts for a model's KV cache: it tracks the cells of each sequence (cells.go), finds the
// cached prefix for a new sequence, and offloads retained sequences to memory (offload.go). It keeps the
// cells of every sequence in the order of its tokens (slide.go), because attention sums over the cells
// in order, and another order rounds differently. Owners share no prefixes except pinned ones. The
// package handles tokens and owners, and is independent of requests, steps and llama.cpp.
package kv

import (
	"errors"
	"fmt"
	"slices"
)

// Token is an index into a model's vocabulary.
type Token = int32

// Memory is the cache of a model's context. Its sequences are identified by numbers. A new token gets
// the first empty cell.
type Memory interface {
	// Copy copies the first n tokens of src to dst, which is empty. After an error dst is still
	// empty.
	Copy(src, dst, n int) error
	// Truncate removes all but the first n tokens of a sequence; 0 drops it. After an error the
	// sequence is unchanged.
	Truncate(seq, n int) error
	// Save returns the KV state of a sequence for the positions from ≤ p < to: at most Options.Piece
	// tokens.
	Save(seq, from, to int) ([]byte, error)
	// Load appends a state to a sequence, which must end where the state begins. The state was saved
	// from this context or another one of the same model. After an error the sequence is unchanged.
	Load(seq int, state []byte) error
}

// Options are the limits of a cache.
type Options struct {
	Cells     int  // cells in the model's cache
	Sequences int  // maximum number of sequences in the model's cache
	Retain    bool // retain ended sequences while there is room
	Offloaded int  // maximum number of offloaded tokens; 0 disables offloading
	// Whole is set if sequences can be copied, saved and dropped only whole, as in recurrent models.
	// Their cells have no order.
	Whole bool
	// Piece is the maximum number of tokens in one [Memory.Save]. If the model has an attention window,
	// it is less than the window. 0 is no limit.
	Piece int
}

// A Cache holds active sequences, and retained ones while there is room. Only one goroutine may
// use it.
type Cache struct {
	options   Options
	memory    Memory
	cells     *cells
	sequences []*Sequence // by number; nil if the number is free, or if an ended sequence still holds dead cells
	retained  []*Sequence // the least recently used first
	offloaded int         // number of offloaded tokens
	torn      bool        // cells below the top may be empty: a slide is needed before new cells are used

	slides, slid int64 // see Usage
}

// A Sequence is a list of tokens with their KV state. An active sequence has a cell for each token.
type Sequence struct {
	id       int // its number in the model's cache, while it has cells there
	owner    string
	tokens   []Token
	cells    int       // number of leading tokens with a cell
	fresh    int       // see Fresh
	base     *Sequence // of an offloaded sequence: the pinned sequence with the cells of its leading tokens, or nil
	common   int       // number of leading tokens with cells in base
	pieces   State     // offloaded state of the tokens that have a cell neither here nor in base
	retained bool
	pinned   bool // retained for all owners, and never evicted
}

// ID is the number of an active sequence in the model's cache.
func (s *Sequence) ID() int { return s.id }

// Len is the number of tokens of an active sequence.
func (s *Sequence) Len() int { return len(s.tokens) }

// Fresh is the number of leading tokens of an active sequence that have the same KV state, bit for bit,
// as if they had been decoded into an empty cache.
func (s *Sequence) Fresh() int { return s.fresh }

// SetFresh sets the result of [Sequence.Fresh].
func (s *Sequence) SetFresh(n int) { s.fresh = n }

// New returns an empty cache.
func New(m Memory, o Options) *Cache {
	return &Cache{options: o, memory: m, cells: newCells(o.Cells, o.Sequences), sequences: make([]*Sequence, o.Sequences)}
}

// A Prefix is the part at the beginning of a prompt that has its KV state in the cache.
type Prefix struct {
	N      int // tokens
	Shared int // tokens among these on active cells
	Fresh  int // fresh tokens among these, see [Sequence.Fresh]
	source *Sequence
}

// First returns the first n tokens of the prefix; n is at most p.N.
func (p Prefix) First(n int) Prefix {
	return Prefix{n, min(p.Shared, n), min(p.Fresh, n), p.source}
}

// Lookup searches the active and retained sequences that an owner may use for prefixes of tokens, which
// must not be empty. It returns the longest prefix, and the one with the most fresh tokens. Both exclude
// the last token, because its logits must be computed in any case.
func (c *Cache) Lookup(owner string, tokens []Token) (longest, freshest Prefix) {
	add := func(s *Sequence, active bool) {
		p := Prefix{N: c.common(s, tokens), source: s}
		p.Fresh = min(s.fresh, p.N)
		if active {
			p.Shared = p.N
		}
		if p.N > longest.N || p.N == longest.N && p.Fresh > longest.Fresh {
			longest = p
		}
		if p.Fresh > freshest.Fresh {
			freshest = p
		}
	}
	for _, s := range c.sequences {
		if s != nil && !s.retained && s.owner == owner && owner != "" {
			add(s, true)
		}
	}
	for _, s := range c.retained {
		if s.pinned || s.owner == owner && owner != "" {
			add(s, s.pinned)
		}
	}
	return longest, freshest
}

// common returns the number of tokens of a sequence that a prompt can reuse.
func (c *Cache) common(s *Sequence, tokens []Token) int {
	n := common(s.tokens, tokens[:len(tokens)-1])
	if n < len(s.tokens) && c.options.Whole {
		return 0
	}
	return n
}

func common(a, b []Token) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// AllocateAsEmpty is like Allocate, but if no other sequence is active, the new one gets the same cells
// as in an empty cache. For that it may offload all retained sequences; without offloading, or with
// Options.Whole, it is the same as Allocate.
func (c *Cache) AllocateAsEmpty(owner string, p Prefix) (*Sequence, error) {
	c.use(p)
	c.settle(p)
	return c.Allocate(owner, p)
}

// Allocate starts an active sequence with a prefix, or with the part of it that can be copied and
// loaded. It may evict retained sequences. It fails if active and pinned sequences occupy all sequence
// numbers, or if an eviction fails.
func (c *Cache) Allocate(owner string, p Prefix) (*Sequence, error) {
	c.use(p)
	id := c.freeNumber()
	for ; id < 0; id = c.freeNumber() {
		if slices.Contains(c.sequences, nil) { // an ended sequence still holds dead cells
			c.slide()
			continue
		}
		evicted, err := c.evict()
		switch {
		case err != nil:
			return nil, err
		case !evicted:
			return nil, fmt.Errorf("all %d sequences of the cache are in use", len(c.sequences))
		}
	}
	s := &Sequence{id: id, owner: owner}
	c.sequences[id] = s
	c.fill(s, p)
	s.fresh = min(p.Fresh, s.cells)
	return s, nil
}

// use makes the source of a prefix the most recently used retained sequence, so that it is evicted last.
func (c *Cache) use(p Prefix) {
	if p.source != nil && p.source.retained {
		c.retained = append(slices.DeleteFunc(c.retained, func(s *Sequence) bool { return s == p.source }), p.source)
	}
}

// freeNumber returns a free sequence number, or -1.
func (c *Cache) freeNumber() int {
	for id, s := range c.sequences {
		if s == nil && len(c.cells.held[id]) == 0 {
			return id
		}
	}
	return -1
}

// fill appends the tokens of a prefix to an empty sequence, until a copy or a load fails.
func (c *Cache) fill(s *Sequence, p Prefix) {
	if p.N == 0 {
		return
	}
	source, n := p.source, p.source.cells
	if p.source.base != nil {
		source, n = p.source.base, p.source.common
	}
	at := n // position of the first piece
	if n = min(p.N, n); n > 0 {
		if n > source.cells || c.memory.Copy(source.id, s.id, n) != nil {
			return
		}
		c.cells.copy(source.id, s.id, n)
		s.cells, s.tokens = n, slices.Clone(p.source.tokens[:n])
	}
	c.loadPieces(s, p, at)
}

// Reserve makes room for n more tokens: it evicts retained sequences, and slides the cells, as far as
// necessary. If memory fails during a slide, active sequences may lose tokens at their end. Reserve
// returns an error if it cannot free n cells.
func (c *Cache) Reserve(n int) error {
	for c.cells.size()-c.cells.used < n {
		evicted, err := c.evict()
		if err != nil {
			return err
		}
		if !evicted {
			return fmt.Errorf("%d cells are free, %d are needed", c.cells.size()-c.cells.used, n)
		}
	}
	if c.torn || c.Room() < n {
		c.slide()
	}
	return nil
}

// Room is the number of cells behind all occupied ones.
func (c *Cache) Room() int { return c.cells.size() - c.cells.top }

// Append records that tokens have been added to an active sequence. Their cells must have been
// reserved.
func (c *Cache) Append(s *Sequence, tokens []Token) {
	c.cells.grow(s.id, len(tokens))
	s.tokens = append(s.tokens, tokens...)
	s.cells += len(tokens)
}

// Load reserves cells for tokens with a saved state, and appends them to an active sequence. After an
// error none are appended.
func (c *Cache) Load(s *Sequence, tokens []Token, state State) error {
	before := s.cells
	if err := c.Reserve(len(tokens)); err != nil {
		return err
	}
	if s.cells != before {
		return fmt.Errorf("sequence %d lost tokens while cells were freed: it has %d of %d", s.id, s.cells, before)
	}
	for _, p := range state {
		if err := c.memory.Load(s.id, p.state); err != nil {
			return errors.Join(err, c.truncate(s, before))
		}
		c.Append(s, tokens[:p.tokens])
		tokens = tokens[p.tokens:]
	}
	return nil
}

// Save returns the KV state of an active sequence for the positions from ≤ p < to.
func (c *Cache) Save(s *Sequence, from, to int) (State, error) {
	state, err := c.save(s.id, from, to, 0)
	if err != nil {
		return nil, err
	}
	return state, nil
}

// Rollback removes from the model's cache the tokens of a sequence that [Cache.Append] has not recorded.
// A failed decode may leave such tokens.
func (c *Cache) Rollback(s *Sequence) error { return c.memory.Truncate(s.id, s.cells) }

// truncate removes the cells of all but the first n tokens of a sequence. An active sequence loses these
// tokens, too. A retained one keeps them, because their state has been offloaded.
func (c *Cache) truncate(s *Sequence, n int) error {
	c.cells.truncate(s.id, n)
	s.cells = n
	if !s.retained {
		s.tokens, s.fresh = s.tokens[:n], min(s.fresh, n)
	}
	return c.sink()
}

// Free drops an active sequence, or a retained sequence with cells.
func (c *Cache) Free(s *Sequence) error {
	n := len(c.cells.held[s.id])
	if c.options.Whole {
		n = 0
	}
	err := c.memory.Truncate(s.id, n) // a failed decode may have left additional tokens
	if err != nil && n > 0 {
		c.torn, n, err = true, 0, c.memory.Truncate(s.id, 0)
	}
	c.cells.truncate(s.id, 0)
	c.cells.release(s.id, n)
	c.cells.retained[s.id] = false
	c.sequences[s.id] = nil
	s.cells = 0
	if err = errors.Join(err, c.sink()); err != nil {
		return fmt.Errorf("drop sequence %d: %w", s.id, err)
	}
	return nil
}

// Retain makes an active sequence a retained one. It drops the sequence instead if no prompt could use
// it, or without Options.Retain. All owners may use a pinned sequence. Retain also drops the owner's
// retained sequences that are prefixes of s, except pinned ones.
func (c *Cache) Retain(s *Sequence, pinned bool) error {
	if (s.owner == "" && !pinned) || !c.options.Retain || len(s.tokens) == 0 {
		return c.Free(s)
	}
	for _, old := range slices.Clone(c.retained) {
		if old.owner == s.owner && !old.pinned && common(old.tokens, s.tokens) == len(old.tokens) {
			if err := c.remove(old); err != nil {
				return err
			}
		}
	}
	s.retained, s.pinned = true, pinned
	if !pinned {
		c.cells.retain(s.id)
	}
	c.retained = append(c.retained, s)
	return nil
}

// evict drops the least recently used evictable sequence. It reports false if there is none.
func (c *Cache) evict() (bool, error) {
	i := slices.IndexFunc(c.retained, (*Sequence).evictable)
	if i < 0 {
		return false, nil
	}
	return true, c.remove(c.retained[i])
}

// evictable reports whether the cells of a retained sequence may be reclaimed.
func (s *Sequence) evictable() bool { return s.cells > 0 && !s.pinned }

// remove drops a retained sequence, its cells and its state in memory.
func (c *Cache) remove(s *Sequence) error {
	c.retained = slices.DeleteFunc(c.retained, func(r *Sequence) bool { return r == s })
	c.dropState(s)
	if s.cells == 0 {
		return nil
	}
	return c.Free(s)
}

// Clear drops all retained sequences.
func (c *Cache) Clear() {
	for _, s := range slices.Clone(c.retained) {
		_ = c.remove(s) // after an error the cells stay occupied
	}
}

// Idle reports whether no sequence is active.
func (c *Cache) Idle() bool {
	return !slices.ContainsFunc(c.sequences, func(s *Sequence) bool { return s != nil && !s.retained })
}

// Alone reports whether an active sequence has the same cells as in an empty cache: no cell is dead, and
// all other cells in use belong to pinned sequences.
func (c *Cache) Alone(s *Sequence) bool {
	other := func(o *Sequence) bool { return o != nil && !o.retained && o != s }
	return c.cells.dead() == 0 && c.cells.used == c.cells.active && !slices.ContainsFunc(c.sequences, other)
}

// Exclusive is the number of cells of an active sequence that no other active sequence shares.
func (c *Cache) Exclusive(s *Sequence) int { return c.cells.exclusive(s.id) }
