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
	wrote  bool   // it has begun to write: its next token is waited for
	held   bool   // it is paused: it keeps its cache while there is room
	away   bool   // the lane reads of it now, so nobody else may
	lane   bool   // it has room in the lane
	stays  bool   // it cannot be read in the lane
	// chooses says that its next token, which counts as known, is being chosen beside the
	// steps. It is not fed until then.
	chooses bool
	// ripe says that it has written enough since its tokens were read that it may lose
	// its cache to somebody who has none.
	ripe bool
}

func (v view) pending() int { return v.known - v.cached - v.prefix }

// runs reports whether a sequence is in the cache and not paused.
func (v view) runs() bool { return v.cached > 0 && !v.held }

// writes reports whether all that a sequence lacks is its next token. What is last of a prompt
// may wait for a step that has more time.
func (v view) writes() bool { return v.runs() && v.wrote && !v.chooses && v.pending() == 1 }

// A step is what is to be done next.
type step struct {
	drop  []int // indices of sequences that give up their cache
	feed  []int // for every sequence, how many of its pending tokens to decode
	aside []int // for every sequence, how many the lane is to read meanwhile
	// urgent says that something of that is of an owner of whom little else runs, or that nobody
	// else is there, or that most wait for it; hurry that some prompt is only waiting for this
	// step to be over.
	urgent, hurry bool
}

// What a step may read of prompts beside somebody who is writing, and a lane.
type rooms struct {
	chunk int  // tokens of a step
	now   int  // of this step: there is less time if those who write have been waiting
	lane  int  // tokens of all sequences that are in the lane together; 0 if there is none, or none is wanted
	busy  bool // the lane has something to do
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
// many cells are theirs, together.
//
// The cache is given out by need: every sequence that runs counts with all tokens that it
// is known to have, so that what has been begun can always be read to its end. When answers
// have grown beyond the context the youngest gives its cache up, the paused ones first: it
// loses that, not its text, and reads it again once there is room. The oldest that runs
// never does: so all get on. Those who wait begin in the order in which they came. Who finds
// no room takes it from those that are paused, and, if nothing of its owner runs, from the
// one with whom most runs.
//
// In a step each sequence that is writing decodes its one token, unless that is still being
// chosen; such a sequence counts as a stream all the same. While there is no stream, prompts
// share the batch, or 64 tokens if short ones are among several. Beside a stream
// prompts are read in the lane, but for the short ones of owners of whom little else runs, which
// come into the step; and if there is no lane, or no room in it, prompts share the chunk of the
// step. Prompts of owners with whom least runs are read first, of these the shortest, but all get
// something.
func plan(l Limits, seqs []view, used int, r rooms) step {
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
	s := step{drop: p.drop, feed: make([]int, len(seqs)), aside: make([]int, len(seqs))}
	p.feed(&s, r)
	return s
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
		if v.held || v.chooses || v.cached > 0 {
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

// feed gives out the tokens of the step, and those of the lane.
func (p *planner) feed(s *step, r rooms) {
	left := p.Batch
	beside := r.busy // a stream, or the lane's work
	var prompts, lane []int
	for i, v := range p.seqs {
		switch {
		case !p.in[i] || v.away:
		case v.chooses: // it is a stream, whose token comes soon
			beside = true
		case v.writes():
			s.feed[i] = 1
			left--
			beside = true
		default:
			prompts = append(prompts, i)
		}
	}
	runs := p.runsByOwner()
	slices.SortStableFunc(prompts, func(a, b int) int {
		v, w := p.seqs[a], p.seqs[b]
		return cmp.Or(cmp.Compare(runs[v.owner], runs[w.owner]), cmp.Compare(v.pending(), w.pending()))
	})
	switch {
	case beside:
		chunk := min(left, max(r.chunk, 1))
		prompts, lane = p.split(prompts, chunk, runs, r.lane)
		if left = min(chunk, max(r.now, 1)); left < chunk/2 && len(prompts) > 0 {
			left, s.hurry = 0, true
		}
	case len(prompts) > 1 && p.seqs[prompts[0]].pending() <= shortStep:
		left = min(left, shortStep) // who is short is soon done, and so is the step
	}
	p.share(prompts, left, 0, s.feed)
	if !r.busy {
		p.share(lane, LaneBatch, 1, s.aside) // the last one belongs into a step: it is what is written behind
		s.urgent = len(lane) > 0 && len(runs) == 1 || len(lane) > p.running-len(lane) ||
			slices.ContainsFunc(lane, func(i int) bool { return p.modest(runs, p.seqs[i].owner) })
	}
}

// What a step does not leave to the lane.
const (
	fewTokens = 8   // of whomever
	fewSteps  = 2   // of who is modest
	shortStep = 64  // tokens of a step in which nobody writes, if a prompt of no more is among several
	nearby    = 512 // tokens that such a prompt has at most: each makes those that are read cost more
)

// modest reports whether an owner has nothing else running, or less than others have.
func (p *planner) modest(runs map[string]int, owner string) bool {
	return runs[owner] == 1 || runs[owner]*len(runs) < p.running
}

// split says which prompts are read in steps of left tokens, and which in the lane, which has
// room for so many.
func (p *planner) split(prompts []int, left int, runs map[string]int, room int) (step, lane []int) {
	if room == 0 {
		return prompts, nil
	}
	for _, v := range p.seqs {
		if v.lane {
			room -= v.known
		}
	}
	short := fewSteps * left
	for _, i := range prompts {
		v := p.seqs[i]
		n := v.pending()
		switch {
		case n == 1:
			step = append(step, i)
		case v.lane:
			lane = append(lane, i)
		case v.known <= nearby && (n <= fewTokens || n <= short && p.modest(runs, v.owner)):
			short -= n
			step = append(step, i)
		case v.known <= room && !v.stays:
			room -= v.known
			lane = append(lane, i)
		default:
			step = append(step, i)
		}
	}
	return step, lane
}

// share gives out left tokens to prompts, but for the last rest of each.
func (p *planner) share(prompts []int, left, rest int, feed []int) {
	// Each leaves the others an eighth of what there is, so that the longest gets on too.
	least := max(1, left/(8*max(len(prompts), 1)))
	for n, i := range prompts {
		others := len(prompts) - n - 1
		feed[i] = min(p.seqs[i].pending()-rest, max(left-others*least, min(left, 1)))
		left -= feed[i]
	}
}
