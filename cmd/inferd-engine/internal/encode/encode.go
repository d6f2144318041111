// Package encode computes a vector or a score for each of many token sequences, as many at
// once as one batch holds. It handles tokens, not texts, and is independent of the purpose of
// the numbers.
//
// A pure function plans each batch (plan.go); the [Loop] computes it on one OS thread. No other
// thread uses the context.
package encode

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/inferd-go/inferd/client/stats"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/inbox"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/progress"
)

// Token is an index into a model's vocabulary.
type Token = int32

// A Model is the context of a loop. All calls come from one OS thread.
type Model interface {
	// Add puts a token of a sequence at a position into the next batch.
	Add(tok Token, pos, seq int, logits bool) error
	// Decode computes the batch and empties it.
	Decode() error
	// AppendVector appends the first n values of the result of a sequence of the batch.
	AppendVector(dst []float32, seq, n int) ([]float32, error)
	// ClearAll drops the batch.
	ClearAll() error
}

// ErrStopped is the error of a job that is unfinished when the loop ends, or is submitted later.
var ErrStopped = errors.New("the engine is stopping")

// A Loop computes the inputs that are passed to [Loop.Do] while [Loop.Run] runs.
type Loop struct {
	Model  Model
	Limits Limits
	Width  int // number of values in a result

	// Exclusive waits until no other loop or engine computes on these cores, then calls compute. If
	// it is nil, the loop computes at once.
	Exclusive func(compute func())
	// Threads is the number of computing threads; 0 means 1. FirstToken is the assumed time of a
	// batch of one token, until a batch is measured; 0 means unknown. Both are used only to
	// estimate the CPU time of a batch.
	Threads    int
	FirstToken time.Duration
	// Progress is the progress of the loop. Any goroutine may read it.
	Progress progress.Progress
	// Longest is the target for the time of a batch of several sequences, so that other loops and
	// engines get the cores soon; 0 is no bound.
	Longest time.Duration

	jobs inbox.Inbox[*job]

	// Used by the thread of Run only.
	token float64  // seconds per token, a moving average over batches
	calls []uint64 // of the batch under way

	mu    sync.Mutex // guards stats
	stats stats.Engine
}

// Stats returns the number of sequences that are waiting or being computed, and counters of the
// work so far. StepMS is a moving average.
func (l *Loop) Stats() stats.Engine {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats
}

// A job is a call of Do in the loop. After its submission only the loop uses it.
type job struct {
	call    uint64
	ctx     context.Context //nolint:containedctx // a job lives as long as its call
	inputs  [][]Token
	lengths []int
	results [][]float32
	err     error
	done    chan struct{} // closed when results and err are final
}

// Do computes the result of every input, in their order. call is the number of the call, for
// Progress; 0 means none. Each input must have 1 to Limits.Tokens tokens. If ctx ends first, Do
// returns its cause. Any goroutine may call Do.
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
	l.addSequences(len(inputs))
	defer l.addSequences(-len(inputs))
	if !l.jobs.Submit(j) {
		return nil, ErrStopped
	}
	<-j.done // the loop notices the end of ctx before its next batch
	return j.results, j.err
}

func (l *Loop) addSequences(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats.Sequences += n
}

// Run computes until ctx ends, then fails the remaining jobs. It locks its OS thread.
func (l *Loop) Run(ctx context.Context) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	stop := context.AfterFunc(ctx, l.jobs.Wake)
	defer stop()

	var jobs []*job // oldest first
	for first := 0; ; first++ {
		jobs = append(jobs, l.next(ctx, len(jobs) == 0)...)
		if ctx.Err() != nil {
			settle(append(jobs, l.jobs.Close()...), ErrStopped)
			return nil
		}
		if jobs = settle(jobs, nil); len(jobs) > 0 {
			l.step(jobs, first)
			jobs = settle(jobs, nil)
		}
	}
}

