// Package batch decodes several sequences together on one model context. It handles tokens, not
// text: the prompt, the choice of each token and the receiver of the answer come with each
// [Sequence].
//
// The [Loop] repeats one step (step.go) on one OS thread; no other thread uses the context. A step
// takes a snapshot of the sequences, gets a plan from package schedule, applies it, decodes the batch,
// and finishes the sequences that have ended. Package kv accounts for the cells of the cache. Each
// sequence has one state, which only one function changes (sequence.go). Long prompts are handed to a
// prefill worker (handoff.go).
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

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/inbox"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/kv"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/prefill"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/progress"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/schedule"
)

// A Decoder decodes batches on the context of a loop. All calls except Abort come from one OS
// thread.
type Decoder interface {
	// Add puts a token of a sequence at a position into the next batch. If logits is set, the entry
	// has logits after Decode. An error empties the batch.
	Add(tok Token, pos, seq int, logits bool) error
	// Pad allows up to most cells for padding in the next batch.
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
	Sequences int // sequences running at once; at most Batch
	Retained  int // additional sequences in the cache: paused and retained ones
	// Offloaded bounds the tokens of retained sequences that are moved from the cache to memory;
	// 0 moves none.
	Offloaded int
}

// A Loop decodes the sequences that are passed to [Loop.Do] while [Loop.Run] runs.
type Loop struct {
	Decoder Decoder
	Memory  kv.Memory // of the decoder's context
	// Whole is set if sequences can be copied, saved and dropped only whole, as in recurrent models.
	Whole bool
	// Piece is the maximum number of tokens in one call of Memory.Save; 0 is no limit. See
	// [kv.Options].
	Piece int
	// Exact is set if the logits of a token do not depend on the other tokens of its batch.
	Exact  bool
	Limits Limits
	// Stall is the longest time that a step with streams may take; 0 means 100 ms, or the time of four
	// steps without prompts if that is longer.
	Stall time.Duration
	// Exclusive waits until no other loop or engine computes on these cores, then calls compute. If it
	// is nil, the loop computes at once.
	Exclusive func(compute func())
	// Prefill decodes prompts beside streams. Run stops it at its end. If it is nil, steps decode all
	// prompts.
	Prefill *prefill.Worker
	// AfterStep is called on the loop's thread after the tokens of a step have been emitted. It may be
	// nil.
	AfterStep func()
	// Threads is the number of computing threads; 0 means 1. FirstToken is the assumed time of a step
	// of one token, until one is measured; 0 means unknown. Both are used only for estimates of time
	// and cost.
	Threads    int
	FirstToken time.Duration
	// Progress is the progress of the loop. Any goroutine may read it.
	Progress progress.Progress

	inbox      inbox.Inbox[*sequence]
	decoding   abortable    // the step under way
	prefilling abortable    // the outstanding job of the prefill worker
	pinned     atomic.Int64 // pinned tokens
	unit       atomic.Int64 // mean time of a step of one token, in nanoseconds; 0 means unknown

	mu    sync.Mutex // guards stats
	stats Stats
}

// Do decodes seq until it ends. If ctx ends first, Do returns the cause of ctx, and the result counts
// the tokens emitted so far. Any goroutine may call Do.
func (l *Loop) Do(ctx context.Context, seq Sequence) (Result, error) {
	switch {
	case len(seq.Prompt) == 0, seq.Max < 1, len(seq.Prompt)+seq.Max > l.Room():
		return Result{}, fmt.Errorf("a prompt of %d tokens and an answer of up to %d: both must be at least 1, and together at most %d", len(seq.Prompt), seq.Max, l.Room())
	}
	s := &sequence{Sequence: seq, ctx: ctx, done: make(chan struct{}), uncharged: seq.Spent}
	s.tokens = append(make([]Token, 0, len(seq.Prompt)+min(seq.Max, 4096)), seq.Prompt...)
	if !l.inbox.Submit(s) {
		return Result{}, ErrStopped
	}
	stop := context.AfterFunc(ctx, func() { l.cancel(s) })
	defer stop()
	// The loop notices the end of ctx before its next step. Do waits for that, so that the sequence's
	// functions are not called after Do has returned.
	<-s.done
	return s.result, s.err
}

// Room is the maximum number of tokens in a sequence: the context without its pinned tokens.
func (l *Loop) Room() int { return l.Limits.Context - int(l.pinned.Load()) }

// Cost converts the time spent on a request that has no sequence to a number of tokens: it divides the
// time by the mean time of a step of one token. It returns 0 while that mean is unknown.
func (l *Loop) Cost(spent time.Duration) int {
	unit := cmp.Or(time.Duration(l.unit.Load()), l.FirstToken)
	if unit <= 0 {
		return 0
	}
	return int(spent / unit)
}

// Wake makes the loop check for changes, such as the results of Sequence.Paused, before its next step.
func (l *Loop) Wake() { l.inbox.Wake() }

// cancel is called when the ctx of s ends. If a long prompt of s is being decoded, it aborts that
// computation; the other sequences of the batch are decoded again.
func (l *Loop) cancel(s *sequence) {
	l.inbox.Wake()
	l.prefilling.cancel(s)
	l.decoding.cancel(s)
}

// An abortable is a computation that is aborted when one of its sequences is canceled.
type abortable struct {
	mu      sync.Mutex // guards the fields below
	seqs    []*sequence
	abort   func()
	aborted bool
}

// minAbort is the minimum number of tokens in a computation for a canceled sequence to abort it. Fewer
// tokens are computed to the end, because an abort also discards the results of the other sequences.
const minAbort = 32

