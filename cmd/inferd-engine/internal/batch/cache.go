package batch

import (
	"fmt"
	"slices"
)

// A cache is what the model remembers of sequences: of those that run, of those that are
// paused, and of those that have ended, as long as there is room. Whoever asks again for
// what the same owner has asked before begins where that is known. Owners never share.
//
// What has ended makes every step slower while it is in the model's cache, for that is
// looked through from end to end. So it is moved out of it, into memory, from where it comes back
// in a fraction of the time that reading takes: piece by piece from its end, as what has to do
// with it must not take long either.
type cache struct {
	model  Model
	cells  *cells
	taken  []bool   // by number of a sequence: whether somebody has it
	kept   []*entry // who was asked for longest ago first
	stored int      // tokens that are in memory
	most   int      // of stored
}

// An entry is a sequence that has ended.
type entry struct {
	seq    int     // in the model's cache, if anything is there
	there  int     // tokens that are there
	pieces []piece // of the others, in order
	owner  string
	tokens []Token
	forAll bool // of the operator: every owner may begin with it, and it never goes
}

// A piece is what the model's cache held of some tokens.
type piece struct {
	state  []byte
	tokens int
}

// pieceTokens is how many a piece has, if sequences can be cut: some milliseconds of copying. It
// is less than the windows that models have: pieces as long as those have not all of their tokens.
const pieceTokens = 96

// moves reports whether an entry is in the model's cache, and may leave it.
func (e *entry) moves() bool { return e.there > 0 && !e.forAll }

func newCache(m Model, l Limits) *cache {
	n := l.Sequences + l.Kept
	return &cache{model: m, cells: newCells(l.Context, n), taken: make([]bool, n), most: l.Stored}
}

// A source is where the beginning of a prompt is known from.
type source struct {
	seq, n int    // a sequence, and how many of its tokens
	entry  *entry // that it is; nil if it runs
}

