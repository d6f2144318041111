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
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/prefill"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/schedule"
)

// wide has room for all sequences of a test.
var wide = batch.Limits{Context: 100_000, Batch: 512, Sequences: 4, Retained: 4}

// withWorker runs a loop during a test, with a prefill worker that has room for the given number of
// tokens. stall is Loop.Stall. m is the model of the loop, n that of the worker.
func withWorker(t *testing.T, l batch.Limits, tokens int, stall time.Duration) (loop *batch.Loop, m, n *toy) {
	t.Helper()
	m, n = newToy(t), newToy(t)
	m.slow = func() { time.Sleep(time.Duration(len(m.last)) * 50 * time.Microsecond) } // a step takes time in proportion to its tokens
	worker, err := prefill.Start(tokens, l.Sequences, n.context)
	if err != nil {
		t.Fatal(err)
	}
	loop = &batch.Loop{Decoder: m, Memory: m, Limits: l, Prefill: worker, Stall: stall}
	t.Cleanup(func() {
		if n.closed != 1 {
			t.Errorf("the worker's context was closed %d times", n.closed)
		}
		for _, step := range n.steps {
			if len(step) > schedule.ChunkTokens {
				t.Errorf("the worker decoded %d tokens at once", len(step))
			}
		}
	})
	run(t, loop, m) // the loop ends before the cleanup above
	return loop, m, n
}

// context returns the toy as the context of a prefill worker.
func (m *toy) context() (prefill.Context, error) {
	return prefill.Context{Decoder: m, Memory: m, Close: m.Close}, nil
}

// streaming decodes a stream until stop is called, and adds the number of its tokens to count. It
// returns once the stream has begun.
func streaming(t *testing.T, loop *batch.Loop, m *toy, count *atomic.Int64) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	var out []batch.Token
	begun := make(chan struct{})
	seq := m.ownedBy("writer", 1_000_000, 5, loop.Room()/2, &out)
	seq.Ends = func(batch.Token) bool { return false }
	seq.Emit = func(batch.Token, int) bool {
		if count.Add(1) == 3 {
			close(begun)
		}
		return true
	}
	all.Go(func() {
		if _, err := loop.Do(ctx, seq); !errors.Is(err, context.Canceled) {
			t.Errorf("the stream ended: %v", err)
		}
	})
	<-begun
	return func() { cancel(); all.Wait() }
}

// A long prompt beside a stream is decoded by the worker while the stream continues, and its
// answer is right.
func TestOffload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		loop, m, n := withWorker(t, wide, 2000, 2*time.Millisecond)
		var written atomic.Int64
		n.slow = func() { // a batch of the worker takes as long as five tokens of the stream
			for from := written.Load(); written.Load() < from+5; {
				time.Sleep(100 * time.Microsecond)
			}
		}
		stop := streaming(t, loop, m, &written)
		var out []batch.Token
		got, err := loop.Do(t.Context(), m.ownedBy("reader", 0, 900, 3, &out))
		if err != nil || got.Out != 3 || !slices.Equal(out, []batch.Token{900, 901, 902}) {
			t.Errorf("Do = %+v, %v, wrote %v", got, err, out)
		}
		// The cells of that sequence can be reused as a prefix.
		out = nil
		got, err = loop.Do(t.Context(), m.ownedBy("reader", 0, 950, 3, &out))
		if err != nil || got.Cached < 900 || !slices.Equal(out, []batch.Token{950, 951, 952}) {
			t.Errorf("the next one: %+v, %v, wrote %v", got, err, out)
		}
		stop()
		if n.read < 899 || written.Load() < 30 {
			t.Errorf("the worker decoded %d tokens, the stream %d", n.read, written.Load())
		}
	})
}

// With a worker, each sequence gets its own answer in spite of pauses, cancels and failures.
func TestOffloadLife(t *testing.T) {
	for _, size := range []int{8000, 900, 500} {
		t.Run(fmt.Sprintf("context %d", size), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { offloadLife(t, size) })
		})
	}
}

