package batch_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/batch"
)

func TestLoop(t *testing.T) {
	for name, test := range map[string]struct {
		first, prompt, most int
		want                batch.Result
		last                batch.Token
	}{
		"the model ends":           {990, 5, 100, batch.Result{End: batch.Ended, Out: 4}, 998},
		"the limit is reached":     {0, 5, 3, batch.Result{End: batch.Reached, Out: 3}, 7},
		"Emit ends it":             {770, 2, 100, batch.Result{End: batch.Stopped, Out: 6}, 777},
		"a prompt of many batches": {0, 90, 2, batch.Result{End: batch.Reached, Out: 2}, 91},
	} {
		t.Run(name, func(t *testing.T) {
			loop, m := start(t, batch.Limits{Context: 256, Batch: 16, Sequences: 2})
			var out []batch.Token
			got, err := loop.Do(t.Context(), m.sequence(test.first, test.prompt, test.most, &out))
			if err != nil || got != test.want {
				t.Errorf("Do = %+v, %v; want %+v", got, err, test.want)
			}
			if len(out) != got.Out || out[len(out)-1] != test.last {
				t.Errorf("emitted %v, want %d up to %d", out, test.want.Out, test.last)
			}
		})
	}
}

// Each sequence gets its own answer beside others, even in a context so small that sequences are
// evicted repeatedly.
func TestLoopKeepsSequencesApart(t *testing.T) {
	for _, size := range []int{4096, 300, 130} {
		t.Run(fmt.Sprintf("context %d", size), func(t *testing.T) {
			loop, m := start(t, batch.Limits{Context: size, Batch: 16, Sequences: 4})
			var all sync.WaitGroup
			for i := range 10 {
				all.Go(func() {
					var out, want []batch.Token
					first := 1000 * i
					for j := range 80 {
						want = append(want, batch.Token(first+20+j))
					}
					if _, err := loop.Do(t.Context(), m.sequence(first, 20, 80, &out)); err != nil {
						t.Error(err)
					}
					if !slices.Equal(out, want) {
						t.Errorf("sequence %d wrote %v", i, out)
					}
				})
			}
			all.Wait()
		})
	}
}

func TestLoopDecodesSequencesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newToy(t)
		loop := &batch.Loop{Decoder: m, Memory: m, Whole: m.whole, Limits: batch.Limits{Context: 4096, Batch: 64, Sequences: 4}}
		var all sync.WaitGroup
		for i := range 4 { // all are submitted before the loop begins
			all.Go(func() {
				var out []batch.Token
				_, _ = loop.Do(t.Context(), m.sequence(1000*i, 3, 10, &out))
			})
		}
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = loop.Run(ctx) })
		all.Wait()
		cancel()
		running.Wait()
		if len(m.steps) != 10 {
			t.Errorf("4 sequences of 10 tokens took %d steps", len(m.steps))
		}
	})
}

// With Repeats, a sequence that runs alone reuses cached tokens only as far as the remaining tokens
// are computed by the same kernels as in an empty cache. The other cached tokens are computed again.
// With exact kernels, or if sequences cannot be truncated, Repeats has no effect.
func TestLoopRepeats(t *testing.T) {
	for name, test := range map[string]struct {
		repeats, exact, whole bool
		want                  [][]int // tokens of the steps of each prompt
	}{
		"not asked for":   {want: [][]int{{200}, {1}, {49}, {20}, {1}}},
		"the same again":  {repeats: true, want: [][]int{{200}, {72}, {121}, {20}, {20}}},
		"exact":           {repeats: true, exact: true, want: [][]int{{200}, {1}, {49}, {20}, {1}}},
		"whole sequences": {repeats: true, whole: true, want: [][]int{{200}, {200}, {49}, {20}, {20}}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newToy(t)
			m.whole = test.whole
			loop := &batch.Loop{Decoder: m, Memory: m, Whole: test.whole, Exact: test.exact, Limits: batch.Limits{Context: 4000, Batch: 512, Sequences: 2, Retained: 4, Offloaded: 4000}}
			run(t, loop, m)
			for i, prompt := range [][2]int{{0, 200}, {0, 200}, {0, 249}, {1000, 20}, {1000, 20}} {
				before := len(m.steps)
				var out []batch.Token
				seq := m.ownedBy("a", prompt[0], prompt[1], 1, &out)
				seq.Repeats = test.repeats
				if _, err := loop.Do(t.Context(), seq); err != nil {
					t.Fatal(err)
				}
				var steps []int
				for _, step := range m.steps[before:] {
					steps = append(steps, len(step))
				}
				if !slices.Equal(steps, test.want[i]) {
					t.Errorf("prompt %d: steps of %v tokens, want %v", i, steps, test.want[i])
				}
			}
		})
	}
}

