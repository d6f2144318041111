// Package batch decodes several sequences together on one model context. It knows tokens, not
// text: the prompt, the choice of each token and the receiver of the answer come with each
// [Sequence].
//
// The [Loop] repeats one step (step.go) on one OS thread; no other touches the context. It takes
// a snapshot of the sequences, has package schedule plan, applies the plan, decodes and settles. Package kv keeps the books of the cache. A sequence has one state, which
// one function changes (sequence.go). Long prompts are handed to a prefill worker (handoff.go),
// and costly samples to a thread of their own (chooser.go, choices.go).
package batch

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/budget"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/inbox"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/kv"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/prefill"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/progress"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/schedule"
)

// A Decoder decodes batches on the context of a loop. All calls come from one OS thread, but
// for Abort.
type Decoder interface {
	// Add puts a token of a sequence at a position into the next batch. With logits the entry
	// has logits after Decode. An error empties the batch.
	Add(tok Token, pos, seq int, logits bool) error
	// Pad allows up to so many cells for padding in the next batch.
	Pad(most int)
	// Decode computes the batch and empties it.
	Decode() error
	// Abort makes a Decode under way fail soon. It may be called from any goroutine.
	Abort()
}

// Limits are the limits of a model's context.
type Limits struct {
	Context   int // tokens in the cache, over all sequences
	Batch     int // tokens of one step
	Sequences int // that run at once; at most Batch
	Retained  int // sequences more that the cache may have: paused and retained ones
	// Offloaded is how many tokens of retained sequences may be moved from the cache to
	// memory; 0 moves none.
	Offloaded int
}

// A Loop decodes the sequences of [Loop.Do], while [Loop.Run] runs.
type Loop struct {
	Decoder Decoder
	Memory  kv.Memory // of the decoder's context
	// Whole says that sequences can be copied, saved and dropped whole only, as those of
	// recurrent models.
	Whole bool
	// Piece is how many tokens the memory can save at once; 0 is no limit. See [kv.Options].
	Piece int
	// Exact says that the logits of a token do not depend on the other tokens of its batch.
	Exact  bool
	Limits Limits
	// Stall is the longest time for a step beside streams; 0 is 100 ms, or four steps without
	// prompts if that is longer.
	Stall time.Duration
	// Exclusive runs compute while no other engine computes on these cores. Nil runs it at once.
	Exclusive func(compute func())
	// Prefill decodes prompts beside streams. It ends with the loop. Nil is none: then steps do.
	Prefill *prefill.Worker
	// AfterStep is called on the loop's thread when a step's tokens have been emitted, and
	// when tokens chosen beside the steps have. May be nil.
	AfterStep func()
	// Samples bounds the CPU time of each sample beside the steps. Nil is the default budget.
	Samples *budget.CPU
	// Threads that compute; 0 is 1. FirstToken is the time of a step of one token until one
	// has been observed; 0 is not known. Both only say how much CPU time a step should take.
	Threads    int
	FirstToken time.Duration
	// Progress says how far the loop is, to any goroutine.
	Progress progress.Progress

	inbox      inbox.Inbox[*sequence]
	decoding   abortable    // the step under way
	prefilling abortable    // the outstanding job of the prefill worker
	pinned     atomic.Int64 // tokens that are pinned

	mu    sync.Mutex // guards stats
	stats Stats
}

// Do decodes seq until it ends or ctx does. It returns the cause of ctx then; the tokens
// emitted until then count in the result.
func (l *Loop) Do(ctx context.Context, seq Sequence) (Result, error) {
	switch {
	case len(seq.Prompt) == 0, seq.Max < 1, len(seq.Prompt)+seq.Max > l.Room():
		return Result{}, fmt.Errorf("a sequence of %d+%d tokens in a context of %d", len(seq.Prompt), seq.Max, l.Room())
	}
	s := &sequence{Sequence: seq, ctx: ctx, done: make(chan struct{})}
	s.tokens = append(make([]Token, 0, len(seq.Prompt)+min(seq.Max, 4096)), seq.Prompt...)
	if !l.inbox.Submit(s) {
		return Result{}, ErrStopped
	}
	stop := context.AfterFunc(ctx, func() { l.cancel(s) })
	defer stop()
	// When ctx ends the loop sees it before its next step: waiting for that keeps the
	// sequence's functions from being called after Do has returned.
	<-s.done
	return s.result, s.err
}