func offloadLife(t *testing.T, size int) {
	t.Helper()
	loop, m, n := withWorker(t, batch.Limits{Context: size, Batch: 64, Sequences: 4, Retained: 4, Offloaded: size}, 400, 2*time.Millisecond)
	decoded := 0
	n.slow = func() {
		time.Sleep(time.Duration(len(n.last)) * 80 * time.Microsecond)
		if decoded++; decoded%9 == 0 {
			n.fail = errors.New("it fails now and then")
		}
	}
	n.abort, m.abort = make(chan struct{}, 1000), make(chan struct{}, 1000)
	rounds := 12
	if testing.Short() {
		rounds = 4
	}
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			for round := range rounds {
				first, prompt, most := 100_000*i+1000*round, 1+r.IntN(200), 1+r.IntN(60)
				var out []batch.Token
				seq := m.ownedBy(fmt.Sprint(i%3), first, prompt, most, &out)
				seq.Ends = func(batch.Token) bool { return false }
				var held atomic.Bool
				seq.Paused = held.Load
				ctx, cancel := context.WithCancel(t.Context())
				leaves := r.IntN(4) == 0
				timer := time.AfterFunc(time.Duration(r.IntN(3000))*time.Microsecond, func() {
					if leaves {
						cancel()
					}
					held.Store(true)
					loop.Wake()
					time.Sleep(time.Millisecond)
					held.Store(false)
					loop.Wake()
				})
				got, err := loop.Do(ctx, seq)
				timer.Stop()
				cancel()
				if left := leaves && errors.Is(err, context.Canceled); !left && (err != nil || got.Out != most) {
					t.Errorf("%d.%d: %+v, %v", i, round, got, err)
				}
				for j, tok := range out {
					if tok%1000 != 777 && tok != batch.Token(first+prompt+j) {
						t.Errorf("%d.%d wrote %v", i, round, out)
						break
					}
				}
			}
		})
	}
	all.Wait()
	if st := loop.Stats(); st.PrefillOffloaded == 0 || st.Aborted == 0 && len(n.abort) > 0 || decoded < 9 {
		t.Errorf("the worker decoded %d times: %+v", decoded, st)
	}
}

// Canceling a sequence at the worker aborts the worker's job, and affects no other sequence.
func TestOffloadCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		loop, m, n := withWorker(t, wide, 2000, 2*time.Millisecond)
		reading := make(chan struct{})
		n.abort = make(chan struct{}, 1)
		n.slow = func() {
			close(reading)
			<-n.abort
			n.fail, n.slow = errors.New("aborted"), nil
		}
		var written atomic.Int64
		stop := streaming(t, loop, m, &written)
		defer stop()
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-reading
			cancel()
		}()
		var out []batch.Token
		if _, err := loop.Do(ctx, m.ownedBy("reader", 0, 900, 3, &out)); !errors.Is(err, context.Canceled) {
			t.Errorf("Do = %v", err)
		}
		if got, err := loop.Do(t.Context(), m.ownedBy("reader", 0, 900, 3, &out)); err != nil || got.Out != 3 {
			t.Errorf("the next one: %+v, %v", got, err)
		}
	})
}

// The loop does not wait for an overdue job of the worker.
func TestOffloadOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		loop, m, n := withWorker(t, wide, 2000, 0)
		stuck := make(chan struct{})
		n.abort = make(chan struct{}, 1)
		n.slow = func() { <-stuck }
		m.slow = func() { time.Sleep(10 * time.Millisecond) }
		var written atomic.Int64
		stop := streaming(t, loop, m, &written)
		begin := time.Now()
		var out []batch.Token
		got, err := loop.Do(t.Context(), m.ownedBy("reader", 0, 900, 3, &out))
		if err != nil || got.Out != 3 || !slices.Equal(out, []batch.Token{900, 901, 902}) {
			t.Errorf("Do = %+v, %v, wrote %v", got, err, out)
		}
		if took := time.Since(begin); took > 30*time.Second {
			t.Errorf("it took %v", took)
		}
		stop()
		close(stuck)
	})
}

