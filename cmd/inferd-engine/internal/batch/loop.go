// Package batch decodes several sequences together on one model context. It knows
// tokens, not text: what a prompt says, how a token is chosen and who wants to hear of
// it come with each [Sequence].
//
// What a step does is decided by values: what each sequence gets and who makes room
// (plan.go), how much of prompts may be read beside streams (pace.go), and which cells of the
// cache are whose (cells.go). The [Loop] carries it out on one OS thread, which is the only
// one that touches the context; cache.go is what it remembers of sequences that have ended.
// Long prompts are read beside the steps, on a second context (lane.go), with which the loop
// deals in aside.go. Costly samples are made beside the steps, too (choices.go, detach.go).
package batch

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/budget"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/progress"
)

// Token is an index into a model's vocabulary.
type Token = int32

// A Model is the context that a loop decodes on. All calls come from one OS thread, but
// for Abort.
type Model interface {
	// Add puts a token of a sequence at a position into the next batch. The entry has
	// logits afterwards if it is asked for them. An error empties the batch.
	Add(tok Token, pos, seq int, logits bool) error
	// Decode computes the batch and empties it.
	Decode() error
	// Abort has a Decode that is under way fail soon. It may be called from anywhere.
	Abort()
	// Clear drops a sequence from the cache.
	Clear(seq int) error
	// Copy has a sequence that is not in the cache begin with the first n tokens of
	// another one. If it cannot, nothing has changed.
	Copy(src, dst, n int) error
	// Cut leaves a sequence its first n tokens. If it cannot, nothing has changed.
	Cut(seq, n int) error
	// Save returns what the cache holds of a sequence from one position up to another, and Load
	// adds it to a sequence of this model, or of another context of it, that ends where it begins.
	// If it cannot, nothing has changed.
	Save(seq, from, to int) ([]byte, error)
	Load(seq int, state []byte) error
	// Cuts reports whether sequences can be cut. Those that cannot are copied and saved whole
	// only.
	Cuts() bool
}

// A Sequence is a prompt to be continued. Its functions are called on the loop's
// thread, one at a time; every microsecond they take delays the tokens of all sequences.
type Sequence struct {
	// Call is the number of the call, for [progress.Progress]; 0 is none.
	Call uint64
	// Owner is whose it is: what one owner's sequences have in common is read once. Empty
	// is nobody's, who shares nothing.
	Owner  string
	Prompt []Token // at least one, at most the context less one
	Max    int     // tokens to write, at least 1; with the prompt at most the context
	// Sample chooses the next token from the logits of entry i of the batch.
	Sample func(i int) (Token, error)
	// Detach takes the place of Sample in a sequence whose samples may be slow. It copies
	// entry i; choose then makes the choice on another thread, beside the steps, and may
	// still run when Do has returned. An error that is no [budget.ErrExceeded] is choose's.
	Detach func(i int) (choose func() (Token, error), err error)
	// Emit takes a token that was written, and the time spent on choosing it: in units of
	// the mean step of one token, whole ones, the rest is carried over. It reports false to
	// end the sequence.
	Emit func(tok Token, cost int) bool
	// Ends reports whether a token ends the answer. It is not emitted.
	Ends func(tok Token) bool
	// Held reports whether the sequence is to pause. May be nil. Whoever changes its
	// mind calls [Loop.Wake].
	Held func() bool
	// ForAll keeps the prompt for good, and lets every owner's begin with it.
	ForAll bool
}

// End is why a sequence ended. The set is closed.
type End int

// Ends.
const (
	Ended   End = iota // the model wrote a token that ends it
	Reached            // Sequence.Max was reached
	Stopped            // Emit said so
)

// A Result is what became of a sequence.
type Result struct {
	End    End
	Out    int // tokens written, without the one that ended it
	Cached int // tokens of the prompt that were known already
}

// ErrStopped is what a sequence fails with when the loop ends before it does.
var ErrStopped = errors.New("the engine is stopping")

