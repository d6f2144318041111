package schedule

import (
	"cmp"
	"slices"
)

// Plan plans a step. seqs are in the order of their submission; active is the number of active
// cells, each counted once even if sequences share it.
//
// Plan counts, for each running sequence, the cells of all its tokens so far, cached or not, so that
// each prompt that has been started can be finished. When answers outgrow the context, the youngest
// sequence is evicted, paused ones first: it keeps its text, and is prefilled again once there is
// room. The oldest running sequence is never evicted, so every sequence ends at last. Waiting
// sequences start in their order. To make room for one, paused sequences are evicted, and if its
// owner has no running sequence, also evictable sequences of the owner with the most running ones.
//
// In a step each stream decodes one token. Without streams, prompts share the batch, or [shortStep]
// tokens if there are several and one of them is short. Beside streams the prefill worker gets the
// prompts, except short ones of owners with few running sequences, which the step decodes. Without
// a worker, or without room at it, prompts share the step's chunk. Prompts of owners with the fewest
// running sequences come first, among these the shortest, and each prompt gets at least a small
// part.
func Plan(l Limits, seqs []Sequence, active int, b Budget) Step {
	p := &planner{Limits: l, seqs: seqs, running: make([]bool, len(seqs)), need: active}
	for i, s := range seqs {
		if s.Cached > 0 {
			p.present++
		}
		if s.active() && p.count < p.Sequences { // sequences beyond the limit wait until another one pauses
			p.running[i] = true
			p.need += s.pending()
			p.count++
		}
	}
	p.evictToFit()
	p.start()
	step := Step{Evict: p.evicted, Feed: make([]int, len(seqs)), Offload: make([]int, len(seqs))}
	p.assign(&step, b)
	return step
}

// A planner is the state of one call of Plan.
type planner struct {
	Limits
	seqs    []Sequence
	running []bool // by sequence: it has cells, or gets them in this step, and counts towards Sequences
	count   int    // number of running sequences
	need    int    // active cells, plus the cells that running sequences still lack
	present int    // sequences with tokens in the cache, paused ones included
	evicted []int
}

// evictToFit evicts the youngest sequences until the running ones fit.
func (p *planner) evictToFit() {
	for p.need > p.Context {
		i := p.youngest(Sequence.paused)
		if i < 0 {
			i = p.youngest(Sequence.active)
		}
		if i < 0 || p.count == 1 && p.running[i] {
			return
		}
		p.evict(i)
	}
}

// youngest returns the index of the last sequence that is not evicted and that satisfies the
// condition, or -1.
func (p *planner) youngest(condition func(Sequence) bool) int {
	for i, s := range slices.Backward(p.seqs) {
		if condition(s) && !slices.Contains(p.evicted, i) {
			return i
		}
	}
	return -1
}

// evict plans the eviction of a sequence.
func (p *planner) evict(i int) {
	p.evicted = append(p.evicted, i)
	p.need -= p.seqs[i].Exclusive
	p.present--
	if p.running[i] {
		p.running[i] = false
		p.need -= p.seqs[i].pending()
		p.count--
	}
	if p.present == 0 { // then no cells are active: cells shared by evicted sequences were not subtracted above
		p.need = 0
	}
}

// start starts waiting sequences while there is room. It evicts other sequences for at most one of
// them, and only if no other sequence starts in this step, because the number of cells that an
// eviction frees is known only afterwards.
func (p *planner) start() {
	if len(p.evicted) > 0 {
		return
	}
	started := 0
	for i, s := range p.seqs {
		if !s.needsCells() {
			continue
		}
		switch {
		case p.count == p.Sequences:
			return
		case p.fits(s):
			p.running[i] = true
			p.need += s.Total - s.Shared
			p.count++
			p.present++
			started++
			continue
		case started == 0 && p.evictFor(s):
			p.running[i] = true
			p.need += s.Total
			p.count++
			p.present++
		}
		return // no sequence overtakes another
	}
}

// evictFor evicts others until s fits. If s would not fit even then, it evicts none and reports
// false.
func (p *planner) evictFor(s Sequence) bool {
	s.Shared = 0 // the shared cells may belong to an evicted sequence
	trial := *p
	trial.running, trial.evicted = slices.Clone(p.running), nil
	for !trial.fits(s) {
		i := trial.youngest(Sequence.paused)
		if i < 0 {
			i = trial.victimFor(s.Owner)
		}
		if i < 0 {
			return false
		}
		trial.evict(i)
	}
	*p = trial
	return true
}

// fits reports whether there is room for s, a waiting sequence.
func (p *planner) fits(s Sequence) bool {
	room := p.Context - p.need
	if p.count > 0 {
		room -= p.headroom()
	}
	return s.Total-s.Shared <= room && p.present < p.Sequences+p.Retained
}

// runningByOwner counts the running sequences of each owner.
func (p *planner) runningByOwner() map[string]int {
	count := make(map[string]int)
	for i, s := range p.seqs {
		if p.running[i] {
			count[s.Owner]++
		}
	}
	return count
}