// Room is how many tokens a sequence may have: those of the context that are not pinned.
func (l *Loop) Room() int { return l.Limits.Context - int(l.pinned.Load()) }

// Wake makes the loop ask which sequences are to pause, and look for other changes.
func (l *Loop) Wake() { l.inbox.Wake() }

// cancel is called when the ctx of s ends. If a long prompt of it is being decoded, that is
// called off: the other sequences of the batch are decoded again.
func (l *Loop) cancel(s *sequence) {
	l.inbox.Wake()
	l.prefilling.cancel(s)
	l.decoding.cancel(s)
}

// An abortable is a computation that is called off when a sequence is canceled.
type abortable struct {
	mu      sync.Mutex // guards the fields below
	of      []*sequence
	abort   func()
	aborted bool
}

// minAbort is how many tokens of a canceled prompt a batch must have to be called off: the other
// sequences lose its result so far.
const minAbort = 32

// begin starts a computation, which a cancel of one of some sequences is to abort.
func (a *abortable) begin(of []*sequence, abort func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.of, a.abort, a.aborted = of, abort, false
}

// end reports whether the computation has been aborted.
func (a *abortable) end() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.of = nil
	return a.aborted
}

func (a *abortable) cancel(s *sequence) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if slices.Contains(a.of, s) && !a.aborted {
		a.aborted = true
		a.abort()
	}
}

// Run decodes until ctx ends, then fails the remaining sequences. It keeps its OS thread for
// itself: with a thread pool attached to the context, a step takes up to fourteen times as
// long in a goroutine that migrates.
func (l *Loop) Run(ctx context.Context) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	stop := context.AfterFunc(ctx, l.inbox.Wake)
	defer stop()
	s := newStepper(l)
	defer s.cache.Clear()
	defer s.chooser.stop()
	if l.Prefill != nil {
		l.Prefill.Notify(l.inbox.Wake)
		defer l.Prefill.Stop()
	}
	s.run(ctx)
	return nil
}

// A stepper is the state of one Run of a loop. Only the loop's thread touches it.
type stepper struct {
	*Loop
	cache    *kv.Cache
	times    schedule.StepTimes
	chooser  chooser
	handoff  handoff
	live     []*sequence         // oldest first
	views    []schedule.Sequence // of live, in the step under way
	batch    []entry             // of the step under way
	calls    []uint64            // of batch
	last     time.Time           // end of the last step if it had streams, else zero
	cachedOf map[string]int64    // by owner: tokens of prompts that were in the cache
	counted  time.Time           // when the stats of the cache were last published
	moving   schedule.Average    // seconds of a slide for each token
}

func newStepper(l *Loop) *stepper {
	s := &stepper{
		Loop: l,
		cache: kv.New(l.Memory, kv.Options{
			Cells: l.Limits.Context, Sequences: l.Limits.Sequences + l.Limits.Retained,
			Retain: l.Limits.Retained > 0, Offloaded: l.Limits.Offloaded, Whole: l.Whole, Piece: l.Piece,
		}),
		times: schedule.StepTimes{Stall: l.Stall}, cachedOf: make(map[string]int64),
		chooser: chooser{budget: l.Samples, wake: l.inbox.Wake},
	}
	if l.Samples == nil {
		s.chooser.budget = new(budget.CPU)
	}
	return s
}

func (l *stepper) run(ctx context.Context) {
	for l.receive(ctx) {
		l.collectPrefill()
		l.collectChoices()
		l.settle()
		l.pauseAndResume()
		if !l.running() {
			l.last = time.Time{}
			l.publishStats()
			continue
		}
		l.suspend()
		l.awaitChoices()
		l.settle()
		if l.running() {
			l.step()
			l.Progress.Enter(progress.Plan)
			l.settle()
		}
		if len(l.live) > 0 { // else there is time for that in idle
			l.cache.Offload(false)
			l.slide()
		}
		l.publishStats()
		if l.AfterStep != nil {
			l.AfterStep()
		}
	}
}