// A Loop decodes what is submitted to it. [Loop.Run] must be running.
type Loop struct {
	Model  Model
	Limits Limits
	// Stall is the longest that a step should take while somebody is writing; 0 is 100 ms,
	// or four steps without prompts if that is longer.
	Stall time.Duration
	// Exclusive runs compute while no other engine computes on these cores. Nil runs it at once.
	Exclusive func(compute func())
	// Lane reads prompts beside streams. Nil is none: then steps do.
	Lane *Lane
	// AfterStep is called on the loop's thread when a step's tokens have been emitted, and
	// those chosen beside it. May be nil.
	AfterStep func()
	// Samples bounds the CPU time of each sample beside the steps. Nil is the usual budget.
	Samples *budget.CPU
	// Threads that compute; 0 is 1. FirstToken is the time of a step of one token as long as
	// none is known; 0 is not known. Both only say how much CPU time a step should take.
	Threads    int
	FirstToken time.Duration
	// Progress says how far the loop is, to any goroutine.
	Progress progress.Progress

	forAll atomic.Int64 // tokens that are kept for all

	mu      sync.Mutex // guards the fields below
	arrived []*run
	stopped bool
	wake    chan struct{} // has room for one; made on first use
	reading []*run        // those whose prompts are in the step that is being decoded
	aborted bool          // the step that is being decoded is not wanted any more
	stats   Stats

	// Of the thread of Run.
	cache    *cache
	pace     pace
	chooser  chooser
	last     time.Time        // when the last step ended, if somebody was writing in it
	calls    []uint64         // of the step that is being decoded
	cachedOf map[string]int64 // by owner: tokens of prompts that were known already
	counted  time.Time        // when the stats last told of the cache
}

// A run is a sequence on its way through the loop. Only the loop touches it after it
// has been submitted.
type run struct {
	Sequence
	ctx    context.Context //nolint:containedctx // a run is a call in flight, not a part of the loop
	done   chan struct{}   // closed when result and err are final
	result Result
	err    error

	held   bool      // it is paused, for this step
	paused time.Time // since when; zero while it is not
	slot   int       // its number in the cache; -1 while it has none
	tokens []Token   // prompt and answer
	cached int       // of tokens
	read   int       // length of tokens when they had last been read from the beginning
	logits int       // index in the batch of its last token; -1 if it is not there

	lane  int  // its number in the lane; -1 while it has none
	there int  // tokens that the lane has of it
	away  bool // the lane has a part of it
	stays bool // the lane has failed at it

	choice  *choice       // of its next token, beside the steps; nil if there is none
	chooses estimate      // seconds that its choices take
	owed    time.Duration // of sampling, not yet reported as cost
}

// Do decodes seq until it ends or ctx does. It returns the cause of ctx then; the tokens
// written so far count in the result.
func (l *Loop) Do(ctx context.Context, seq Sequence) (Result, error) {
	switch {
	case len(seq.Prompt) == 0, seq.Max < 1, len(seq.Prompt)+seq.Max > l.Room():
		return Result{}, fmt.Errorf("a sequence of %d+%d tokens in a context of %d", len(seq.Prompt), seq.Max, l.Room())
	}
	r := &run{Sequence: seq, ctx: ctx, done: make(chan struct{}), slot: -1, lane: -1}
	r.tokens = append(make([]Token, 0, len(seq.Prompt)+min(seq.Max, 4096)), seq.Prompt...)
	if !l.submit(r) {
		return Result{}, ErrStopped
	}
	stop := context.AfterFunc(ctx, func() { l.leaves(r) })
	defer stop()
	// When ctx ends the loop sees it before its next step: waiting for that keeps the
	// sequence's functions from being called after Do has returned.
	<-r.done
	return r.result, r.err
}

// Room is how many tokens a sequence may have: what the context holds, less what is kept
// for all.
func (l *Loop) Room() int { return l.Limits.Context - int(l.forAll.Load()) }

// Wake has the loop look whether something has changed: who is to pause, and who not any more.
func (l *Loop) Wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.signalLocked()
}

// leaves is told that nobody waits for r any more. If a long prompt of its is being read,
// that is called off: the others of the step go through it again.
func (l *Loop) leaves(r *run) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.signalLocked()
	if l.Lane != nil {
		l.Lane.leaves(r)
	}
	if slices.Contains(l.reading, r) && !l.aborted {
		l.aborted = true
		l.Model.Abort()
	}
}

