package batch_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/batch"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/budget"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/progress"
)

// detached returns a sequence with choices, each of which takes that time, and a counter of the
// choices.
func (m *toy) detached(owner string, first, prompt, most int, out *[]batch.Token, takes time.Duration) (batch.Sequence, *atomic.Int64) {
	var count atomic.Int64
	seq := m.of(owner, first, prompt, most, out)
	seq.Ends = func(batch.Token) bool { return false }
	seq.Sample = nil
	seq.Detach = func(i int) (func() (batch.Token, error), error) {
		tok, err := m.sample(i)
		return func() (batch.Token, error) {
			count.Add(1)
			time.Sleep(takes)
			return tok, nil
		}, err
	}
	return seq, &count
}

// bubble runs a test and a loop on a fake clock. A step takes a millisecond, and CPU time is
// wall time.
func bubble(t *testing.T, l batch.Limits, test func(t *testing.T, loop *batch.Loop, m *toy)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		m := newToy(t)
		m.slow = func() { time.Sleep(time.Millisecond) }
		loop := &batch.Loop{Decoder: m, Memory: m, Limits: l, Samples: &budget.CPU{Clock: func(int) time.Duration { return time.Since(began) }}}
		run(t, loop, m)
		test(t, loop, m)
	})
}

// Each sequence gets its own answer, and each token is sampled once, while sequences pause, end or
// lose their cells.
func TestDetachedLife(t *testing.T) {
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	for name, limits := range map[string]batch.Limits{
		"room for all":         {Context: 8000, Batch: 64, Sequences: 4, Retained: 4},
		"little room":          {Context: 500, Batch: 64, Sequences: 4, Retained: 4},
		"room for two":         {Context: 300, Batch: 64, Sequences: 4, Retained: 2},
		"one at a time":        {Context: 300, Batch: 16, Sequences: 1, Retained: 1},
		"one, nothing is kept": {Context: 270, Batch: 16, Sequences: 1},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, limits, func(t *testing.T, loop *batch.Loop, m *toy) {
				t.Helper()
				m.abort = make(chan struct{}, 1000) // no step is aborted by it
				var all sync.WaitGroup
				for i := range 10 {
					all.Go(func() {
						r := rand.New(rand.NewPCG(1, uint64(i)))
						for round := range rounds {
							detachedLife(t, loop, m, i, round, r)
						}
					})
				}
				all.Wait()
				time.Sleep(time.Second) // the last timers end
			})
		})
	}
}

func detachedLife(t *testing.T, loop *batch.Loop, m *toy, i, round int, r *rand.Rand) {
	t.Helper()
	first, prompt, most := 100_000*i+1000*round, 1+r.IntN(200), 1+r.IntN(60)
	var out []batch.Token
	takes := []time.Duration{0, 100 * time.Microsecond, 700 * time.Microsecond, 20 * time.Millisecond}[r.IntN(4)]
	seq, count := m.detached(fmt.Sprint(i%3), first, prompt, most, &out, takes)
	if i%4 == 0 { // ordinary
		seq.Detach, seq.Sample = nil, m.sample
	}
	var held atomic.Bool
	seq.Paused = held.Load
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	leaves := r.IntN(4) == 0
	timer := time.AfterFunc(time.Duration(r.IntN(30_000))*time.Microsecond, func() {
		if leaves {
			cancel()
		}
		held.Store(true)
		loop.Wake()
		time.Sleep(10 * time.Millisecond)
		held.Store(false)
		loop.Wake()
	})
	defer timer.Stop()
	got, err := loop.Do(ctx, seq)
	if left := leaves && errors.Is(err, context.Canceled); !left && (err != nil || got.Out != most && got.End != batch.Stopped) {
		t.Errorf("%d.%d: %+v, %v", i, round, got, err)
	}
	if n := int(count.Load()); seq.Detach != nil && (n < got.Out || n > got.Out+1) {
		t.Errorf("%d.%d: %d samples for %d tokens", i, round, n, got.Out)
	}
	for j, tok := range out {
		if tok != batch.Token(first+prompt+j) {
			t.Errorf("%d.%d wrote %v", i, round, out)
			break
		}
	}
}

