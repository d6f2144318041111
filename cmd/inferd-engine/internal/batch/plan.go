package batch

import (
	"cmp"
	"slices"
)

// Limits is what a model's context has room for.
type Limits struct {
	Context   int // tokens in the cache, over all sequences
	Batch     int // tokens that one step may decode
	Sequences int // sequences that run at once; at most Batch
	// Kept is how many sequences more may be in the cache: those that are paused, and
	// those that have ended and whose beginning may be asked for again.
	Kept int
	// Stored is how many tokens of sequences that have ended may be moved out of the cache,
	// into memory; 0 moves none.
	Stored int
}

// headroom is how much of the context must stay free after a sequence is taken in
// beside others, so that it does not lose its cache a few steps later.
func (l Limits) headroom() int { return min(256, l.Context/8) }

// A view is what the plan knows of a sequence.
type view struct {
	owner  string // whose it is
	cached int    // tokens in the cache
	known  int    // tokens of the prompt and of the answer so far; more than cached
	own    int    // of those in the cache, the cells that it shares with no other sequence
	prefix int    // while nothing is in the cache: tokens that another sequence's cells spare it
	shared int    // of prefix, those that stand on cells that count as used already
	held   bool   // it is paused: it keeps its cache while there is room
	// ripe says that it has written enough since its tokens were read that it may lose
	// its cache to somebody who has none.
	ripe bool
}

func (v view) pending() int { return v.known - v.cached - v.prefix }

// runs reports whether a sequence is in the cache and not paused.
func (v view) runs() bool { return v.cached > 0 && !v.held }

// writes reports whether all that a sequence lacks is its next token.
func (v view) writes() bool { return v.runs() && v.pending() == 1 }

// A step is what is to be done next.
type step struct {
	drop []int // indices of sequences that give up their cache
	feed []int // for every sequence, how many of its pending tokens to decode
}

// A planner works out a step.
type planner struct {
	Limits
	seqs    []view
	in      []bool // which sequences have a place in the cache, and run
	need    int    // cells that are used, and those that the ones that run still need
	running int
	present int // sequences in the cache, the paused ones included
	drop    []int
}

// plan decides a step. The sequences stand in the order in which they came; used is how
// many cells are theirs, together; a step may read chunk tokens of prompts while somebody is
// writing.
//
// The cache is given out by need: every sequence that runs counts with all tokens that it
// is known to have, so that what has been begun can always be read to its end. When answers
// have grown beyond the context the youngest gives its cache up, the paused ones first: it
// loses that, not its text, and reads it again once there is room. The oldest that runs
// never does: so all get on. Those who wait begin in the order in which they came. Who finds
// no room takes it from those that are paused, and, if nothing of its owner runs, from the
// one with whom most runs.
//
// In a step each sequence that is writing decodes its one token; prompts share what is left,
// up to chunk tokens beside somebody who is writing, up to Batch alone. Prompts of owners with
// whom least runs are read first, of these the shortest, but all get something.
func plan(l Limits, seqs []view, used, chunk int) step {
	p := &planner{Limits: l, seqs: seqs, in: make([]bool, len(seqs)), need: used}
	for i, v := range seqs {
		if v.cached > 0 {
			p.present++
		}
		if v.runs() && p.running < p.Sequences { // who is too many rests until one is paused
			p.in[i] = true
			p.need += v.pending()
			p.running++
		}
	}
	p.shrink()
	p.begin()
	return step{drop: p.drop, feed: p.feed(chunk)}
}

// shrink drops the youngest until the rest has room.
func (p *planner) shrink() {
	for p.need > p.Context {
		i := p.youngest(func(v view) bool { return v.held })
		if i < 0 {
			i = p.youngest(view.runs)
		}
		if i < 0 || p.running == 1 && p.in[i] {
			return
		}
		p.lose(i)
	}
}

