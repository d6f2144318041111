package batch

import "time"

// A pace says how many tokens of prompts a step may read beside sequences that are writing,
// so that none of these waits longer for its next token than it should. It learns from the
// steps that there have been, and reads no clock.
type pace struct {
	stall time.Duration // the most that a step may take; 0 is what patience says

	alone  []estimate // seconds of a step without prompts, by how many write
	token  estimate   // seconds that a step with prompts takes for each of its tokens, at the width that it has of late
	widest int        // tokens of prompts of the last step that had some beside writers
}

// patience is how long a step may take if nobody has said: as long as is hardly seen, or
// four tokens of those that are being written.
const (
	patience      = 100 * time.Millisecond
	patienceSteps = 4
)

// What a chunk is made of.
const (
	firstChunk = 8   // tokens, before anything is known
	margin     = 0.9 // of the time that there is: no step is quite like the last
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

// observe is told of a step: how many were writing in it, how many tokens of prompts it
// read, and how long it took.
func (p *pace) observe(writers, prompt int, took time.Duration) {
	if writers == 0 {
		return
	}
	for len(p.alone) <= writers {
		p.alone = append(p.alone, estimate{})
	}
	if prompt == 0 {
		p.alone[writers].add(took.Seconds())
		return
	}
	p.widest = prompt
	p.token.add(took.Seconds() / float64(writers+prompt))
}

// base is what a step takes without prompts; zero if there never was one.
func (p *pace) base(writers int) estimate {
	for w := min(writers, len(p.alone)-1); w > 0; w-- {
		if p.alone[w].mean > 0 {
			return p.alone[w]
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

// chunk is how many tokens of prompts the next step may read: at least one, so that
// everybody gets on. A wide step takes less for each of its tokens than a narrow one does; so
// what one took of late is a safe guess for a wider one, and the width grows to what fits.
func (p *pace) chunk(writers int) int {
	each := p.token.mean + p.token.stray
	if each == 0 { // no prompt takes more than what is written
		each = p.base(writers).mean / float64(max(writers, 1))
	}
	if each == 0 {
		return firstChunk
	}
	n := int(p.most(writers).Seconds() * margin / each)
	n = min(n, writers+2*p.widest+firstChunk)
	return max(1, n/rows*rows-writers)
}

// rows is how many tokens the kernels for processors take at a time; what is left over they
// take one by one, and each costs nearly as much as those together.
const rows = 4
