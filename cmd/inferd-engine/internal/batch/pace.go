package batch

import (
	"math/bits"
	"time"
)

// A pace says how many tokens of prompts a step may read beside sequences that are writing, and
// how long a step may wait for what is read in the lane, so that none of them waits longer for
// its next token than it should. It learns from the steps that there have been, and reads no
// clock.
type pace struct {
	stall time.Duration // the most that a step may take; 0 is what patience says

	alone  []estimate // seconds of a step without prompts, by how many write
	beside []estimate // the same beside the lane
	steps  curve      // all steps
	lane   estimate   // seconds that the lane takes for each of its tokens
}

// patience is how long a step may take if nobody has said: as long as is hardly seen, or
// four tokens of those that are being written.
const (
	patience      = 100 * time.Millisecond
	patienceSteps = 4
)

const (
	firstChunk = 8   // tokens, before anything is known
	margin     = 0.9 // of the time that there is: no step is quite like the last

	much    = 4    // times as slow as it should be
	slower  = 1.15 // times as long as alone, beside the lane, while one of both is not known
	forgets = 0.98 // of what is known of the lane, in a step without it
)

// An estimate follows a quantity and how far it strays, as TCP does round-trip times
// (RFC 6298), only sooner.
type estimate struct{ mean, stray float64 }

func (e *estimate) add(x float64) {
	if e.mean == 0 {
		e.mean, e.stray = x, x/4
		return
	}
	off := x - e.mean
	e.mean += off / 4
	e.stray += (max(off, -off) - e.stray) / 4
}

func (e estimate) times(x float64) estimate { return estimate{e.mean * x, e.stray * x} }

// A curve is what steps take by how many tokens they have. It stands on points, one for each
// power of two. More tokens never take less, and never more for each of them, for the weights are
// read once for all: points that contradict one that is newer are moved.
type curve [16]struct{ tokens, took estimate }

func (c *curve) add(tokens int, seconds float64) {
	at := min(bits.Len(uint(tokens)), len(c)-1)
	p := &c[at]
	p.tokens.add(float64(tokens))
	p.took.add(seconds)
	for i := range c {
		if low := c[i].tokens.mean / p.tokens.mean; i < at {
			c[i].took.mean = max(c[i].took.mean, low*p.took.mean)
		} else if i > at && c[i].tokens.mean > 0 {
			c[i].took.mean = max(c[i].took.mean, p.took.mean)
		}
	}
}

// at is how long a step of so many tokens takes at most, roughly; zero if nothing is known.
func (c *curve) at(tokens int) float64 {
	var n, took float64 // of the point below
	for i := range c {
		to, high := c[i].tokens.mean, c[i].took.mean+c[i].took.stray
		switch {
		case to == 0:
		case to < float64(tokens):
			n, took = to, high
		case n == 0:
			return high
		default:
			return min(high, took+max(high-took, 0)*(float64(tokens)-n)/(to-n), took*float64(tokens)/n)
		}
	}
	if n == 0 {
		return 0
	}
	return took * float64(tokens) / n
}

// observe is told of a step: how many were writing in it, how many tokens of prompts it
// read, whether the lane read meanwhile, and how long it took.
func (p *pace) observe(writers, prompt int, lane bool, took time.Duration) {
	p.steps.add(writers+prompt, took.Seconds())
	if prompt > 0 {
		return
	}
	steps := &p.alone
	if lane {
		steps = &p.beside
	}
	for len(*steps) <= writers {
		*steps = append(*steps, estimate{})
	}
	(*steps)[writers].add(took.Seconds())
}

// landed is told how long the lane took for some tokens.
func (p *pace) landed(tokens int, took time.Duration) {
	if tokens >= LaneBatch/2 { // with fewer it is what is around them that takes time
		p.lane.add(took.Seconds() / float64(tokens))
	}
}

// lanes reports whether prompts are to be read in the lane. They are not when it is much slower
// than steps would be, which may read so many tokens: it gives way to other programs too. Then it
// is tried again after a while.
func (p *pace) lanes(writers, chunk int) bool {
	if writers == 0 || p.lane.mean*float64(chunk) <= much*p.most(writers).Seconds() {
		return true
	}
	p.lane.mean *= forgets
	return false
}

// overdue is how long the lane may take for some tokens.
func (p *pace) overdue(tokens int) time.Duration {
	takes := p.lane.mean * float64(tokens)
	if takes == 0 {
		takes = p.steps.at(tokens)
	}
	return max(time.Second, time.Duration(much*takes*float64(time.Second)))
}

// due is when a step that only writes is to begin, after one that ended at last: until then the
// lane has all processors. That is as late as may be if what is read there is urgent, else as
// long as such a step takes.
func (p *pace) due(writers int, last time.Time, urgent bool) time.Time {
	most, takes := p.most(writers).Seconds()*margin, known(p.beside, writers)
	if takes.mean == 0 {
		takes = p.base(writers).times(slower)
	}
	pause := most - min(takes.mean+2*takes.stray, most/2)
	if !urgent {
		pause = min(pause, takes.mean)
	}
	return last.Add(time.Duration(pause * float64(time.Second)))
}

// base is what a step takes without prompts; zero if there never was one.
func (p *pace) base(writers int) estimate {
	least := fewest(p.alone, writers)
	if beside := known(p.beside, writers).times(1 / slower); least.mean == 0 || beside.mean > 0 && beside.mean < least.mean {
		least = beside
	}
	if least.mean == 0 {
		return nearest(p.alone, writers)
	}
	return least
}

// fewest is the least that is known of so many writers, or more.
func fewest(steps []estimate, writers int) (least estimate) {
	for _, e := range steps[min(writers, len(steps)):] {
		if least.mean == 0 || e.mean > 0 && e.mean < least.mean {
			least = e
		}
	}
	return least
}

func known(steps []estimate, writers int) estimate {
	if writers >= len(steps) {
		return estimate{}
	}
	return steps[writers]
}

// nearest is what is known of as few writers, or fewer.
func nearest(steps []estimate, writers int) estimate {
	for w := min(writers, len(steps)-1); w > 0; w-- {
		if steps[w].mean > 0 {
			return steps[w]
		}
	}
	return estimate{}
}

// most is the longest that a step may take.
func (p *pace) most(writers int) time.Duration {
	if p.stall > 0 {
		return p.stall
	}
	steps := time.Duration(patienceSteps * p.base(writers).mean * float64(time.Second))
	return max(patience, steps)
}

// chunk is how many tokens of prompts the next step may read if those who write have been
// waiting for so long: at least one, so that everybody gets on.
func (p *pace) chunk(writers int, waited time.Duration) int {
	if p.steps.at(1) == 0 {
		return firstChunk
	}
	n, most := 0, p.most(writers).Seconds()*margin-waited.Seconds()
	for n+rows <= widest && p.steps.at(n+rows) <= most {
		n += rows
	}
	return max(1, n-writers)
}

// rows is how many tokens the kernels for processors take at a time; what is left over they
// take one by one, and each costs nearly as much as those together.
const (
	rows   = 4
	widest = 4096 // no step is
)