// youngest returns the last sequence in the cache of which is holds, or -1.
func (p *planner) youngest(is func(view) bool) int {
	for i, v := range slices.Backward(p.seqs) {
		if v.cached > 0 && !slices.Contains(p.drop, i) && is(v) {
			return i
		}
	}
	return -1
}

// lose has a sequence give up its cache.
func (p *planner) lose(i int) {
	p.drop = append(p.drop, i)
	p.need -= p.seqs[i].own
	p.present--
	if p.in[i] {
		p.in[i] = false
		p.need -= p.seqs[i].pending()
		p.running--
	}
	if p.present == 0 { // also of cells that several had together
		p.need = 0
	}
}

// begin takes in those who wait, as far as there is room. At most one of them has others
// make room, in a step of its own: whose cells that spares is known only afterwards.
func (p *planner) begin() {
	if len(p.drop) > 0 {
		return
	}
	begun := 0
	for i, v := range p.seqs {
		if v.held || v.cached > 0 {
			continue
		}
		switch {
		case p.running == p.Sequences:
			return
		case p.fits(v):
			p.in[i] = true
			p.need += v.known - v.shared
			p.running++
			p.present++
			begun++
			continue
		case begun == 0 && p.makeRoom(v):
			p.in[i] = true
			p.need += v.known
			p.running++
			p.present++
		}
		return // nobody overtakes
	}
}

// makeRoom has others make room for v. It reports false if they cannot; then none has.
func (p *planner) makeRoom(v view) bool {
	v.shared = 0 // it may be theirs
	try := *p
	try.in, try.drop = slices.Clone(p.in), nil
	for !try.fits(v) {
		i := try.youngest(func(v view) bool { return v.held })
		if i < 0 {
			i = try.richest(v.owner)
		}
		if i < 0 {
			return false
		}
		try.lose(i)
	}
	*p = try
	return true
}

// fits reports whether there is room for v.
func (p *planner) fits(v view) bool {
	room := p.Context - p.need
	if p.running > 0 {
		room -= p.headroom()
	}
	return v.known-v.shared <= room && p.present < p.Sequences+p.Kept
}

// runsByOwner is how many sequences of each owner run.
func (p *planner) runsByOwner() map[string]int {
	count := make(map[string]int)
	for i, v := range p.seqs {
		if p.in[i] {
			count[v.owner]++
		}
	}
	return count
}

// richest returns the youngest sequence that may go of the owner with whom most runs, if
// nothing runs of that owner's who asks; or -1.
func (p *planner) richest(asks string) int {
	count := p.runsByOwner()
	if count[asks] > 0 {
		return -1
	}
	best := -1
	for i, v := range p.seqs {
		if p.in[i] && v.cached > 0 && v.ripe && (best < 0 || count[v.owner] >= count[p.seqs[best].owner]) {
			best = i
		}
	}
	return best
}

// feed gives out the tokens of the step.
func (p *planner) feed(chunk int) []int {
	feed := make([]int, len(p.seqs))
	left := p.Batch
	var prompts []int
	for i, v := range p.seqs {
		switch {
		case !p.in[i]:
		case v.writes():
			feed[i] = 1
			left--
		default:
			prompts = append(prompts, i)
		}
	}
	if left < p.Batch {
		left = min(left, max(chunk, 1))
	}
	runs := p.runsByOwner()
	slices.SortStableFunc(prompts, func(a, b int) int {
		v, w := p.seqs[a], p.seqs[b]
		return cmp.Or(cmp.Compare(runs[v.owner], runs[w.owner]), cmp.Compare(v.pending(), w.pending()))
	})
	// Each leaves the others an eighth of what there is, so that the longest gets on too.
	least := max(1, left/(8*max(len(prompts), 1)))
	for n, i := range prompts {
		others := len(prompts) - n - 1
		feed[i] = min(p.seqs[i].pending(), max(left-others*least, min(left, 1)))
		left -= feed[i]
	}
	return feed
}