// find returns what is known of tokens, of which the last must be read in any case, from the
// runs of an owner and from what is kept for the same.
func (c *cache) find(owner string, tokens []Token, runs []*run) (best source) {
	take := func(seq int, have []Token, e *entry) {
		n := common(have, tokens[:len(tokens)-1])
		if n < len(have) && !c.model.Cuts() {
			return // it is had whole or not at all
		}
		if n > best.n {
			best = source{seq, n, e}
		}
	}
	for _, r := range runs {
		if owner != "" && r.Owner == owner && r.cached > 0 {
			take(r.slot, r.tokens[:r.cached], nil)
		}
	}
	for _, e := range c.kept {
		if e.forAll || owner != "" && e.owner == owner {
			take(e.seq, e.tokens, e)
		}
	}
	return best
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

// take gives out the number of a sequence that begins with what from says, and returns how
// many tokens it has of that.
func (c *cache) take(from source) (seq, n int, err error) {
	if from.entry != nil { // so that it is not the one that goes
		c.kept = append(slices.DeleteFunc(c.kept, func(e *entry) bool { return e == from.entry }), from.entry)
	}
	for seq = slices.Index(c.taken, false); seq < 0; seq = slices.Index(c.taken, false) {
		gone, err := c.evict()
		switch {
		case err != nil:
			return 0, 0, err
		case gone == nil:
			return 0, 0, fmt.Errorf("no sequence is left of %d", len(c.taken))
		case gone == from.entry:
			from = source{}
		}
	}
	c.taken[seq] = true
	if from.entry != nil {
		return seq, c.load(seq, from.entry, from.n), nil
	}
	return seq, c.copy(from.seq, seq, from.n), nil
}

// copy has an empty sequence begin with the first n tokens of another, and returns how many it
// has then. If they cannot be had, they are read anew.
func (c *cache) copy(src, dst, n int) int {
	if n == 0 || c.model.Copy(src, dst, n) != nil {
		return 0
	}
	c.cells.copy(src, dst, n)
	return n
}

// load has an empty sequence begin with the first n tokens of an entry, and returns how many it
// has then.
func (c *cache) load(seq int, e *entry, n int) int {
	has := c.copy(e.seq, seq, min(n, e.there))
	if has < min(n, e.there) {
		return has
	}
	for _, p := range e.pieces {
		if has >= n || c.room(p.tokens) != nil || c.model.Load(seq, p.state) != nil {
			break
		}
		c.cells.grow(seq, p.tokens)
		has += p.tokens
	}
	if has > n {
		has = n
		if c.cut(seq, n) != nil {
			_ = c.model.Clear(seq)
			c.cells.cut(seq, 0)
			has = 0
		}
	}
	return has
}

// stores reports whether there are cells in use for nobody, and can be moved.
func (c *cache) stores() bool {
	return c.most > 0 && c.cells.used() > c.cells.needed && slices.ContainsFunc(c.kept, (*entry).moves)
}

// store moves a piece of what was asked for longest ago into memory, if anything stores. What
// cannot be cut is one piece; unless the loop rests, only if it is small.
func (c *cache) store(rests bool) {
	if !c.stores() {
		return
	}
	cuts := c.model.Cuts()
	i := slices.IndexFunc(c.kept, func(e *entry) bool { return e.moves() && (cuts || rests || e.there <= pieceTokens) })
	if i < 0 {
		return
	}
	e, from := c.kept[i], 0
	if cuts {
		from = max(0, e.there-pieceTokens)
	}
	state, err := c.model.Save(e.seq, from, e.there)
	if from > 0 && (err != nil || c.cut(e.seq, from) != nil) { // for a window, say: then all of it goes at once
		from = 0
		state, err = c.model.Save(e.seq, from, e.there)
	}
	if err != nil || from == 0 && c.drop(e.seq) != nil {
		_ = c.forget(e) // it must be read anew
		return
	}
	e.pieces = slices.Insert(e.pieces, 0, piece{state, e.there - from})
	c.stored += e.there - from
	e.there = from
	for c.stored > c.most {
		i := slices.IndexFunc(c.kept, func(e *entry) bool { return len(e.pieces) > 0 })
		_ = c.forget(c.kept[i]) // whatever it had, it is not found any more
	}
}

// cut leaves a sequence its first n tokens. If it cannot, nothing has changed.
func (c *cache) cut(seq, n int) error {
	if err := c.model.Cut(seq, n); err != nil {
		return err
	}
	c.cells.cut(seq, n)
	return nil
}

// room makes sure that n cells are free.
func (c *cache) room(n int) error {
	for len(c.cells.free) < n {
		gone, err := c.evict()
		if err != nil {
			return err
		}
		if gone == nil {
			return fmt.Errorf("%d cells are free, %d are needed", len(c.cells.free), n)
		}
	}
	return nil
}

// forAll is how many sequences are kept for all, and how many tokens they have.
func (c *cache) forAll() (sequences, tokens int) {
	for _, e := range c.kept {
		if e.forAll {
			sequences++
			tokens += len(e.tokens)
		}
	}
	return sequences, tokens
}

// evict drops what is in the model's cache and has not been asked for longest. It returns nil
// if there is nothing.
func (c *cache) evict() (*entry, error) {
	i := slices.IndexFunc(c.kept, (*entry).moves)
	if i < 0 {
		return nil, nil //nolint:nilnil // there is none
	}
	e := c.kept[i]
	return e, c.forget(e)
}

func (c *cache) forget(e *entry) error {
	c.kept = slices.DeleteFunc(c.kept, func(k *entry) bool { return k == e })
	c.stored -= len(e.tokens) - e.there
	if e.there == 0 {
		return nil
	}
	return c.drop(e.seq)
}

// drop gives a sequence back.
func (c *cache) drop(seq int) error {
	c.taken[seq] = false
	c.cells.cut(seq, 0)
	if err := c.model.Clear(seq); err != nil {
		return fmt.Errorf("clear sequence %d: %w", seq, err)
	}
	return nil
}

// keep keeps a sequence that has ended. What it covers of what was kept before goes.
func (c *cache) keep(e *entry) error {
	for _, old := range slices.Clone(c.kept) {
		if old.owner == e.owner && !old.forAll && common(old.tokens, e.tokens) == len(old.tokens) {
			if err := c.forget(old); err != nil {
				return err
			}
		}
	}
	if !e.forAll {
		c.cells.keep(e.seq)
	}
	c.kept = append(c.kept, e)
	return nil
}
