package batch_test

import (
	"context"
	"encoding/json"
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
)

// toy is a model that checks its calls for all errors at which llama.cpp ends the process. Its
// answer to a token is the next number, if the cache holds the right sequence. The real one is
// in package llama; it passes these rules by running with the loop in package engine.
type toy struct {
	t     testing.TB
	fail  error         // of the next Decode
	whole bool          // sequences cannot be truncated
	slow  func()        // called in every Decode
	abort chan struct{} // Abort sends here; nil if it is not expected

	cells   map[int][]int // tokens in the cache by sequence
	pending []entry
	last    []entry
	steps   [][]int // sequences of each step, with repeats
	read    int     // tokens that were decoded

	saves, loads, closed int
	faults               int // of so many saves, or loads, one fails; 0 is none
}

type entry struct {
	tok, pos, seq int
	logits        bool
}

func newToy(tb testing.TB) *toy {
	tb.Helper()
	return &toy{t: tb, cells: make(map[int][]int), faults: 7}
}

func (m *toy) Add(tok batch.Token, pos, seq int, logits bool) error {
	m.pending = append(m.pending, entry{int(tok), pos, seq, logits})
	return nil
}

func (m *toy) Decode() error {
	m.last, m.pending = m.pending, nil
	if m.slow != nil {
		m.slow()
	}
	if m.fail != nil {
		err := m.fail
		m.fail = nil
		return err
	}
	var seqs []int
	for _, e := range m.last {
		if e.pos != len(m.cells[e.seq]) {
			m.t.Errorf("sequence %d goes on at %d, it has %d", e.seq, e.pos, len(m.cells[e.seq]))
		}
		m.cells[e.seq] = append(slices.Clip(m.cells[e.seq]), e.tok)
		seqs = append(seqs, e.seq)
	}
	m.read += len(m.last)
	m.steps = append(m.steps, seqs)
	return nil
}

func (m *toy) Abort() { m.abort <- struct{}{} }

func (m *toy) Copy(src, dst, n int) error {
	have := m.cells[src]
	if n < 1 || n > len(have) || len(m.cells[dst]) > 0 || m.whole && n < len(have) {
		m.t.Errorf("copies %d of %d to a sequence of %d", n, len(have), len(m.cells[dst]))
	}
	m.cells[dst] = have[:n:n]
	return nil
}

func (m *toy) Truncate(seq, n int) error {
	have := m.cells[seq]
	if n == 0 {
		delete(m.cells, seq)
		return nil
	}
	if n < 0 || n > len(have) || m.whole && n < len(have) {
		m.t.Errorf("truncates a sequence of %d to %d", len(have), n)
	}
	m.cells[seq] = have[:n:n]
	return nil
}

// A state is a saved state of a toy.
type state struct {
	From   int
	Tokens []int
}

func (m *toy) Save(seq, from, to int) ([]byte, error) {
	have := m.cells[seq]
	if from < 0 || from >= to || to > len(have) || m.whole && (from > 0 || to < len(have)) {
		m.t.Errorf("saves %d to %d of %d", from, to, len(have))
	}
	if m.saves++; m.faults > 0 && m.saves%m.faults == 0 {
		return nil, errors.New("no memory")
	}
	return json.Marshal(state{from, have[from:to]})
}

func (m *toy) Load(seq int, text []byte) error {
	if m.loads++; m.faults > 0 && m.loads%m.faults == 0 {
		return errors.New("no cells")
	}
	var s state
	err := json.Unmarshal(text, &s)
	if have := len(m.cells[seq]); have != s.From {
		m.t.Errorf("loads what begins at %d into a sequence of %d", s.From, have)
	}
	m.cells[seq] = append(slices.Clip(m.cells[seq]), s.Tokens...)
	return err
}

func (m *toy) Close() { m.closed++ }

func (m *toy) sample(i int) (batch.Token, error) {
	if !m.last[i].logits {
		return 0, fmt.Errorf("entry %d has no logits", i)
	}
	return batch.Token(m.last[i].tok + 1), nil
}

// start runs a loop for the length of a test.
func start(t *testing.T, l batch.Limits) (*batch.Loop, *toy) {
	t.Helper()
	m := newToy(t)
	loop := &batch.Loop{Decoder: m, Memory: m, Whole: m.whole, Limits: l}
	run(t, loop, m)
	return loop, m
}

