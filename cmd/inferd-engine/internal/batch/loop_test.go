package batch_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/batch"
)

// toy is a Model that checks what llama.cpp would crash on, and whose answer to a token
// is the next number. The real one is in package llama, and passes these rules by being
// run with the loop in package engine.
type toy struct {
	t       testing.TB
	context int
	fail    error // of the next Decode

	cells   map[int]int // tokens in the cache per sequence
	pending []entry
	last    []entry
	steps   [][]int // sequences of each step, with repeats
}

type entry struct {
	tok, pos, seq int
	logits        bool
}

func (m *toy) Add(tok batch.Token, pos, seq int, logits bool) error {
	m.pending = append(m.pending, entry{int(tok), pos, seq, logits})
	return nil
}

func (m *toy) Decode() error {
	m.last, m.pending = m.pending, nil
	if m.fail != nil {
		err := m.fail
		m.fail = nil
		return err
	}
	var seqs []int
	for _, e := range m.last {
		if e.pos != m.cells[e.seq] {
			m.t.Errorf("sequence %d goes on at %d, it has %d", e.seq, e.pos, m.cells[e.seq])
		}
		m.cells[e.seq]++
		seqs = append(seqs, e.seq)
	}
	total := 0
	for _, n := range m.cells {
		total += n
	}
	if total > m.context {
		m.t.Errorf("%d tokens in a context of %d", total, m.context)
	}
	m.steps = append(m.steps, seqs)
	return nil
}

func (m *toy) Clear(seq int) error {
	delete(m.cells, seq)
	return nil
}

func (m *toy) sample(i int) (batch.Token, error) {
	if !m.last[i].logits {
		return 0, fmt.Errorf("entry %d has no logits", i)
	}
	return batch.Token(m.last[i].tok + 1), nil
}

// start runs a loop for the length of a test.
func start(t *testing.T, l batch.Limits) (*batch.Loop, *toy) {
	t.Helper()
	m := &toy{t: t, context: l.Context, cells: make(map[int]int)}
	loop := &batch.Loop{Model: m, Limits: l}
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
	return loop, m
}

func (m *toy) sequence(first, prompt, most int, out *[]batch.Token) batch.Sequence {
	var p []batch.Token
	for i := range prompt {
		p = append(p, batch.Token(first+i))
	}
	return batch.Sequence{
		Prompt: p, Max: most, Sample: m.sample,
		Ends: func(tok batch.Token) bool { return tok%1000 == 999 },
		Emit: func(tok batch.Token) bool { *out = append(*out, tok); return tok%1000 != 777 },
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
		"the taker has had enough": {770, 2, 100, batch.Result{End: batch.Stopped, Out: 6}, 777},
		"a prompt of many batches": {0, 90, 2, batch.Result{End: batch.Reached, Out: 2}, 91},
	} {
		t.Run(name, func(t *testing.T) {
			loop, m := start(t, batch.Limits{Context: 256, Batch: 16, Sequences: 2, Chunk: 4})
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

// Whoever else is running, each sequence gets its own answer, also when the context is so
// small that sequences are parked over and over.
func TestLoopKeepsSequencesApart(t *testing.T) {
	for _, size := range []int{4096, 300, 130} {
		t.Run(fmt.Sprintf("context %d", size), func(t *testing.T) {
			loop, m := start(t, batch.Limits{Context: size, Batch: 16, Sequences: 4, Chunk: 4})
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
		m := &toy{t: t, context: 4096, cells: make(map[int]int)}
		loop := &batch.Loop{Model: m, Limits: batch.Limits{Context: 4096, Batch: 64, Sequences: 4, Chunk: 16}}
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
	loop, m := start(t, batch.Limits{Context: 4096, Batch: 16, Sequences: 1, Chunk: 4})
	gone := errors.New("the client hung up")
	ctx, cancel := context.WithCancelCause(t.Context())
	var out []batch.Token
	seq := m.sequence(0, 3, 4000, &out)
	seq.Emit = func(tok batch.Token) bool {
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

func TestLoopFailsOnlyThoseOfTheStep(t *testing.T) {
	loop, m := start(t, batch.Limits{Context: 64, Batch: 16, Sequences: 2, Chunk: 4})
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

func TestLoopRefusesWhatCannotFit(t *testing.T) {
	loop, m := start(t, batch.Limits{Context: 64, Batch: 16, Sequences: 2, Chunk: 4})
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
	m := &toy{t: t, context: 4096, cells: make(map[int]int)}
	loop := &batch.Loop{Model: m, Limits: batch.Limits{Context: 4096, Batch: 64, Sequences: 4, Chunk: 16}}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = loop.Run(ctx) })
	var out []batch.Token
	seq := m.sequence(0, 3, 4000, &out)
	seq.Emit = func(batch.Token) bool { cancel(); return true }
	if _, err := loop.Do(t.Context(), seq); !errors.Is(err, batch.ErrStopped) {
		t.Errorf("Do = %v, want %v", err, batch.ErrStopped)
	}
	running.Wait()
	if _, err := loop.Do(t.Context(), seq); !errors.Is(err, batch.ErrStopped) {
		t.Errorf("after the end: Do = %v, want %v", err, batch.ErrStopped)
	}
}