func (l *Loop) submit(r *run) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return false
	}
	l.arrived = append(l.arrived, r)
	l.signalLocked()
	return true
}

func (l *Loop) signalLocked() {
	if l.wake == nil {
		l.wake = make(chan struct{}, 1)
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Run decodes until ctx ends, then fails what is left. It keeps its OS thread for
// itself: with a thread pool attached to the context, a goroutine that migrates costs
// up to fourteen times the step.
func (l *Loop) Run(ctx context.Context) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	l.Wake() // from here on there is something to wait for
	stop := context.AfterFunc(ctx, l.Wake)
	defer stop()

	l.cache = newCache(l.Model, l.Limits)
	l.pace.stall = l.Stall
	l.chooser.budget, l.chooser.wake = l.Samples, l.Wake
	if l.Samples == nil {
		l.chooser.budget = new(budget.CPU)
	}
	defer l.chooser.stop()
	defer l.clear()
	if l.Lane != nil {
		l.Lane.begin(l.Wake)
		defer l.Lane.stop()
	}
	var runs []*run // oldest first
	for {
		arrived, err := l.next(ctx, runs)
		runs = append(runs, arrived...)
		if err != nil {
			for _, r := range runs {
				l.finish(r, ErrStopped)
			}
			return nil
		}
		l.land()
		l.collect()
		runs = l.leave(runs)
		for _, r := range runs {
			l.pauseOrResume(r)
		}
		if !slices.ContainsFunc(runs, (*run).goesOn) {
			l.last = time.Time{}
			l.count(runs)
			continue
		}
		l.retire(runs)
		l.await(runs)
		if runs = l.leave(runs); slices.ContainsFunc(runs, (*run).goesOn) {
			l.step(runs)
			l.Progress.Enter(progress.Plan)
			runs = l.leave(runs)
		}
		if len(runs) > 0 { // else it makes nobody slower: rest has time
			l.cache.store(false)
		}
		l.count(runs)
		if l.AfterStep != nil {
			l.AfterStep()
		}
	}
}

// clear empties the cache when the loop ends.
func (l *Loop) clear() {
	for _, e := range slices.Clone(l.cache.kept) {
		_ = l.cache.forget(e) // nobody is there any more whom it could concern
	}
}

func (r *run) goesOn() bool { return !r.held }

// next returns the submitted runs; if no run can go on it waits for one, or for another
// change.
func (l *Loop) next(ctx context.Context, runs []*run) ([]*run, error) {
	arrived, err := l.arrivals(ctx)
	if err == nil && len(arrived) == 0 && !slices.ContainsFunc(runs, (*run).goesOn) {
		l.Progress.Enter(progress.Idle)
		l.rest(runs)
		l.Progress.Enter(progress.Plan)
		return l.arrivals(ctx)
	}
	return arrived, err
}

func (l *Loop) arrivals(ctx context.Context) ([]*run, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	arrived := l.arrived
	l.arrived = nil
	if ctx.Err() != nil {
		l.stopped = true
		return arrived, context.Cause(ctx)
	}
	return arrived, nil
}

// When sequences that have ended are moved out of the cache, if nobody runs.
const (
	atRest  = 250 * time.Millisecond // for whoever asks again at once finds them there
	between = time.Millisecond       // in which it is seen whether somebody has come
)

// rest waits until something has changed; meanwhile it moves out of the cache what is not
// asked for.
func (l *Loop) rest(runs []*run) {
	for wait := atRest; ; wait = between {
		due := l.retire(runs)
		switch {
		case l.cache.stores():
			due = time.Now().Add(wait)
		case due.IsZero():
			<-l.wake
			return
		}
		if !l.pause(due) {
			return
		}
		l.cache.store(true)
		l.countCells()
	}
}

// pauseOrResume notes whether a run is paused, for the step that follows.
func (l *Loop) pauseOrResume(r *run) {
	r.held = r.Held != nil && r.Held()
	switch {
	case !r.held:
		r.paused = time.Time{}
		return
	case r.paused.IsZero():
		r.paused = time.Now()
	}
	l.stay(r)
}

// longPause is after how long a paused sequence counts as retained: a preempted one mostly
// resumes before, one whose client does not read mostly does not.
const longPause = time.Second

// retire gives the cells of long paused runs to the retained sequences, which leave the cache
// when they make others slower, and are found again when the run resumes. It returns when the
// next run is due, zero if none is.
func (l *Loop) retire(runs []*run) (next time.Time) {
	for _, r := range runs {
		if !r.held || r.slot < 0 || r.cached == 0 || r.choice != nil {
			continue
		}
		due := r.paused.Add(longPause)
		if time.Now().Before(due) {
			if next.IsZero() || due.Before(next) {
				next = due
			}
			continue
		}
		if err := l.retain(r, false); err != nil {
			l.finish(r, err)
		}
	}
	return next
}

// leave lets those go that have ended, or that nobody waits for any more.
func (l *Loop) leave(runs []*run) []*run {
	kept := runs[:0]
	for _, r := range runs {
		switch {
		case r.finished():
		case r.ctx.Err() != nil:
			l.finish(r, context.Cause(r.ctx))
		default:
			kept = append(kept, r)
		}
	}
	clear(runs[len(kept):])
	return kept
}

func (r *run) finished() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// finish ends a run. What it has read and written is kept, for its owner.
func (l *Loop) finish(r *run, err error) {
	if r.finished() {
		return
	}
	l.stay(r)
	if r.choice != nil {
		l.chooser.drop(r.choice)
		r.choice = nil
	}
	r.err = errors.Join(err, l.retain(r, r.ForAll))
	l.Progress.Finish(1)
	close(r.done)
}

// retain makes a retained sequence of a run's cells, or frees them if nothing could share it.
func (l *Loop) retain(r *run, forAll bool) error {
	if r.slot < 0 {
		return nil
	}
	e := &entry{seq: r.slot, there: r.cached, owner: r.Owner, tokens: r.tokens[:r.cached:r.cached], forAll: forAll}
	r.slot, r.cached = -1, 0
	if (e.owner == "" && !forAll) || l.Limits.Kept == 0 || len(e.tokens) == 0 {
		return l.cache.drop(e.seq)
	}
	if forAll {
		l.forAll.Add(int64(len(e.tokens)))
	}
	return l.cache.keep(e)
}

// drop takes a run's cache away. It must read its tokens again to go on.
func (l *Loop) drop(r *run) error {
	l.stay(r)
	if r.slot < 0 {
		return nil
	}
	slot := r.slot
	r.slot, r.cached = -1, 0
	return l.cache.drop(slot)
}

// step decodes once, and deals with what came out. It may also find that it is too early for
// that, for what is read aside has the processors, and return when something has changed.
func (l *Loop) step(runs []*run) {
	begin := time.Now()
	views := make([]view, len(runs))
	writers, choices := 0, 0
	for i, r := range runs {
		views[i] = l.view(r, runs)
		switch {
		case r.choice != nil:
			choices++
		case views[i].writes():
			writers++
		}
	}
	sequences, tokens := l.cache.forAll()
	limits := l.Limits
	limits.Kept -= sequences
	limits.Context -= tokens
	s := plan(limits, views, l.cache.cells.needed-tokens, l.rooms(writers+choices, begin))
	for _, i := range s.drop {
		l.tally(func(st *Stats) { st.Dropped++ })
		if err := l.drop(runs[i]); err != nil {
			l.finish(runs[i], err)
			s.feed[i], s.aside[i] = 0, 0
		}
	}
	l.start(runs, s)
	l.send(runs, s)
	var prompt int
	writers = 0
	for i, r := range runs {
		switch {
		case s.feed[i] == 0:
		case views[i].writes():
			writers++
		default:
			s.feed[i] = min(s.feed[i], len(r.tokens)-r.cached)
			prompt += s.feed[i]
		}
	}
	aside := l.Lane.flight()
	switch {
	case writers+prompt == 0 && aside:
		l.Progress.Enter(progress.Idle)
		l.pause(l.overdue())
		return
	case writers+prompt == 0 && choices > 0:
		l.Progress.Enter(progress.Sample)
		<-l.wake
		return
	case writers+prompt == 0: // cannot be, and must not be for ever
		for _, r := range runs {
			l.finish(r, errors.New("internal error: a step of nothing"))
		}
		return
	case aside && prompt == 0 && !s.hurry && !l.last.IsZero() && !l.pause(l.pace.due(writers, l.last, l.Lane.urgent)):
		return
	}
	if aside && prompt == 0 {
		begin = time.Now()
	}
	waited, err := l.decode(runs, s.feed)
	if err != nil {
		l.undo(runs, s.feed, err)
		return
	}
	l.Progress.Enter(progress.Sample)
	for i, r := range runs {
		r.cached += s.feed[i]
		if r.logits >= 0 {
			l.write(r)
		}
	}
	now := time.Now()
	took := now.Sub(begin)
	l.pace.observe(writers, prompt, aside, took-waited) // for others is not for prompts
	gap := took
	if !l.last.IsZero() {
		gap = now.Sub(l.last)
	}
	l.last = time.Time{}
	if writers > 0 {
		l.last = now
	}
	l.tally(func(st *Stats) {
		st.Steps++
		st.Prefill += int64(prompt)
		st.Decode += int64(writers)
		if writers > 0 && gap > l.pace.most(writers) {
			st.Stalls++
		}
		if writers > 0 && prompt == 0 {
			st.Step = took
		}
	})
}

// rooms is what a step may read that begins now.
func (l *Loop) rooms(writers int, now time.Time) rooms {
	chunk := l.pace.chunk(writers, 0)
	r := rooms{chunk: chunk, now: chunk, busy: l.Lane.flight()}
	if writers > 0 && !l.last.IsZero() {
		r.now = l.pace.chunk(writers, now.Sub(l.last))
	}
	if l.Lane.works() && l.pace.lanes(writers, chunk) {
		r.lane = l.Lane.room
	}
	return r
}

// pause waits until then, and returns true, or until something has changed.
func (l *Loop) pause(until time.Time) bool {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-l.wake:
		return false
	case <-timer.C:
		return true
	}
}

