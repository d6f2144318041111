// Package batch decodes several sequences together on one model context. It knows
// tokens, not text: what a prompt says, how a token is chosen and who wants to hear of
// it come with each [Sequence].
//
// What a step does is decided by a pure function (plan.go); the [Loop] carries it out
// on one OS thread, which is the only one that touches the context.
package batch

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
)

// Token is an index into a model's vocabulary.
type Token = int32

// A Model is the context that a loop decodes on. All calls come from one OS thread.
type Model interface {
	// Add puts a token of a sequence at a position into the next batch. The entry has
	// logits afterwards if it is asked for them. An error empties the batch.
	Add(tok Token, pos, seq int, logits bool) error
	// Decode computes the batch and empties it.
	Decode() error
	// Clear drops a sequence from the cache.
	Clear(seq int) error
}

// A Sequence is a prompt to be continued. Its functions are called on the loop's
// thread, one at a time; every microsecond they take is one in which nobody's token is
// computed.
type Sequence struct {
	Prompt []Token // at least one, at most the context less one
	Max    int     // tokens to write, at least 1; with the prompt at most the context
	// Sample chooses the next token from the logits of entry i of the batch.
	Sample func(i int) (Token, error)
	// Emit takes a token that was written. It reports false to end the sequence.
	Emit func(tok Token) bool
	// Ends reports whether a token ends the answer. It is not emitted.
	Ends func(tok Token) bool
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
	End End
	Out int // tokens written, without the one that ended it
}

// ErrStopped is what a sequence fails with when the loop ends before it does.
var ErrStopped = errors.New("the engine is stopping")

// A Loop decodes what is submitted to it. [Loop.Run] must be running.
type Loop struct {
	Model  Model
	Limits Limits
	// AfterStep is called on the loop's thread when a step's tokens have been emitted.
	// May be nil.
	AfterStep func()

	mu      sync.Mutex // guards the fields below
	arrived []*run
	stopped bool
	wake    chan struct{} // has room for one; made on first use
}

// A run is a sequence on its way through the loop. Only the loop touches it after it
// has been submitted.
type run struct {
	Sequence
	ctx    context.Context //nolint:containedctx // a run is a call in flight, not a part of the loop
	done   chan struct{}   // closed when result and err are final
	result Result
	err    error

	slot   int     // its number in the cache; -1 while it has none
	tokens []Token // prompt and answer
	cached int     // of tokens
	logits int     // index in the batch of its last token; -1 if it is not there
}

// Do decodes seq until it ends or ctx does. It returns the cause of ctx then; what has
// been written so far counts in the result.
func (l *Loop) Do(ctx context.Context, seq Sequence) (Result, error) {
	switch {
	case len(seq.Prompt) == 0, seq.Max < 1, len(seq.Prompt)+seq.Max > l.Limits.Context:
		return Result{}, fmt.Errorf("a sequence of %d+%d tokens in a context of %d", len(seq.Prompt), seq.Max, l.Limits.Context)
	}
	r := &run{Sequence: seq, ctx: ctx, done: make(chan struct{}), slot: -1}
	r.tokens = append(make([]Token, 0, len(seq.Prompt)+min(seq.Max, 4096)), seq.Prompt...)
	if !l.submit(r) {
		return Result{}, ErrStopped
	}
	// When ctx ends the loop sees it before its next step: waiting for that keeps the
	// sequence's functions from being called after Do has returned.
	<-r.done
	return r.result, r.err
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
	stop := context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.signalLocked()
	})
	defer stop()

	var runs []*run // oldest first
	for {
		arrived, err := l.next(ctx, len(runs) == 0)
		runs = append(runs, arrived...)
		if err != nil {
			for _, r := range runs {
				l.finish(r, ErrStopped)
			}
			return nil
		}
		if runs = l.leave(runs); len(runs) == 0 {
			continue
		}
		l.step(runs)
		runs = l.leave(runs)
		if l.AfterStep != nil {
			l.AfterStep()
		}
	}
}

// next returns what has been submitted; it waits for something if idle.
func (l *Loop) next(ctx context.Context, idle bool) ([]*run, error) {
	for {
		l.mu.Lock()
		if l.wake == nil {
			l.wake = make(chan struct{}, 1)
		}
		arrived := l.arrived
		l.arrived = nil
		if ctx.Err() != nil {
			l.stopped = true
		}
		l.mu.Unlock()
		if ctx.Err() != nil {
			return arrived, context.Cause(ctx)
		}
		if len(arrived) > 0 || !idle {
			return arrived, nil
		}
		<-l.wake
	}
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

// finish ends a run and frees its cache.
func (l *Loop) finish(r *run, err error) {
	if r.finished() {
		return
	}
	r.err = errors.Join(err, l.park(r))
	close(r.done)
}

// park takes a run's cache away. It must read its tokens again to go on.
func (l *Loop) park(r *run) error {
	if r.slot < 0 {
		return nil
	}
	slot := r.slot
	r.slot, r.cached = -1, 0
	if err := l.Model.Clear(slot); err != nil {
		return fmt.Errorf("clear sequence %d: %w", slot, err)
	}
	return nil
}

// step decodes once, and deals with what came out.
func (l *Loop) step(runs []*run) {
	views := make([]view, len(runs))
	for i, r := range runs {
		views[i] = view{cached: r.cached, known: len(r.tokens)}
	}
	s := plan(l.Limits, views)
	for _, i := range s.park {
		if err := l.park(runs[i]); err != nil {
			l.finish(runs[i], err)
		}
	}
	if err := l.decode(runs, s.feed); err != nil {
		// The step is undone for all of its sequences; which of them is to blame cannot
		// be told.
		for i, r := range runs {
			if s.feed[i] > 0 {
				l.finish(r, fmt.Errorf("decode: %w", err))
			}
		}
		return
	}
	for i, r := range runs {
		r.cached += s.feed[i]
		if r.logits >= 0 {
			l.write(r)
		}
	}
}

// decode feeds every run as many of its pending tokens as the plan says.
func (l *Loop) decode(runs []*run, feed []int) error {
	entry := 0
	for i, r := range runs {
		r.logits = -1
		if feed[i] == 0 {
			continue
		}
		if r.slot < 0 {
			r.slot = freeSlot(runs)
		}
		for j, tok := range r.tokens[r.cached : r.cached+feed[i]] {
			pos := r.cached + j
			last := pos == len(r.tokens)-1
			if err := l.Model.Add(tok, pos, r.slot, last); err != nil {
				return err
			}
			if last {
				r.logits = entry
			}
			entry++
		}
	}
	return l.Model.Decode()
}

// freeSlot returns the lowest number that no run has. The plan lets in no more runs
// than there are.
func freeSlot(runs []*run) int {
	for slot := 0; ; slot++ {
		taken := false
		for _, r := range runs {
			taken = taken || r.slot == slot
		}
		if !taken {
			return slot
		}
	}
}

// write chooses a run's next token and hands it on.
func (l *Loop) write(r *run) {
	tok, err := r.Sample(r.logits)
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
		case !r.Emit(tok):
			r.result.End = Stopped
			l.finish(r, nil)
		case r.result.Out == r.Max:
			r.result.End = Reached
			l.finish(r, nil)
		}
	}
}