// Slow choices delay no stream, and their own sequences progress.
func TestSlowSamplesDelayNoStream(t *testing.T) {
	bubble(t, wide2, func(t *testing.T, loop *batch.Loop, m *toy) {
		t.Helper()
		var last time.Time
		var longest time.Duration
		var out []batch.Token
		stream := m.of("stream", 1_000_000, 5, 3000, &out)
		stream.Ends = func(batch.Token) bool { return false }
		stream.Emit = func(batch.Token, int) bool {
			if !last.IsZero() {
				longest = max(longest, time.Since(last))
			}
			last = time.Now()
			return true
		}
		ctx, cancel := context.WithCancel(t.Context())
		var slow sync.WaitGroup
		var written atomic.Int64
		for i := range 6 {
			slow.Go(func() {
				seq, _ := m.detached("slow", 1000*i, 5, 900, &[]batch.Token{}, 80*time.Millisecond)
				seq.Emit = func(batch.Token, int) bool { written.Add(1); return true }
				_, _ = loop.Do(ctx, seq)
			})
		}
		began := time.Now()
		if got, err := loop.Do(t.Context(), stream); err != nil || got.Out != 3000 {
			t.Errorf("the stream: %+v, %v", got, err)
		}
		took := time.Since(began)
		cancel()
		slow.Wait()
		if longest > 2*time.Millisecond || took > 3200*time.Millisecond {
			t.Errorf("the stream took %v, its longest gap was %v", took, longest)
		}
		if least := int64(took/(85*time.Millisecond)) - 1; written.Load() < least {
			t.Errorf("the others wrote %d tokens, want %d", written.Load(), least)
		}
	})
}

var wide2 = batch.Limits{Context: 100_000, Batch: 512, Sequences: 16, Retained: 4}

// A sequence with fast choices takes part in every step.
func TestFastSamplesJoinEveryStep(t *testing.T) {
	bubble(t, wide2, func(t *testing.T, loop *batch.Loop, m *toy) {
		t.Helper()
		m.slow = func() { time.Sleep(10 * time.Millisecond) }
		var out, other []batch.Token
		ctx, cancel := context.WithCancel(t.Context())
		var stream sync.WaitGroup
		stream.Go(func() {
			seq := m.of("stream", 1_000_000, 5, 5000, &other)
			seq.Ends = func(batch.Token) bool { return false }
			_, _ = loop.Do(ctx, seq)
		})
		seq, _ := m.detached("fast", 1000, 5, 200, &out, time.Millisecond)
		seq.Emit = func(tok batch.Token, _ int) bool { out = append(out, tok); return true }
		began := time.Now()
		if got, err := loop.Do(t.Context(), seq); err != nil || got.Out != 200 {
			t.Errorf("Do = %+v, %v", got, err)
		}
		if took := time.Since(began); took > 203*11*time.Millisecond {
			t.Errorf("200 tokens took %v, want one each 11 ms", took)
		}
		cancel()
		stream.Wait()
	})
}

// Do returns at once when a sequence ends, although its choice continues.
func TestDetachedHangUp(t *testing.T) {
	bubble(t, wide2, func(t *testing.T, loop *batch.Loop, m *toy) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		var out []batch.Token
		seq, count := m.detached("a", 0, 5, 10, &out, time.Second)
		time.AfterFunc(100*time.Millisecond, cancel)
		began := time.Now()
		if got, err := loop.Do(ctx, seq); !errors.Is(err, context.Canceled) || got.Out != 0 {
			t.Errorf("Do = %+v, %v", got, err)
		}
		if took := time.Since(began); took != 100*time.Millisecond {
			t.Errorf("Do returned after %v", took)
		}
		next, _ := m.detached("a", 0, 5, 3, &out, time.Millisecond)
		if got, err := loop.Do(t.Context(), next); err != nil || got.Out != 3 || !slices.Equal(out, []batch.Token{5, 6, 7}) {
			t.Errorf("the next one: %+v, %v, %v", got, err, out)
		}
		if count.Load() != 1 {
			t.Errorf("%d samples", count.Load())
		}
	})
}

// A choice over its budget fails only its own call; another thread makes the other choices.
func TestSampleOverBudget(t *testing.T) {
	bubble(t, wide2, func(t *testing.T, loop *batch.Loop, m *toy) {
		t.Helper()
		var all sync.WaitGroup
		all.Go(func() {
			seq, _ := m.detached("endless", 0, 5, 10, &[]batch.Token{}, time.Minute)
			began := time.Now()
			if _, err := loop.Do(t.Context(), seq); !errors.Is(err, budget.ErrExceeded) {
				t.Errorf("Do = %v", err)
			}
			if took := time.Since(began); took < 5*time.Second || took > 5100*time.Millisecond {
				t.Errorf("it failed after %v", took)
			}
		})
		time.Sleep(time.Second)
		var out []batch.Token
		seq, _ := m.detached("other", 1000, 5, 10, &out, time.Millisecond)
		if got, err := loop.Do(t.Context(), seq); err != nil || got.Out != 10 {
			t.Errorf("the other: %+v, %v", got, err)
		}
		all.Wait()
		if _, running := loop.Samples.Overrun(); !running {
			t.Error("no overrun is reported")
		}
		time.Sleep(time.Minute)
		if _, running := loop.Samples.Overrun(); running {
			t.Error("an overrun is reported when the sample has returned")
		}
	})
}