func TestLoopCancel(t *testing.T) {
	loop, m := start(t, batch.Limits{Context: 4096, Batch: 16, Sequences: 1})
	gone := errors.New("the client hung up")
	ctx, cancel := context.WithCancelCause(t.Context())
	var out []batch.Token
	seq := m.sequence(0, 3, 4000, &out)
	seq.Emit = func(tok batch.Token, _ int) bool {
		if out = append(out, tok); len(out) == 5 {
			cancel(gone)
		}
		return true
	}
	if got, err := loop.Do(ctx, seq); !errors.Is(err, gone) || got.Out != 5 {
		t.Errorf("Do = %+v, %v; want 5 tokens, %v", got, err, gone)
	}
	// Its slot is free again.
	if got, err := loop.Do(t.Context(), m.sequence(0, 3, 5, &out)); err != nil || got.Out != 5 {
		t.Errorf("Do = %+v, %v", got, err)
	}
}

func TestLoopFailsTheSequencesOfTheStep(t *testing.T) {
	loop, m := start(t, batch.Limits{Context: 64, Batch: 16, Sequences: 2})
	broken := errors.New("code -1")
	m.fail = broken
	var out []batch.Token
	if _, err := loop.Do(t.Context(), m.sequence(0, 3, 5, &out)); !errors.Is(err, broken) {
		t.Errorf("Do = %v, want %v", err, broken)
	}
	if got, err := loop.Do(t.Context(), m.sequence(0, 3, 5, &out)); err != nil || got.Out != 5 {
		t.Errorf("the next one: %+v, %v", got, err)
	}
}

func TestLoopRefusesLongPrompts(t *testing.T) {
	loop, m := start(t, batch.Limits{Context: 64, Batch: 16, Sequences: 2})
	var out []batch.Token
	for name, seq := range map[string]batch.Sequence{
		"no prompt":        m.sequence(0, 0, 5, &out),
		"nothing to write": m.sequence(0, 3, 0, &out),
		"too long":         m.sequence(0, 60, 5, &out),
	} {
		if _, err := loop.Do(t.Context(), seq); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestLoopStops(t *testing.T) {
	m := newToy(t)
	loop := &batch.Loop{Decoder: m, Memory: m, Whole: m.whole, Limits: batch.Limits{Context: 4096, Batch: 64, Sequences: 4}}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = loop.Run(ctx) })
	var out []batch.Token
	seq := m.sequence(0, 3, 4000, &out)
	seq.Emit = func(batch.Token, int) bool { cancel(); return true }
	if _, err := loop.Do(t.Context(), seq); !errors.Is(err, batch.ErrStopped) {
		t.Errorf("Do = %v, want %v", err, batch.ErrStopped)
	}
	running.Wait()
	if _, err := loop.Do(t.Context(), seq); !errors.Is(err, batch.ErrStopped) {
		t.Errorf("after the end: Do = %v, want %v", err, batch.ErrStopped)
	}
}

