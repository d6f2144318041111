// Package encode computes a vector or a score for each of many token sequences, as many at
// once as one batch holds. It knows tokens, not texts, and not what the numbers are for.
//
// What goes into a batch is decided by a pure function (plan.go); the [Loop] carries it
// out on one OS thread, which is the only one that touches the context.
package encode

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/progress"
)

// Token is an index into a model's vocabulary.
type Token = int32

// A Model is the context that a loop computes on. All calls come from one OS thread.
type Model interface {
	// Add puts a token of a sequence at a position into the next batch.
	Add(tok Token, pos, seq int, logits bool) error
	// Decode computes the batch and empties it.
	Decode() error
	// AppendVector appends the first n numbers that a sequence of the batch has come to.
	AppendVector(dst []float32, seq, n int) ([]float32, error)
	// ClearAll forgets the batch.
	ClearAll() error
}

// ErrStopped is what a job fails with when the loop ends before it does.
var ErrStopped = errors.New("the engine is stopping")

// A Loop computes what is submitted to it. [Loop.Run] must be running.
type Loop struct {
	Model  Model
	Limits Limits
	Width  int // numbers that a sequence comes to

	// Turn runs what it is given when nobody else computes on this machine. Nil is at once.
	Turn func(compute func())
	// Threads that compute; 0 is 1. FirstToken is the time of a batch of one token as long as
	// none is known; 0 is not known. Both only say how much CPU time a batch should take.
	Threads    int
	FirstToken time.Duration
	// Progress says how far the loop is, to any goroutine.
	Progress progress.Progress
	// Longest is how long a batch of several sequences should take, so that whoever else wants a
	// turn gets one soon; 0 is as long as it may.
	Longest time.Duration

	// Of the thread of Run.
	token float64  // seconds that a token takes, on average of the last batches
	calls []uint64 // of the batch that is being computed

	mu      sync.Mutex // guards the fields below
	arrived []*job
	stopped bool
	wake    chan struct{} // has room for one; made on first use
	stats   Stats
}

// Stats is what a loop has to do and has done.
type Stats struct {
	Sequences int // of calls of Do that have not returned
	Steps     int64
	Tokens    int64         // of all steps
	Step      time.Duration // that one takes of late
}

// Stats returns a copy.
func (l *Loop) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats
}

// A job is a call of Do on its way through the loop. Only the loop touches it after it has
// been submitted.
type job struct {
	call    uint64
	ctx     context.Context //nolint:containedctx // a job is a call in flight, not a part of the loop
	inputs  [][]Token
	lengths []int
	results [][]float32
	err     error
	done    chan struct{} // closed when results and err are final
}

// Do computes the numbers of every sequence of a call, in their order. Call 0 has no number. Each
// sequence must have 1 to
// Limits.Tokens tokens. It returns the cause of ctx if that ends first.
func (l *Loop) Do(ctx context.Context, call uint64, inputs [][]Token) ([][]float32, error) {
	j := &job{call: call, ctx: ctx, inputs: inputs, done: make(chan struct{})}
	for i, tokens := range inputs {
		if len(tokens) == 0 || len(tokens) > l.Limits.Tokens {
			return nil, fmt.Errorf("sequence %d has %d tokens, it must have 1 to %d", i, len(tokens), l.Limits.Tokens)
		}
		j.lengths = append(j.lengths, len(tokens))
	}
	if len(inputs) == 0 {
		return nil, nil
	}
	if !l.submit(j) {
		return nil, ErrStopped
	}
	<-j.done // when ctx ends the loop sees it before its next batch
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats.Sequences -= len(inputs)
	return j.results, j.err
}

func (l *Loop) submit(j *job) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return false
	}
	l.arrived = append(l.arrived, j)
	l.stats.Sequences += len(j.inputs)
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

// Run computes until ctx ends, then fails what is left. It keeps its OS thread for itself.
func (l *Loop) Run(ctx context.Context) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	stop := context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.signalLocked()
	})
	defer stop()

	var jobs []*job // oldest first
	for first := 0; ; first++ {
		arrived, err := l.next(ctx, len(jobs) == 0)
		jobs = append(jobs, arrived...)
		if err != nil {
			for _, j := range jobs {
				j.finish(ErrStopped)
			}
			return nil
		}
		if jobs = leave(jobs); len(jobs) > 0 {
			l.step(jobs, first)
			jobs = leave(jobs)
		}
	}
}