// victimFor returns a sequence to evict for a sequence of owner: the youngest evictable one of the
// owner with the most running sequences. It returns -1 if there is none, or if owner has running
// sequences.
func (p *planner) victimFor(owner string) int {
	count := p.runningByOwner()
	if count[owner] > 0 {
		return -1
	}
	best := -1
	for i, s := range p.seqs {
		if p.running[i] && s.Cached > 0 && s.Evictable && (best < 0 || count[s.Owner] >= count[p.seqs[best].Owner]) {
			best = i
		}
	}
	return best
}

// assign sets the number of tokens that each sequence decodes in the step, and in the next job of
// the prefill worker.
func (p *planner) assign(step *Step, b Budget) {
	left, streams, prompts := p.assignStreams(step)
	beside := streams > 0 || b.Busy
	owners := p.runningByOwner()
	slices.SortStableFunc(prompts, func(i, j int) int {
		s, t := p.seqs[i], p.seqs[j]
		return cmp.Or(cmp.Compare(owners[s.Owner], owners[t.Owner]), cmp.Compare(s.pending(), t.pending()))
	})
	var offload []int
	switch {
	case beside:
		chunk := min(left, max(b.Chunk, 1))
		prompts, offload = p.place(prompts, chunk, owners, b.Worker)
		if left = min(chunk, max(b.Now, 1)); left < chunk/2 && len(prompts) > 0 {
			left, step.NoDelay = 0, true
		}
	case len(prompts) == 1:
		if s := p.seqs[prompts[0]]; (s.Cached+s.Prefix)%Tile == 0 {
			left -= (s.Cached + s.Prefix) % p.Batch // see Reusable
		}
	case len(prompts) > 1 && p.seqs[prompts[0]].pending() <= shortStep:
		left = min(left, shortStep) // so that the step, and with it the short prompt, ends soon
	}
	p.divide(prompts, left, 0, step.Feed)
	if b.Busy {
		return
	}
	// The last token of a prompt needs a step, because the next token is sampled from its logits.
	p.divide(offload, ChunkTokens, 1, step.Offload)
	step.Urgent = len(offload) > 0 && len(owners) == 1 || len(offload) > p.count-len(offload) ||
		slices.ContainsFunc(offload, func(i int) bool { return p.underShare(owners, p.seqs[i].Owner) })
}

// assignStreams assigns one token to each decoding sequence. left is the number of tokens left in
// the batch; prompts are the running sequences with prompt tokens to decode.
func (p *planner) assignStreams(step *Step) (left, streams int, prompts []int) {
	left = p.Batch
	for i, s := range p.seqs {
		switch {
		case !p.running[i] || s.State == Offloaded:
		case s.State == Decoding:
			step.Feed[i] = 1
			left--
			streams++
		default:
			prompts = append(prompts, i)
		}
	}
	return left, streams, prompts
}

// Limits for short prompts. A step with streams decodes a prompt within fewTokens or fewSteps, and
// within shortContext, although there is a worker.
const (
	fewTokens    = 8   // maximum of pending tokens, for any owner
	fewSteps     = 2   // maximum of pending tokens, in chunks, for an owner under its share
	shortStep    = 64  // tokens of a step without streams, if the shortest of several prompts has no more
	shortContext = 512 // maximum of cached and pending tokens: each cached token makes the pending ones slower
)

// underShare reports whether an owner has one running sequence, or fewer than the average of the
// other owners.
func (p *planner) underShare(running map[string]int, owner string) bool {
	return running[owner] == 1 || running[owner]*len(running) < p.count
}

// place divides prompts between the step, which has chunk tokens for them, and the prefill worker,
// which has room for the given number of tokens in all. A room of 0 means that there is no worker.
func (p *planner) place(prompts []int, chunk int, running map[string]int, room int) (step, offload []int) {
	if room == 0 {
		return prompts, nil
	}
	for _, s := range p.seqs {
		if s.State.AtWorker() {
			room -= s.Total
		}
	}
	short := fewSteps * chunk
	for _, i := range prompts {
		s := p.seqs[i]
		n := s.pending()
		switch {
		case n == 1:
			step = append(step, i)
		case s.State.AtWorker():
			offload = append(offload, i)
		case s.Total <= shortContext && (n <= fewTokens || n <= short && p.underShare(running, s.Owner)):
			short -= n
			step = append(step, i)
		case s.Total <= room && !s.NoOffload:
			room -= s.Total
			offload = append(offload, i)
		default:
			step = append(step, i)
		}
	}
	return step, offload
}

// divide distributes a budget of tokens, left, among prompts, the first ones first, and sets feed[i] to
// the share of sequence i. The tokens at the end of each prompt, last in number, get no share, but a
// share is at least 1 while the budget lasts.
func (p *planner) divide(prompts []int, left, last int, feed []int) {
	// An eighth of the budget is divided equally, so that the longest prompt progresses, too.
	least := max(1, left/(8*max(len(prompts), 1)))
	for at, i := range prompts {
		others := len(prompts) - at - 1
		n := max(p.seqs[i].pending()-last, 1)
		feed[i] = min(n, max(left-others*least, min(left, 1)))
		left -= feed[i]
	}
}