// When the cache slides between two steps.
const (
	fewDead    = 256                   // cells cost next to nothing: attention only skips them
	slideToken = 60 * time.Microsecond // for each token, before the first slide: of a model with 8 billion weights
	slideShare = 2                     // of the stall budget that a slide may take
)

// slide empties the dead cells of the cache, if they are more than half of those in use, so that fewer
// tokens are copied than were decoded meanwhile, twice over, and if no stream waits too long for it. Else
// it is done when the cache is full, or idle.
func (l *stepper) slide() {
	dead, tokens := l.cache.Dead()
	if u := l.cache.Usage(); dead <= max(fewDead, (u.Active+u.Retained)/2) {
		return
	}
	token := cmp.Or(l.moving.Mean(), slideToken.Seconds())
	if seconds(float64(tokens)*token) > l.times.StallBudget(len(l.live))/slideShare {
		return
	}
	began := time.Now()
	l.cache.Slide()
	if tokens > 0 {
		l.moving.Add(time.Since(began).Seconds() / float64(tokens))
	}
}

// running reports whether a sequence is running.
func (l *stepper) running() bool {
	return slices.ContainsFunc(l.live, func(s *sequence) bool { return s.state.Running() })
}

// receive takes the submitted sequences. Without a running sequence it waits for one, or for
// another change. When ctx has ended it ends all sequences and reports false.
func (l *stepper) receive(ctx context.Context) bool {
	arrived := l.inbox.Take()
	if len(arrived) == 0 && ctx.Err() == nil && !l.running() {
		l.Progress.Enter(progress.Idle)
		l.idle()
		l.Progress.Enter(progress.Plan)
		arrived = l.inbox.Take()
	}
	l.live = append(l.live, arrived...)
	if ctx.Err() == nil {
		return true
	}
	l.live = append(l.live, l.inbox.Close()...)
	for _, s := range l.live {
		s.end(ErrStopped)
	}
	l.settle()
	return false
}

// When retained sequences are offloaded while no sequence is running.
const (
	idleDelay = 250 * time.Millisecond // after the last one: its prefix may be asked for again at once
	idlePause = time.Millisecond       // between two pieces, for new sequences
)

// idle waits for a change. Meanwhile it offloads retained sequences.
func (l *stepper) idle() {
	for wait := idleDelay; ; wait = idlePause {
		due := l.suspend()
		l.settle()
		switch {
		case l.cache.CanOffload():
			due = time.Now().Add(wait)
		case due.IsZero():
			l.inbox.Wait()
			return
		}
		if !l.inbox.WaitUntil(due) {
			return
		}
		l.cache.Offload(true)
		l.publishUsage()
	}
}

// pauseAndResume asks every sequence whether it is to pause, for the step that follows.
func (l *stepper) pauseAndResume() {
	for _, s := range l.live {
		pause := s.Paused != nil && s.Paused()
		switch {
		case pause != s.state.Running(): // as it is
		case !pause:
			l.transition(s, s.active())
		case s.state.HasCells():
			s.pausedAt = time.Now()
			l.transition(s, schedule.Paused)
		default:
			s.pausedAt = time.Now()
			l.transition(s, schedule.Suspended)
		}
	}
}

// longPause is after how long a pause a sequence is suspended: a preempted one usually resumes
// before, a stalled one usually does not.
const longPause = time.Second

// suspend retains the cells of sequences that have been paused for long: retained sequences
// are offloaded when they make others slower, and are found again at the resumption. It
// returns when the next one is due, zero if none is.
func (l *stepper) suspend() (next time.Time) {
	for _, s := range l.live {
		if s.state != schedule.Paused || s.cached() == 0 || s.choice != nil {
			continue
		}
		due := s.pausedAt.Add(longPause)
		switch {
		case !time.Now().Before(due):
			l.transition(s, schedule.Suspended)
		case next.IsZero() || due.Before(next):
			next = due
		}
	}
	return next
}