// ripeAfter says when a run has written so much since its tokens were read that reading
// them again costs no more than a part of that.
const (
	ripeAfter = 32
	ripeShare = 16
)

func (l *Loop) view(r *run, runs []*run) view {
	v := view{
		owner: r.Owner, cached: r.cached, known: len(r.tokens), wrote: r.result.Out > 0,
		held: r.held, away: r.away, lane: r.lane >= 0, stays: r.stays,
	}
	if r.choice != nil {
		v.chooses = true
		v.known++ // it needs a cell for that token
	}
	if r.slot < 0 && v.chooses {
		return v
	}
	if r.slot < 0 {
		from := l.cache.find(r.Owner, r.tokens, runs)
		v.prefix = from.n
		if from.entry == nil || from.entry.forAll {
			v.shared = from.n
		}
		return v
	}
	v.own = l.cache.cells.own(r.slot)
	v.ripe = len(r.tokens)-r.read >= max(ripeAfter, r.cached/ripeShare)
	return v
}

// start gives those a place in the cache that the plan has begin. Those begin with what is
// known already.
func (l *Loop) start(runs []*run, s step) {
	for i, r := range runs {
		if s.feed[i]+s.aside[i] == 0 || r.slot >= 0 {
			continue
		}
		first := r.read == 0
		// Asked again, for somebody may just have lost what was found before.
		slot, n, err := l.cache.take(l.cache.find(r.Owner, r.tokens, runs))
		if err != nil {
			l.finish(r, err)
			s.feed[i], s.aside[i] = 0, 0
			continue
		}
		r.slot, r.cached, r.read = slot, n, len(r.tokens)
		if first {
			r.result.Cached = n
			l.tally(func(st *Stats) { st.Cached += int64(n) })
			if l.cachedOf == nil {
				l.cachedOf = make(map[string]int64)
			}
			l.cachedOf[r.Owner] += int64(n)
		}
	}
}

