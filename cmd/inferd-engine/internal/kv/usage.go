package kv

// Usage counts the cells and tokens of a cache by state, and its slides.
type Usage struct {
	Active    int // cells of active and pinned sequences
	Retained  int // cells of retained sequences only
	Dead      int // dead cells
	Offloaded int // tokens of retained sequences in memory

	Slides int64 // number of slides
	Slid   int64 // tokens moved by them
}

// Usage returns the current usage.
func (c *Cache) Usage() Usage {
	dead, _ := c.Dead()
	return Usage{
		Active: c.cells.active, Retained: c.cells.used - c.cells.active, Dead: dead, Offloaded: c.offloaded,
		Slides: c.slides, Slid: c.slid,
	}
}

// Pinned returns the number of pinned sequences, and the sum of their tokens.
func (c *Cache) Pinned() (sequences, tokens int) {
	for _, s := range c.retained {
		if s.pinned {
			sequences++
			tokens += len(s.tokens)
		}
	}
	return sequences, tokens
}

// RetainedByOwner calls f for each retained sequence, pinned ones included, with its owner and its
// number of tokens.
func (c *Cache) RetainedByOwner(f func(owner string, tokens int)) {
	for _, s := range c.retained {
		f(s.owner, len(s.tokens))
	}
}