// begin records the start of a computation for the given sequences. Canceling one of them calls abort,
// once.
func (a *abortable) begin(seqs []*sequence, abort func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seqs, a.abort, a.aborted = seqs, abort, false
}

// end records the end of a computation, and reports whether it was aborted.
func (a *abortable) end() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seqs = nil
	return a.aborted
}

func (a *abortable) cancel(s *sequence) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if slices.Contains(a.seqs, s) && !a.aborted {
		a.aborted = true
		a.abort()
	}
}

// Run decodes until ctx ends, then fails the remaining sequences. It locks its OS thread: with a
// thread pool attached to the context, a step in a goroutine that migrates takes up to fourteen
// times as long.
func (l *Loop) Run(ctx context.Context) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	stop := context.AfterFunc(ctx, l.inbox.Wake)
	defer stop()
	s := newStepper(l)
	defer s.cache.Clear()
	if l.Prefill != nil {
		l.Prefill.Notify(l.inbox.Wake)
		defer l.Prefill.Stop()
	}
	s.run(ctx)
	return nil
}

// A stepper is the state of one Run of a loop. Only the loop's thread uses it.
type stepper struct {
	*Loop
	cache         *kv.Cache
	times         schedule.StepTimes
	handoff       handoff
	live          []*sequence         // oldest first
	views         []schedule.Sequence // of live, in the step under way
	batch         []entry             // of the step under way
	calls         []uint64            // of batch
	last          time.Time           // end of the last step if it had streams, else zero
	cachedByOwner map[string]int64    // by owner: tokens of prompts found in the cache
	published     time.Time           // last time at which the stats of the cache were published
	slideTime     schedule.Average    // seconds that a slide takes per token
}

func newStepper(l *Loop) *stepper {
	s := &stepper{
		Loop: l,
		cache: kv.New(l.Memory, kv.Options{
			Cells: l.Limits.Context, Sequences: l.Limits.Sequences + l.Limits.Retained,
			Retain: l.Limits.Retained > 0, Offloaded: l.Limits.Offloaded, Whole: l.Whole, Piece: l.Piece,
		}),
		times: schedule.StepTimes{Stall: l.Stall}, cachedByOwner: make(map[string]int64),
	}
	return s
}

func (l *stepper) run(ctx context.Context) {
	for l.receive(ctx) {
		l.collectPrefill()
		l.settle()
		l.pauseAndResume()
		if !l.running() {
			l.last = time.Time{}
			l.publishStats()
			continue
		}
		l.suspend()
		l.settle()
		if l.running() {
			l.step()
			l.Progress.Enter(progress.Plan)
			l.settle()
		}
		if len(l.live) > 0 { // otherwise receive waits in idle, which offloads
			l.cache.Offload(false)
			l.slide()
		}
		l.publishStats()
		if l.AfterStep != nil {
			l.AfterStep()
		}
	}
}

// Conditions of a slide between two steps.
const (
	fewDead    = 256                   // up to this number, dead cells cost next to nothing: attention only skips them
	slideToken = 60 * time.Microsecond // time per token, until a slide is measured; that of a model with 8 billion weights
	slideShare = 2                     // a slide may take the stall budget divided by this
)

// slide empties the dead cells of the cache if there are more of them than fewDead and than half the
// cells in use, and if no stream would wait too long. The first condition keeps the cost of the copies
// below that of the decoded tokens. The cache also slides by itself when it is full, or for a sequence
// that must get the cells of an empty cache.
func (l *stepper) slide() {
	dead, tokens := l.cache.Dead()
	if u := l.cache.Usage(); dead <= max(fewDead, (u.Active+u.Retained)/2) {
		return
	}
	token := cmp.Or(l.slideTime.Mean(), slideToken.Seconds())
	if seconds(float64(tokens)*token) > l.times.StallBudget(len(l.live))/slideShare {
		return
	}
	began := time.Now()
	l.cache.Slide()
	if tokens > 0 {
		l.slideTime.Add(time.Since(began).Seconds() / float64(tokens))
	}
}

// running reports whether a sequence is running.
func (l *stepper) running() bool {
	return slices.ContainsFunc(l.live, func(s *sequence) bool { return s.state.Running() })
}

// receive adds the submitted sequences to live. If no sequence is running, it waits for one, or for
// another change. After the end of ctx it ends all sequences and reports false.
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

// Timing of the offload of retained sequences while no sequence is running.
const (
	idleDelay = 250 * time.Millisecond // after the last step, because the next prompt may need the same prefix at once
	idlePause = time.Millisecond       // between two pieces, to receive new sequences
)

// idle waits for a change. During the wait it suspends sequences that have been paused for long, and
// offloads retained ones.
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

// pauseAndResume pauses and resumes sequences according to [Sequence.Paused].
func (l *stepper) pauseAndResume() {
	for _, s := range l.live {
		pause := s.Paused != nil && s.Paused()
		switch {
		case pause != s.state.Running(): // no change
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

// longPause is the length of a pause after which a sequence is suspended: a preempted sequence
// usually resumes earlier, a stalled one usually does not.
const longPause = time.Second

// suspend suspends the sequences that have been paused for long: their cells are retained, may then be
// offloaded, and are found again when the sequence resumes. It returns the time at which the next
// paused sequence must be suspended, or zero if there is none.
func (l *stepper) suspend() (next time.Time) {
	for _, s := range l.live {
		if s.state != schedule.Paused || s.cached() == 0 {
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