// decode feeds every run as many of its pending tokens as the plan says. It returns how long
// it has waited for its turn.
func (l *Loop) decode(runs []*run, feed []int) (waited time.Duration, err error) {
	total := 0
	for _, n := range feed {
		total += n
	}
	if err := l.cache.room(total); err != nil {
		return 0, err
	}
	var reading []*run
	l.calls = l.calls[:0]
	at := 0
	for i, r := range runs {
		r.logits = -1
		if feed[i] == 0 {
			continue
		}
		l.calls = append(l.calls, r.Call)
		if feed[i] >= worthAborting && l.Model.Cuts() {
			reading = append(reading, r)
		}
		for j, tok := range r.tokens[r.cached : r.cached+feed[i]] {
			pos := r.cached + j
			last := pos == len(r.tokens)-1
			if err := l.Model.Add(tok, pos, r.slot, last); err != nil {
				return 0, err
			}
			if last {
				r.logits = at
			}
			at++
		}
	}
	l.begins(reading)
	l.Progress.Begin(l.calls, l.expected(total))
	if l.Exclusive != nil {
		came := time.Now()
		l.Progress.Enter(progress.Lock)
		l.Exclusive(func() {
			waited = time.Since(came)
			l.Progress.Enter(progress.Decode)
			err = l.Model.Decode()
		})
	} else {
		l.Progress.Enter(progress.Decode)
		err = l.Model.Decode()
	}
	l.Progress.End()
	l.ends()
	if err != nil {
		return waited, err
	}
	for i, r := range runs {
		if feed[i] > 0 {
			l.cache.cells.grow(r.slot, feed[i])
		}
	}
	return waited, nil
}