// next returns what has been submitted; it waits for something if idle.
func (l *Loop) next(ctx context.Context, idle bool) ([]*job, error) {
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
		l.Progress.Enter(progress.Idle)
		<-l.wake
		l.Progress.Enter(progress.Plan)
	}
}

// leave lets those go that have all their results, or that nobody waits for any more.
func leave(jobs []*job) []*job {
	kept := jobs[:0]
	for _, j := range jobs {
		switch {
		case j.err != nil:
		case j.ctx.Err() != nil:
			j.finish(context.Cause(j.ctx))
		case len(j.results) == len(j.inputs):
			j.finish(nil)
		default:
			kept = append(kept, j)
		}
	}
	clear(jobs[len(kept):])
	return kept
}

func (j *job) finish(err error) {
	if err != nil {
		j.results = nil
	}
	j.err = err
	close(j.done)
}

// step computes one batch.
func (l *Loop) step(jobs []*job, first int) {
	left := make([][]int, len(jobs))
	for i, j := range jobs {
		left[i] = j.lengths[len(j.results):]
	}
	take := plan(l.limits(), left, first%len(jobs))
	took, err := l.compute(jobs, take)
	l.count(left, take, took)
	if err != nil {
		// Which of them is to blame cannot be told.
		for i, j := range jobs {
			if take[i] > 0 {
				j.finish(fmt.Errorf("encode: %w", err))
			}
		}
	}
}

// limits are those of the next batch.
func (l *Loop) limits() Limits {
	limits := l.Limits
	if l.Longest > 0 && l.token > 0 {
		most := max(1, int(l.Longest.Seconds()/l.token))
		limits.Batch = min(cmp.Or(limits.Batch, limits.Tokens), most)
	}
	return limits
}

// count notes a step, before anybody is told of its results.
func (l *Loop) count(left [][]int, take []int, took time.Duration) {
	total := 0
	for i, lengths := range left {
		for _, n := range lengths[:take[i]] {
			total += n
		}
	}
	each := took.Seconds() / float64(max(total, 1))
	if l.token == 0 {
		l.token = each
	}
	l.token += (each - l.token) / recent
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats.Steps++
	if l.stats.Step == 0 {
		l.stats.Step = took
	}
	l.stats.Step += (took - l.stats.Step) / recent
	l.stats.Tokens += int64(total)
}

// recent is how many steps are looked back at for what one takes, roughly.
const recent = 8

// expected is the CPU time that a batch of so many tokens should take; 0 is not known.
func (l *Loop) expected(tokens int) time.Duration {
	token := cmp.Or(l.token, l.FirstToken.Seconds())
	return time.Duration(token * float64(tokens*max(l.Threads, 1)) * float64(time.Second))
}

// compute returns how long it has computed.
func (l *Loop) compute(jobs []*job, take []int) (took time.Duration, err error) {
	if err := l.Model.ClearAll(); err != nil {
		return 0, err
	}
	seq, total := 0, 0
	l.calls = l.calls[:0]
	for i, j := range jobs {
		if take[i] > 0 {
			l.calls = append(l.calls, j.call)
		}
		for _, tokens := range j.inputs[len(j.results):][:take[i]] {
			for pos, tok := range tokens {
				if err := l.Model.Add(tok, pos, seq, true); err != nil {
					return 0, err
				}
			}
			seq++
			total += len(tokens)
		}
	}
	decode := func() {
		begin := time.Now()
		l.Progress.Enter(progress.Decode)
		err = l.Model.Decode()
		took = time.Since(begin)
	}
	l.Progress.Begin(l.calls, l.expected(total))
	if l.Turn != nil {
		l.Progress.Enter(progress.Lock)
		l.Turn(decode)
	} else {
		decode()
	}
	l.Progress.End()
	l.Progress.Enter(progress.Plan)
	if err != nil {
		return took, err
	}
	seq = 0
	for i, j := range jobs {
		for range take[i] {
			v, err := l.Model.AppendVector(make([]float32, 0, l.Width), seq, l.Width)
			if err != nil {
				return took, err
			}
			j.results = append(j.results, v)
			seq++
		}
	}
	return took, nil
}