// next returns the submitted jobs. If idle is set, it waits for one, or for the end of ctx.
func (l *Loop) next(ctx context.Context, idle bool) []*job {
	arrived := l.jobs.Take()
	if len(arrived) > 0 || !idle {
		return arrived
	}
	l.Progress.Enter(progress.Idle)
	for len(arrived) == 0 && ctx.Err() == nil {
		l.jobs.Wait()
		arrived = l.jobs.Take()
	}
	l.Progress.Enter(progress.Plan)
	return arrived
}

// settle ends the jobs that have failed, are canceled or have all their results, and returns the
// others. If stop is not nil, it ends all jobs, with stop as the error of those that have not failed.
// No other function ends a job.
func settle(jobs []*job, stop error) []*job {
	kept := jobs[:0]
	for _, j := range jobs {
		switch {
		case j.err != nil:
		case stop != nil:
			j.err = stop
		case j.ctx.Err() != nil:
			j.err = context.Cause(j.ctx)
		case len(j.results) < len(j.inputs):
			kept = append(kept, j)
			continue
		}
		if j.err != nil {
			j.results = nil
		}
		close(j.done)
	}
	clear(jobs[len(kept):])
	return kept
}

// step plans and computes one batch. first, modulo the number of jobs, is the index of the job with
// the first turn.
func (l *Loop) step(jobs []*job, first int) {
	left := make([][]int, len(jobs))
	for i, j := range jobs {
		left[i] = j.lengths[len(j.results):]
	}
	take := plan(l.limits(), left, first%len(jobs))
	took, err := l.compute(jobs, take)
	l.count(left, take, took)
	if err != nil {
		// llama.cpp does not name the sequence that caused the error.
		for i, j := range jobs {
			if take[i] > 0 {
				j.err = fmt.Errorf("encode: %w", err)
			}
		}
	}
}

// limits returns the limits of the next batch, which takes about Longest at most.
func (l *Loop) limits() Limits {
	limits := l.Limits
	if l.Longest > 0 && l.token > 0 {
		most := max(1, int(l.Longest.Seconds()/l.token))
		limits.Batch = min(cmp.Or(limits.Batch, limits.Tokens), most)
	}
	return limits
}

// count updates the stats after a step, before its results are returned.
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
	ms := float64(took) / float64(time.Millisecond)
	if l.stats.StepMS == 0 {
		l.stats.StepMS = ms
	}
	l.stats.StepMS += (ms - l.stats.StepMS) / recent
	l.stats.PrefillTokens += int64(total)
}

// recent is the approximate number of steps in a moving average.
const recent = 8

// expected returns the estimated CPU time of a batch with the given number of tokens; 0 means
// unknown.
func (l *Loop) expected(tokens int) time.Duration {
	token := cmp.Or(l.token, l.FirstToken.Seconds())
	return time.Duration(token * float64(tokens*max(l.Threads, 1)) * float64(time.Second))
}

// compute decodes a batch and appends the results to the jobs. took is the time of the decoding
// only.
func (l *Loop) compute(jobs []*job, take []int) (took time.Duration, err error) {
	total, err := l.addBatch(jobs, take)
	if err != nil {
		return 0, err
	}
	decode := func() {
		begin := time.Now()
		l.Progress.Enter(progress.Decode)
		err = l.Model.Decode()
		took = time.Since(begin)
	}
	l.Progress.Begin(l.calls, l.expected(total))
	if l.Exclusive != nil {
		l.Progress.Enter(progress.Lock)
		l.Exclusive(decode)
	} else {
		decode()
	}
	l.Progress.End()
	l.Progress.Enter(progress.Plan)
	if err != nil {
		return took, err
	}
	seq := 0
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

// addBatch adds the next batch to the model, and returns its number of tokens.
func (l *Loop) addBatch(jobs []*job, take []int) (total int, err error) {
	if err := l.Model.ClearAll(); err != nil {
		return 0, err
	}
	seq := 0
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
	return total, nil
}