// expected is the CPU time that a step of so many tokens should take; 0 is not known. It is
// in whole milliseconds: a stream's steps should be alike.
func (l *Loop) expected(tokens int) time.Duration {
	takes := l.pace.steps.at(tokens)
	if takes == 0 {
		takes = l.FirstToken.Seconds() * float64(tokens)
	}
	return time.Duration(math.Ceil(takes*float64(max(l.Threads, 1))*1000)) * time.Millisecond
}

// worthAborting is how many tokens of a prompt a step must read to be called off when
// nobody wants them: the others lose what the step has cost so far.
const worthAborting = 32

// begins says whose prompts are read by the step that follows.
func (l *Loop) begins(reading []*run) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reading, l.aborted = reading, false
}

func (l *Loop) ends() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reading = nil
}

// undo deals with a step that has failed: it is undone for all of its sequences. If it was
// called off they go through it again, but for those that nobody waits for; else which of
// them is to blame cannot be told, and all fail.
func (l *Loop) undo(runs []*run, feed []int, err error) {
	l.mu.Lock()
	aborted := l.aborted
	if aborted {
		l.stats.Aborted++
	}
	l.mu.Unlock()
	for i, r := range runs {
		switch {
		case feed[i] == 0:
		case !aborted:
			l.finish(r, errors.Join(fmt.Errorf("decode: %w", err), l.drop(r)))
		case r.cached == 0 || l.Model.Cut(r.slot, r.cached) != nil:
			if err := l.drop(r); err != nil { // else it is read anew
				l.finish(r, err)
			}
		}
	}
}

// write chooses a run's next token and hands it on, or has it chosen beside the steps.
func (l *Loop) write(r *run) {
	if r.Detach != nil {
		l.detach(r)
		return
	}
	began := time.Now()
	tok, err := r.Sample(r.logits)
	l.accept(r, tok, err, time.Since(began))
}

// accept takes a token that was chosen for a run, or the failure of that.
func (l *Loop) accept(r *run, tok Token, err error, took time.Duration) {
	switch {
	case err != nil:
		l.finish(r, fmt.Errorf("sample: %w", err))
	case r.Ends(tok):
		r.result.End = Ended
		l.finish(r, nil)
	default:
		r.tokens = append(r.tokens, tok)
		r.result.Out++
		switch {
		case !r.Emit(tok, l.cost(r, took)):
			r.result.End = Stopped
			l.finish(r, nil)
		case r.result.Out == r.Max:
			r.result.End = Reached
			l.finish(r, nil)
		}
	}
}
