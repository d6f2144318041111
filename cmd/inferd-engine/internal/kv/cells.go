package kv

import "slices"

// cells account for the cells of each sequence. Sequences and cells are numbered as in the model's
// cache. A sequence has one cell per token, in ascending order; a copied prefix shares the cells of
// its source. The cells of retained sequences may be reclaimed at any time; the cells of other
// sequences are active.
//
// In the model's cache every cell below the top is occupied, and every other cell is empty. So the
// next tokens get the cells from the top on, in the order of the batch. A cell below the top without
// a reference is dead: it stays occupied until the top sinks to it, or until a slide moves the cells
// behind it.
type cells struct {
	held       [][]int32 // by sequence: its cells in the model's cache, in the order of the tokens
	live       []int     // by sequence: the number of its tokens; they have the first cells in held
	retained   []bool    // by sequence
	refs       []int32   // by cell: number of sequences that count it as live
	activeRefs []int32   // by cell: number of active sequences that count it as live
	top        int
	used       int // cells with references
	active     int // cells that an active sequence counts as live
}

func newCells(context, sequences int) *cells {
	return &cells{
		held: make([][]int32, sequences), live: make([]int, sequences), retained: make([]bool, sequences),
		refs: make([]int32, context), activeRefs: make([]int32, context),
	}
}

// size returns the number of all cells, and dead the number of dead ones.
func (c *cells) size() int { return len(c.refs) }
func (c *cells) dead() int { return c.top - c.used }

// of returns the cells of a sequence's tokens, without its dead cells.
func (c *cells) of(seq int) []int32 { return c.held[seq][:c.live[seq]] }

// below returns the number of tokens that a sequence has on cells below cell.
func (c *cells) below(seq, cell int) int {
	n, _ := slices.BinarySearch(c.of(seq), int32(cell))
	return n
}

// heldBelow returns the number of cells below cell that a sequence holds, dead ones included.
func (c *cells) heldBelow(seq, cell int) int {
	n, _ := slices.BinarySearch(c.held[seq], int32(cell))
	return n
}

// lastDead returns the number of cells up to and including the last dead one, among the first n that
// a sequence holds. It is 0 if none of them is dead.
func (c *cells) lastDead(seq, n int) int {
	for n > 0 && c.refs[c.held[seq][n-1]] > 0 {
		n--
	}
	return n
}

// grow adds n tokens to a sequence, on the cells from the top on. There must be n such cells, and
// the sequence must hold no dead cell.
func (c *cells) grow(seq, n int) {
	for range n {
		c.add(seq, int32(c.top))
		c.top++
	}
}

// copy copies the first n tokens of src to dst, a sequence without cells.
func (c *cells) copy(src, dst, n int) {
	for _, cell := range c.of(src)[:n] {
		c.add(dst, cell)
	}
}

// add adds a token to a sequence, on the given cell.
func (c *cells) add(seq int, cell int32) {
	c.held[seq] = append(c.held[seq], cell)
	c.live[seq]++
	if c.refs[cell]++; c.refs[cell] == 1 {
		c.used++
	}
	if !c.retained[seq] {
		if c.activeRefs[cell]++; c.activeRefs[cell] == 1 {
			c.active++
		}
	}
}

// truncate removes all but the first n tokens of a sequence, which continues to hold their cells.
func (c *cells) truncate(seq, n int) {
	for _, cell := range c.of(seq)[n:] {
		if !c.retained[seq] {
			c.deactivate(cell)
		}
		if c.refs[cell]--; c.refs[cell] == 0 {
			c.used--
		}
	}
	c.live[seq] = n
}

// release records that a sequence holds only its first n cells in the model's cache.
func (c *cells) release(seq, n int) { c.held[seq] = c.held[seq][:n] }

// retain marks an active sequence as retained.
func (c *cells) retain(seq int) {
	for _, cell := range c.of(seq) {
		c.deactivate(cell)
	}
	c.retained[seq] = true
}

func (c *cells) deactivate(cell int32) {
	if c.activeRefs[cell]--; c.activeRefs[cell] == 0 {
		c.active--
	}
}

// exclusive returns the number of cells of an active sequence that no other active sequence shares.
func (c *cells) exclusive(seq int) int {
	n := 0
	for _, cell := range c.of(seq) {
		if c.activeRefs[cell] == 1 {
			n++
		}
	}
	return n
}

// lastLive returns the number of cells up to and including the last one with a reference.
func (c *cells) lastLive() int {
	n := c.top
	for n > 0 && c.refs[n-1] == 0 {
		n--
	}
	return n
}

// firstDead returns the first dead cell, or the top if there is none.
func (c *cells) firstDead() int {
	n := slices.Index(c.refs[:c.top], 0)
	if n < 0 {
		return c.top
	}
	return n
}

// shared returns the number of leading tokens for which two sequences share the cells.
func (c *cells) shared(a, b int) int {
	n := 0
	for x, y := c.of(a), c.of(b); n < min(len(x), len(y)) && x[n] == y[n]; {
		n++
	}
	return n
}

// renumber numbers the cells with references consecutively, in their order. It is for Options.Whole:
// there only the number of cells matters.
func (c *cells) renumber() {
	to := make([]int32, c.top)
	n := int32(0)
	for cell, refs := range c.refs[:c.top] {
		if refs > 0 {
			to[cell], c.refs[n], c.activeRefs[n] = n, refs, c.activeRefs[cell]
			n++
		}
	}
	clear(c.refs[n:])
	clear(c.activeRefs[n:])
	for _, held := range c.held {
		for i, cell := range held {
			held[i] = to[cell]
		}
	}
	c.top = int(n)
}
