package batch_test

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/batch"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/progress"
)

// bubble runs a loop during a test, with a fake clock. A step takes a millisecond.
func bubble(t *testing.T, l batch.Limits, test func(t *testing.T, loop *batch.Loop, m *toy)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := newToy(t)
		m.slow = func() { time.Sleep(time.Millisecond) }
		loop := &batch.Loop{Decoder: m, Memory: m, Limits: l}
		run(t, loop, m)
		test(t, loop, m)
	})
}

var wide2 = batch.Limits{Context: 100_000, Batch: 512, Sequences: 16, Retained: 4}

// The cost of the tokens adds up to the time of sampling and the time spent before, in units of the
// step of one token. Rounding loses nothing.
func TestCost(t *testing.T) {
	for name, test := range map[string]struct {
		takes, before time.Duration
		want          int // for 100 tokens; a step takes 1 ms plus the time of sampling
	}{
		"slow":               {80 * time.Millisecond, 0, 99},
		"fast":               {300 * time.Microsecond, 0, 23},
		"fast, with a start": {300 * time.Microsecond, 130 * time.Millisecond, 123},
	} {
		t.Run(name, func(t *testing.T) { // each case has its own loop, which measures its steps
			bubble(t, wide2, func(t *testing.T, loop *batch.Loop, m *toy) {
				t.Helper()
				cost := 0
				var out []batch.Token
				seq := m.ownedBy("a", 1000, 5, 100, &out)
				seq.Ends = func(batch.Token) bool { return false }
				seq.Spent = test.before
				seq.Sample = func(i int) (batch.Token, error) { time.Sleep(test.takes); return m.sample(i) }
				seq.Emit = func(_ batch.Token, c int) bool { cost += c; return true }
				if got, err := loop.Do(t.Context(), seq); err != nil || got.Out != 100 {
					t.Errorf("Do = %+v, %v", got, err)
				}
				if cost < test.want*9/10-1 || cost > test.want*11/10+1 {
					t.Errorf("cost %d, want %d", cost, test.want)
				}
			})
		})
	}
}

// At rest the report of progress has no calls. While a step hangs, it has the phase, the calls and
// the estimated CPU time of that step.
func TestProgress(t *testing.T) {
	bubble(t, wide2, func(t *testing.T, loop *batch.Loop, m *toy) {
		t.Helper()
		out := []batch.Token{}
		seq := m.ownedBy("a", 0, 5, 40, &out)
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
