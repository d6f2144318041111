package batch

// cells are the books of the cache: which cells each sequence stands on. A sequence has
// one cell a token, in order; a prefix that was copied stands on the cells of its source,
// as it does in llama.cpp's unified cache. Sequences are numbered as in the cache. Some are
// only kept: their cells can be had at any time.
type cells struct {
	of     [][]int32 // by sequence: its cells
	kept   []bool    // by sequence
	on     []int32   // by cell: how many sequences stand on it
	firm   []int32   // by cell: how many of those are not only kept
	free   []int32   // cells that nobody stands on
	needed int       // cells on which somebody stands who is not only kept
}

func newCells(context, sequences int) *cells {
	c := &cells{
		of: make([][]int32, sequences), kept: make([]bool, sequences),
		on: make([]int32, context), firm: make([]int32, context), free: make([]int32, context),
	}
	for i := range c.free {
		c.free[i] = int32(context - 1 - i)
	}
	return c
}

// used is how many cells somebody stands on.
func (c *cells) used() int { return len(c.on) - len(c.free) }

// size is how many tokens a sequence has.
func (c *cells) size(seq int) int { return len(c.of[seq]) }

// grow adds n tokens to a sequence that is not only kept. There must be room for them.
func (c *cells) grow(seq, n int) {
	at := len(c.free) - n
	for _, cell := range c.free[at:] {
		c.on[cell], c.firm[cell] = 1, 1
	}
	c.needed += n
	c.of[seq] = append(c.of[seq], c.free[at:]...)
	c.free = c.free[:at]
}

// copy has a sequence of no tokens, which is not only kept, begin with the first n of another.
func (c *cells) copy(src, dst, n int) {
	c.of[dst] = append(c.of[dst], c.of[src][:n]...)
	for _, cell := range c.of[dst] {
		c.on[cell]++
		c.need(cell)
	}
}

func (c *cells) need(cell int32) {
	if c.firm[cell]++; c.firm[cell] == 1 {
		c.needed++
	}
}

func (c *cells) spare(cell int32) {
	if c.firm[cell]--; c.firm[cell] == 0 {
		c.needed--
	}
}

// cut leaves a sequence its first n tokens. One that has none is not kept.
func (c *cells) cut(seq, n int) {
	for _, cell := range c.of[seq][n:] {
		if !c.kept[seq] {
			c.spare(cell)
		}
		if c.on[cell]--; c.on[cell] == 0 {
			c.free = append(c.free, cell)
		}
	}
	c.of[seq] = c.of[seq][:n]
	if n == 0 {
		c.kept[seq] = false
	}
}

// keep says that a sequence is only kept from now on.
func (c *cells) keep(seq int) {
	for _, cell := range c.of[seq] {
		c.spare(cell)
	}
	c.kept[seq] = true
}

// own is how many cells are not needed any more once a sequence goes.
func (c *cells) own(seq int) int {
	n := 0
	for _, cell := range c.of[seq] {
		if c.firm[cell] == 1 {
			n++
		}
	}
	return n
}