func run(t *testing.T, loop *batch.Loop, m *toy) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = loop.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
		if len(m.cells) != 0 {
			t.Errorf("left in the cache: %v", m.cells)
		}
	})
}

func (m *toy) sequence(first, prompt, most int, out *[]batch.Token) batch.Sequence {
	var p []batch.Token
	for i := range prompt {
		p = append(p, batch.Token(first+i))
	}
	return batch.Sequence{
		Prompt: p, Max: most, Sample: m.sample,
		Ends: func(tok batch.Token) bool { return tok%1000 == 999 },
		Emit: func(tok batch.Token, _ int) bool { *out = append(*out, tok); return tok%1000 != 777 },
	}
}

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

// Each sequence gets its own answer beside others, also when the context is so small that
// sequences are evicted over and over.
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
		for i := range 4 { // all submitted before the loop begins
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
			t.Errorf("4 sequences of 10 tokens took %d steps, want 10", len(m.steps))
		}
	})
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
	// Its slot is free.
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

// of is sequence with an owner; the answer counts on from first+prompt.
func (m *toy) of(owner string, first, prompt, most int, out *[]batch.Token) batch.Sequence {
	s := m.sequence(first, prompt, most, out)
	s.Owner = owner
	return s
}

// An earlier prompt of the same owner is not decoded again, whether the new one continues it or
// turns off; one of another owner is.
func TestLoopReusesPrefixesOfAnOwner(t *testing.T) {
	for _, whole := range []bool{false, true} {
		t.Run(fmt.Sprintf("whole %v", whole), func(t *testing.T) {
			m := newToy(t)
			m.whole = whole
			loop := &batch.Loop{Decoder: m, Memory: m, Whole: m.whole, Limits: batch.Limits{Context: 1000, Batch: 64, Sequences: 2, Retained: 4}}
			run(t, loop, m)
			for _, step := range []struct {
				what          string
				owner         string
				first, prompt int
				cached, whole int // tokens found in the cache; if sequences cannot be truncated
			}{
				{"the first time", "a", 0, 100, 0, 0},
				{"the same again", "a", 0, 100, 99, 0},
				{"the conversation goes on", "a", 0, 200, 109, 109},
				{"from another owner", "b", 0, 100, 0, 0},
				{"without an owner", "", 0, 100, 0, 0},
				{"without an owner again", "", 0, 100, 0, 0},
				{"something else", "a", 500, 50, 0, 0},
				{"the other owner goes on", "b", 0, 300, 109, 109},
			} {
				before := m.read
				var out []batch.Token
				got, err := loop.Do(t.Context(), m.of(step.owner, step.first, step.prompt, 10, &out))
				want := step.cached
				if whole {
					want = step.whole
				}
				if err != nil || got.Out != 10 || out[9] != batch.Token(step.first+step.prompt+9) {
					t.Fatalf("%s: %+v, %v, %v", step.what, got, out, err)
				}
				if read := m.read - before; got.Cached != want || read != step.prompt+9-want {
					t.Errorf("%s: %d were cached and %d were read, want %d cached", step.what, got.Cached, read, want)
				}
			}
			// The stats follow a moment after the answer.
			st := loop.Stats()
			for deadline := time.Now().Add(10 * time.Second); st.Owners["b"].Cached != 109 || st.Owners["a"].Retained == 0; st = loop.Stats() {
				if time.Now().After(deadline) {
					t.Fatalf("stats %+v", st)
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
}

// A pinned prompt is a prefix for all owners, also for none, and is never evicted; the rest of
// the context is the room of a sequence.
func TestLoopPins(t *testing.T) {
	loop, m := start(t, batch.Limits{Context: 400, Batch: 64, Sequences: 2, Retained: 3})
	var out []batch.Token
	pin := m.of("", 0, 100, 1, &out)
	pin.Pinned, pin.Ends = true, func(batch.Token) bool { return true }
	if _, err := loop.Do(t.Context(), pin); err != nil {
		t.Fatal(err)
	}
	if loop.Room() != 300 {
		t.Errorf("there is room for %d", loop.Room())
	}
	for i := range 20 { // more than can be kept
		for _, owner := range []string{"a", "b", ""} {
			out = nil
			got, err := loop.Do(t.Context(), m.of(owner, 0, 101+i, 50, &out))
			if err != nil || got.Cached < 100 || len(out) != 50 {
				t.Fatalf("%q: %+v, %v", owner, got, err)
			}
			if got.Cached > 100 && owner == "" {
				t.Errorf("without an owner %d tokens were cached", got.Cached)
			}
			if _, err := loop.Do(t.Context(), m.of(owner, 5000+i*100, 60, 30, &out)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := loop.Do(t.Context(), m.of("a", 0, 290, 11, &out)); err == nil {
		t.Error("a prompt that cannot fit was accepted")
	}
}

// A paused sequence gives its slot to another one, keeps its text and its cells, and resumes
// where it was.
func TestLoopPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		loop, m := start(t, batch.Limits{Context: 1000, Batch: 64, Sequences: 1, Retained: 2})
		var held atomic.Bool
		var out, other []batch.Token
		seq := m.of("a", 0, 100, 50, &out)
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
		if got, err := loop.Do(t.Context(), m.of("b", 500, 100, 20, &other)); err != nil || got.Out != 20 {
			t.Errorf("the other one: %+v, %v", got, err)
		}
		if st := loop.Stats(); st.Paused != 1 || st.Running != 0 || st.Owners["a"].Used != 109 {
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
		seq := m.of("a", 0, 10, 50, &out)
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

// When a sequence is canceled while a step decodes its long prompt, the step is called off, and
// the others of the step lose nothing.
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
			m.fail = errors.New("called off")
		}
	}
	loop := &batch.Loop{Decoder: m, Memory: m, Whole: m.whole, Limits: batch.Limits{Context: 4000, Batch: 512, Sequences: 2, Retained: 2}}
	var long, other []batch.Token
	var all sync.WaitGroup
	all.Go(func() {
		if _, err := loop.Do(ctx, m.of("a", 0, 2000, 10, &long)); !errors.Is(err, gone) {
			t.Errorf("Do = %v", err)
		}
	})
	all.Go(func() {
		if got, err := loop.Do(t.Context(), m.of("b", 3000, 300, 10, &other)); err != nil || got.Out != 10 || other[9] != 3309 {
			t.Errorf("the other one: %+v, %v, %v", got, err, other)
		}
	})
	run(t, loop, m)
	all.Wait()
	if st := loop.Stats(); st.Aborted != 1 {
		t.Errorf("stats %+v", st)
	}
}

// Random lives of sequences of several owners, with old and new prompts, pauses and cancels:
// each gets its own answer, and nothing of another's.
func TestLoopLives(t *testing.T) {
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
						for range 25 {
							first := 1000 * r.IntN(3)
							prompt := 1 + r.IntN(size/2)
							most := 1 + r.IntN(size/3)
							var out []batch.Token
							ctx, cancel := context.WithCancel(t.Context())
							seq := m.of(owner, first, prompt, most, &out)
							leave := r.IntN(4*most + 1)
							seq.Emit = func(tok batch.Token, _ int) bool {
								if out = append(out, tok); len(out) == leave {
									cancel()
								}
								return true
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

// Retained sequences are offloaded while the loop is idle, or another sequence is decoding, and
// come back from memory for a prompt that begins with them; memory is bounded.
func TestLoopOffloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newToy(t)
		m.faults = 0
		var cells atomic.Int32 // in use, while a step is decoded
		m.slow = func() {
			n := 0
			for _, have := range m.cells {
				n += len(have)
			}
			cells.Store(int32(n))
			time.Sleep(time.Millisecond)
		}
		loop := &batch.Loop{Decoder: m, Memory: m, Whole: m.whole, Limits: batch.Limits{Context: 4000, Batch: 512, Sequences: 2, Retained: 8, Offloaded: 2500}}
		run(t, loop, m)
		ask := func(owner string, first, prompt int) batch.Result {
			t.Helper()
			var out []batch.Token
			got, err := loop.Do(t.Context(), m.of(owner, first, prompt, 10, &out))
			if err != nil || out[9] != batch.Token(first+prompt+9) {
				t.Fatalf("%+v, %v, %v", got, out, err)
			}
			synctest.Wait()
			return got
		}
		var stream sync.WaitGroup
		stream.Go(func() {
			var out []batch.Token
			_, _ = loop.Do(t.Context(), m.of("", 9000, 10, 200, &out))
		})
		time.Sleep(5 * time.Millisecond)
		ask("a", 1000, 100)
		ask("a", 4000, 400) // moved piece by piece
		if got := ask("a", 4000, 600); got.Cached != 409 {
			t.Errorf("on its way into memory: %+v", got)
		}
		time.Sleep(10 * time.Millisecond)
		if got := cells.Load(); got > 200 {
			t.Errorf("beside a stream: %d cells are in use", got)
		}
		stream.Wait()
		ask("b", 0, 980)
		ask("a", 5000, 980)
		time.Sleep(time.Second)
		st := loop.Stats()
		if st.Offloaded < 1398 || st.Offloaded > 2500 || st.Retained != 0 || len(m.cells) != 0 {
			t.Errorf("at rest: %+v, %d in the cache", st, len(m.cells))
		}
		before := m.read
		if got := ask("b", 0, 1500); got.Cached != 989 || m.read-before != 520 {
			t.Errorf("back from memory: %+v, %d were read", got, m.read-before)
		}
		time.Sleep(100 * time.Millisecond)
		if st := loop.Stats(); st.Retained < 1509 {
			t.Errorf("a prefix that may be asked for again at once is offloaded: %+v", st)
		}
		if got := ask("c", 0, 1500); got.Cached != 0 {
			t.Errorf("another owner: %+v", got)
		}
		for i := range 5 {
			ask("d", 5000+i, 900)
			time.Sleep(time.Second)
		}
		if st := loop.Stats(); st.Offloaded > 2500 || st.Offloaded == 0 {
			t.Errorf("in the end: %+v", st)
		}
	})
}

// A sequence that is paused for long hands its cells over to the retained sequences, which are
// offloaded, and decodes none of its tokens again when it resumes.
func TestLoopLongPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newToy(t)
		m.faults = 0
		loop := &batch.Loop{Decoder: m, Memory: m, Limits: batch.Limits{Context: 1000, Batch: 64, Sequences: 1, Retained: 2, Offloaded: 1000}}
		run(t, loop, m)
		var paused atomic.Bool
		var out []batch.Token
		seq := m.of("a", 0, 100, 50, &out)
		seq.Paused = paused.Load
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
		if st := loop.Stats(); st.Used != 109 || st.Paused != 1 {
			t.Errorf("a short pause: %+v", st)
		}
		time.Sleep(time.Second)
		if st := loop.Stats(); st.Used != 0 || st.Offloaded != 109 || st.Paused != 1 || st.Evicted != 0 {
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

// A sequence that loses its cells while its next token is being chosen, and pauses meanwhile, is
// prefilled again with that token when it resumes.
func TestLoopEvictedWhileChoosing(t *testing.T) {
	bubble(t, batch.Limits{Context: 300, Batch: 64, Sequences: 2, Retained: 1}, func(t *testing.T, loop *batch.Loop, m *toy) {
		t.Helper()
		var other []batch.Token
		var all sync.WaitGroup
		all.Go(func() { // the oldest, which is never evicted
			seq := m.of("b", 5000, 60, 200, &other)
			seq.Ends = func(batch.Token) bool { return false }
			if got, err := loop.Do(t.Context(), seq); err != nil || got.Out != 200 {
				t.Errorf("the other one: %+v, %v", got, err)
			}
		})
		time.Sleep(5 * time.Millisecond)
		var paused atomic.Bool
		var out []batch.Token
		seq, count := m.detached("a", 0, 100, 3, &out, time.Second)
		seq.Paused = paused.Load
		time.AfterFunc(500*time.Millisecond, func() {
			if st := loop.Stats(); st.Evicted != 1 {
				t.Errorf("before the pause: %+v", st)
			}
			paused.Store(true)
			loop.Wake()
		})
		time.AfterFunc(700*time.Millisecond, func() { paused.Store(false); loop.Wake() })
		if got, err := loop.Do(t.Context(), seq); err != nil || got.Out != 3 || !slices.Equal(out, []batch.Token{100, 101, 102}) || count.Load() != 3 {
			t.Errorf("Do = %+v, %v, %v, %d choices", got, err, out, count.Load())
		}
		all.Wait()
	})
}