// An owner with many slow choices delays a choice of another owner by at most one of them.
func TestOwnersTakeTurns(t *testing.T) {
	bubble(t, wide2, func(t *testing.T, loop *batch.Loop, m *toy) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		var slow sync.WaitGroup
		for i := range 6 {
			slow.Go(func() {
				seq, _ := m.detached("slow", 1000*i, 5, 900, &[]batch.Token{}, 80*time.Millisecond)
				_, _ = loop.Do(ctx, seq)
			})
		}
		time.Sleep(time.Second)
		var out []batch.Token
		seq, _ := m.detached("fast", 50_000, 5, 20, &out, time.Millisecond)
		began := time.Now()
		if got, err := loop.Do(t.Context(), seq); err != nil || got.Out != 20 {
			t.Errorf("Do = %+v, %v", got, err)
		}
		if took := time.Since(began); took > 20*85*time.Millisecond {
			t.Errorf("20 tokens took %v, want one slow sample each", took)
		}
		cancel()
		slow.Wait()
	})
}

// The time of choices is reported in units of the step of one token, without loss by rounding.
func TestCost(t *testing.T) {
	bubble(t, wide2, func(t *testing.T, loop *batch.Loop, m *toy) {
		t.Helper()
		for name, test := range map[string]struct {
			takes  time.Duration
			inside bool // Sample, not Detach
			want   int  // for 100 tokens
		}{
			"slow, beside the steps": {80 * time.Millisecond, false, 8000},
			"fast, beside the steps": {300 * time.Microsecond, false, 30},
			"fast, in the step":      {300 * time.Microsecond, true, 23}, // such a step takes 1.3 ms
		} {
			cost := 0
			seq, _ := m.detached("a", 1000, 5, 100, &[]batch.Token{}, test.takes)
			if test.inside {
				seq.Detach, seq.Sample = nil, func(i int) (batch.Token, error) { time.Sleep(test.takes); return m.sample(i) }
			}
			seq.Emit = func(_ batch.Token, c int) bool { cost += c; return true }
			if got, err := loop.Do(t.Context(), seq); err != nil || got.Out != 100 {
				t.Errorf("%s: Do = %+v, %v", name, got, err)
			}
			if cost < test.want*9/10-1 || cost > test.want*11/10+1 {
				t.Errorf("%s: cost %d, want %d", name, cost, test.want)
			}
		}
	})
}

// The loop ends, and fails its sequences, without waiting for an outstanding choice.
func TestDetachedStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newToy(t)
		loop := &batch.Loop{Decoder: m, Memory: m, Limits: wide2}
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() { _ = loop.Run(ctx) })
		all.Go(func() {
			seq, _ := m.detached("a", 0, 5, 10, &[]batch.Token{}, time.Hour)
			if _, err := loop.Do(t.Context(), seq); !errors.Is(err, batch.ErrStopped) {
				t.Errorf("Do = %v", err)
			}
		})
		time.Sleep(time.Second)
		began := time.Now()
		cancel()
		all.Wait()
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v", took)
		}
		time.Sleep(time.Hour) // the choice returns, and its thread ends
	})
}

// Progress is reported while a step hangs, with the calls of that step.
func TestProgress(t *testing.T) {
	bubble(t, wide2, func(t *testing.T, loop *batch.Loop, m *toy) {
		t.Helper()
		out := []batch.Token{}
		seq := m.of("a", 0, 5, 40, &out)
		seq.Call = 7
		if _, err := loop.Do(t.Context(), seq); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		before := loop.Progress.Report()
		if before.Phase != progress.Idle || before.Units < 40 || before.Calls != nil {
			t.Errorf("at rest: %+v", before)
		}
		hangs := make(chan struct{})
		m.slow = func() { <-hangs; time.Sleep(time.Millisecond) }
		var all sync.WaitGroup
		all.Go(func() { _, _ = loop.Do(t.Context(), seq) })
		time.Sleep(time.Minute)
		got := loop.Progress.Report()
		if got.Phase != progress.Decode || got.Units != before.Units || !slices.Equal(got.Calls, []uint64{7}) ||
			got.Since != time.Minute || got.CPU < time.Millisecond || got.CPU > 10*time.Millisecond {
			t.Errorf("in a step that hangs: %+v", got)
		}
		close(hangs)
		all.Wait()
	})
}
