package kv

// cells account for the cells of a model's cache: which cells each sequence has. A sequence has
// one cell per token, in order; a copied prefix shares the cells of its source, as it does in
// llama.cpp's unified cache. Sequences are numbered as in the model's cache. Those of retained
// sequences may be reclaimed at any time; the others are active.
type cells struct {
	of         [][]int32 // by sequence: its cells
	retained   []bool    // by sequence
	refs       []int32   // by cell: number of sequences that have it
	activeRefs []int32   // by cell: number of those that are not retained
	free       []int32   // cells without references
	active     int       // cells with active references
}

func newCells(context, sequences int) *cells {
	c := &cells{
		of: make([][]int32, sequences), retained: make([]bool, sequences),
		refs: make([]int32, context), activeRefs: make([]int32, context), free: make([]int32, context),
	}
	for i := range c.free {
		c.free[i] = int32(context - 1 - i)
	}
	return c
}

// used is how many cells have references.
func (c *cells) used() int { return len(c.refs) - len(c.free) }

// size is how many tokens a sequence has.
func (c *cells) size(seq int) int { return len(c.of[seq]) }

// grow adds n tokens to an active sequence. So many cells must be free.
func (c *cells) grow(seq, n int) {
	at := len(c.free) - n
	for _, cell := range c.free[at:] {
		c.refs[cell], c.activeRefs[cell] = 1, 1
	}
	c.active += n
	c.of[seq] = append(c.of[seq], c.free[at:]...)
	c.free = c.free[:at]
}

// copy makes the first n tokens of src those of dst, an active sequence without tokens.
func (c *cells) copy(src, dst, n int) {
	c.of[dst] = append(c.of[dst], c.of[src][:n]...)
	for _, cell := range c.of[dst] {
		c.refs[cell]++
		c.ref(cell)
	}
}

func (c *cells) ref(cell int32) {
	if c.activeRefs[cell]++; c.activeRefs[cell] == 1 {
		c.active++
	}
}

func (c *cells) unref(cell int32) {
	if c.activeRefs[cell]--; c.activeRefs[cell] == 0 {
		c.active--
	}
}

// truncate leaves a sequence its first n tokens. Without any it is not retained.
func (c *cells) truncate(seq, n int) {
	for _, cell := range c.of[seq][n:] {
		if !c.retained[seq] {
			c.unref(cell)
		}
		if c.refs[cell]--; c.refs[cell] == 0 {
			c.free = append(c.free, cell)
		}
	}
	c.of[seq] = c.of[seq][:n]
	if n == 0 {
		c.retained[seq] = false
	}
}

// retain makes an active sequence a retained one.
func (c *cells) retain(seq int) {
	for _, cell := range c.of[seq] {
		c.unref(cell)
	}
	c.retained[seq] = true
}

// exclusive is how many cells cease to be active without a sequence.
func (c *cells) exclusive(seq int) int {
	n := 0
	for _, cell := range c.of[seq] {
		if c.activeRefs[cell] == 1 {
			n++
		}
	}
	return n
}