// When a sequence is canceled while a step decodes its long prompt, the step is aborted, and the
// other sequences of the step lose no token.
func TestLoopAbortsAStep(t *testing.T) {
	m := newToy(t)
	m.abort = make(chan struct{}, 1)
	gone := errors.New("the client hung up")
	ctx, cancel := context.WithCancelCause(t.Context())
	m.slow = func() {
		reads := 0
		for _, e := range m.last {
			if e.tok < 2000 {
				reads++
			}
		}
		if reads > 100 && ctx.Err() == nil {
			cancel(gone)
			<-m.abort
			m.fail = errors.New("aborted")
		}
	}
	loop := &batch.Loop{Decoder: m, Memory: m, Whole: m.whole, Limits: batch.Limits{Context: 4000, Batch: 512, Sequences: 2, Retained: 2}}
	var long, other []batch.Token
	var all sync.WaitGroup
	all.Go(func() {
		if _, err := loop.Do(ctx, m.ownedBy("a", 0, 2000, 10, &long)); !errors.Is(err, gone) {
			t.Errorf("Do = %v", err)
		}
	})
	all.Go(func() {
		if got, err := loop.Do(t.Context(), m.ownedBy("b", 3000, 300, 10, &other)); err != nil || got.Out != 10 || other[9] != 3309 {
			t.Errorf("the other one: %+v, %v, %v", got, err, other)
		}
	})
	run(t, loop, m)
	all.Wait()
	if st := loop.Stats(); st.Aborted != 1 {
		t.Errorf("stats %+v", st)
	}
}

// Sequences of several owners run with old and new prompts, random pauses and cancels. Each gets
// exactly its own answer.
func TestLoopLives(t *testing.T) {
	requests := 25 // of each client
	if testing.Short() {
		requests = 3
	}
	for _, whole := range []bool{false, true} {
		for _, size := range []int{700, 200} {
			t.Run(fmt.Sprintf("context %d, whole %v", size, whole), func(t *testing.T) {
				m := newToy(t)
				m.whole = whole
				loop := &batch.Loop{Decoder: m, Memory: m, Whole: m.whole, Limits: batch.Limits{Context: size, Batch: 32, Sequences: 3, Retained: 5, Offloaded: 2 * size}}
				run(t, loop, m)
				var all sync.WaitGroup
				for who := range 6 {
					all.Go(func() {
						r := rand.New(rand.NewPCG(uint64(who), 7))
						owner := string(rune('a' + who%3))
						for range requests {
							first := 1000 * r.IntN(3)
							prompt := 1 + r.IntN(size/2)
							most := 1 + r.IntN(size/3)
							var out []batch.Token
							ctx, cancel := context.WithCancel(t.Context())
							seq := m.ownedBy(owner, first, prompt, most, &out)
							leave := r.IntN(4*most + 1)
							seq.Emit = func(tok batch.Token, _ int) bool {
								if out = append(out, tok); len(out) == leave {
									cancel()
								}
								return true
							}
							begun := -1
							seq.Begin = func(cached int) {
								if begun >= 0 || len(out) > 0 {
									t.Error("Begin is called twice, or late")
								}
								begun = cached
							}
							seq.Ends = func(batch.Token) bool { return false }
							seq.Paused = func() bool { return (len(out)+who)%11 == 5 && time.Now().UnixMicro()%3 > 0 }
							go func() {
								for ctx.Err() == nil {
									loop.Wake()
									time.Sleep(100 * time.Microsecond)
								}
							}()
							got, err := loop.Do(ctx, seq)
							cancel()
							if err != nil && !errors.Is(err, context.Canceled) {
								t.Errorf("Do = %v", err)
							}
							if len(out) > 0 && begun != got.Cached {
								t.Errorf("%d tokens were cached at first, %d at the end", begun, got.Cached)
							}
							if err == nil && got.Out != most || got.Out != len(out) {
								t.Errorf("%+v of %d, %d came", got, most, len(out))
							}
							for i, tok := range out {
								if tok != batch.Token(first+prompt+i) {
									t.Fatalf("token %d of %d+%d is %d", i, first, prompt, tok)
								}
							}
						}
					})
				}
				all.Wait()
			})
		}
	}
}