// Without a stream, a short prompt does not wait for the worker's job.
func TestShortPromptBesideJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		loop, m, n := withWorker(t, wide, 2000, 0)
		reading, release := make(chan struct{}), make(chan struct{})
		n.slow = func() {
			n.slow = nil
			close(reading)
			<-release
		}
		m.slow = func() { time.Sleep(10 * time.Millisecond) }
		var written atomic.Int64
		stop := streaming(t, loop, m, &written)
		var long sync.WaitGroup
		long.Go(func() {
			var out []batch.Token
			if got, err := loop.Do(t.Context(), m.ownedBy("reader", 0, 900, 3, &out)); err != nil || got.Out != 3 {
				t.Errorf("the long one: %+v, %v", got, err)
			}
		})
		<-reading
		stop()
		time.Sleep(300 * time.Millisecond)
		begin := time.Now()
		var out []batch.Token
		if got, err := loop.Do(t.Context(), m.ownedBy("other", 5000, 5, 3, &out)); err != nil || got.Out != 3 {
			t.Errorf("the short one: %+v, %v", got, err)
		}
		if took := time.Since(begin); took > 500*time.Millisecond {
			t.Errorf("the short one took %v", took)
		}
		close(release)
		long.Wait()
	})
}

// While the worker hangs, steps decode the prompts, and the loop does not spin. Once the worker's
// job is done, the worker is used again.
func TestWorkerHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		loop, m, n := withWorker(t, wide, 4000, 0)
		var rounds atomic.Int64 // rounds of the loop: each calls Paused once
		stuck := make(chan struct{})
		n.abort = make(chan struct{}, 1) // an abort has no effect
		n.slow = func() { n.slow = nil; <-stuck }
		m.slow = func() { time.Sleep(10 * time.Millisecond) }
		var written atomic.Int64
		stop := streaming(t, loop, m, &written)
		ask := func(first int) time.Duration {
			began := time.Now()
			var out []batch.Token
			seq := m.ownedBy("reader", first, 900, 3, &out)
			seq.Paused = func() bool { rounds.Add(1); return false }
			got, err := loop.Do(t.Context(), seq)
			if err != nil || got.Out != 3 || !slices.Equal(out, []batch.Token{batch.Token(first + 900), batch.Token(first + 901), batch.Token(first + 902)}) {
				t.Errorf("%d: Do = %+v, %v, wrote %v", first, got, err, out)
			}
			return time.Since(began)
		}
		ask(0)
		for i := range 5 {
			if took := ask(10_000 * (i + 1)); took > 10*time.Second {
				t.Errorf("prompt %d beside a worker that hangs took %v", i, took)
			}
		}
		if read := loop.Stats().PrefillOffloaded; read > 0 {
			t.Errorf("the worker has decoded %d tokens", read)
		}
		stop()
		began, before := time.Now(), rounds.Load()
		if took := ask(70_000); took > 10*time.Second { // no other sequence runs
			t.Errorf("alone it took %v", took)
		}
		if most := int64(time.Since(began)/(10*time.Millisecond)) + 2; rounds.Load()-before > most {
			t.Errorf("the loop went round %d times in %v", rounds.Load()-before, time.Since(began))
		}
		close(stuck)
		time.Sleep(10 * time.Second)
		stop = streaming(t, loop, m, new(atomic.Int64))
		for i := range 200 { // after a slow job the worker is tried again only after a while
			ask(100_000 + 10_000*i)
			if loop.Stats().PrefillOffloaded > 0 {
				break
			}
		}
		if loop.Stats().PrefillOffloaded == 0 {
			t.Error("the worker is not used again")
		}
		stop()
	})
}
