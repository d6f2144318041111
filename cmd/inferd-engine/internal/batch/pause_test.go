package batch_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/batch"
)

// A paused sequence frees its slot for another one, keeps its text and its cells, and resumes
// where it paused.
func TestLoopPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		loop, m := start(t, batch.Limits{Context: 1000, Batch: 64, Sequences: 1, Retained: 2})
		var held atomic.Bool
		var out, other []batch.Token
		seq := m.ownedBy("a", 0, 100, 50, &out)
		seq.Paused = held.Load
		seq.Emit = func(tok batch.Token, _ int) bool {
			if out = append(out, tok); len(out) == 10 {
				held.Store(true)
			}
			return true
		}
		var all sync.WaitGroup
		all.Go(func() {
			if got, err := loop.Do(t.Context(), seq); err != nil || got.Out != 50 {
				t.Errorf("Do = %+v, %v", got, err)
			}
		})
		synctest.Wait()
		if len(out) != 10 {
			t.Errorf("it has written %d", len(out))
		}
		if got, err := loop.Do(t.Context(), m.ownedBy("b", 500, 100, 20, &other)); err != nil || got.Out != 20 {
			t.Errorf("the other one: %+v, %v", got, err)
		}
		if st := loop.Stats(); st.Parked != 1 || st.Sequences != 1 || len(st.Users) == 0 || st.Users[0].User != "a" || st.Users[0].KVTokens != 109 {
			t.Errorf("stats %+v", st)
		}
		held.Store(false)
		loop.Wake()
		all.Wait()
		if out[49] != 149 {
			t.Errorf("it wrote %v", out)
		}
		if read := m.read; read != 149+119 {
			t.Errorf("%d tokens were read", read)
		}
	})
}

// A paused sequence can be canceled.
func TestLoopPausedCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		loop, m := start(t, batch.Limits{Context: 1000, Batch: 64, Sequences: 1, Retained: 2})
		var out []batch.Token
		seq := m.ownedBy("a", 0, 10, 50, &out)
		seq.Paused = func() bool { return len(out) == 3 }
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() {
			if got, err := loop.Do(ctx, seq); !errors.Is(err, context.Canceled) || got.Out != 3 {
				t.Errorf("Do = %+v, %v", got, err)
			}
		})
		synctest.Wait()
		cancel()
		all.Wait()
	})
}

// After a long pause the cells of a sequence are retained and offloaded. When the sequence resumes,
// none of its tokens is decoded again.
func TestLoopLongPause(t *testing.T) {
	for _, repeats := range []bool{false, true} {
		t.Run(fmt.Sprint("repeats ", repeats), func(t *testing.T) { longPause(t, repeats) })
	}
}

func longPause(t *testing.T, repeats bool) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := newToy(t)
		m.faults = 0
		loop := &batch.Loop{Decoder: m, Memory: m, Limits: batch.Limits{Context: 1000, Batch: 64, Sequences: 1, Retained: 2, Offloaded: 1000}}
		run(t, loop, m)
		var paused atomic.Bool
		var out []batch.Token
		seq := m.ownedBy("a", 0, 100, 50, &out)
		seq.Paused, seq.Repeats = paused.Load, repeats
		seq.Emit = func(tok batch.Token, _ int) bool {
			if out = append(out, tok); len(out) == 10 {
				paused.Store(true)
			}
			return true
		}
		var all sync.WaitGroup
		all.Go(func() {
			if got, err := loop.Do(t.Context(), seq); err != nil || got.Out != 50 || out[49] != 149 {
				t.Errorf("Do = %+v, %v, %v", got, err, out)
			}
		})
		time.Sleep(900 * time.Millisecond)
		if st := loop.Stats(); st.KVUsed != 109 || st.Parked != 1 {
			t.Errorf("a short pause: %+v", st)
		}
		time.Sleep(time.Second)
		if st := loop.Stats(); st.KVUsed != 0 || st.KVStored != 109 || st.Parked != 1 || st.Dropped != 0 {
			t.Errorf("a long pause: %+v", st)
		}
		paused.Store(false)
		loop.Wake()
		all.Wait()
		if m.read != 149 {
			t.Errorf("%d tokens were decoded", m.read)
		}
	})
}
