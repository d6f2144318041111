package batch_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/batch"
)

// A toy is a model that continues each token with the next number. A call for which llama.cpp would
// end the process fails the test. Package engine tests the loop with a real model of package llama.
type toy struct {
	t     testing.TB
	fail  error         // error of the next Decode
	whole bool          // sequences cannot be truncated
	slow  func()        // if not nil, called in every Decode
	abort chan struct{} // Abort sends here; nil if it is not expected

	cells   map[int][]int // by sequence: its tokens in the cache
	pending []entry
	last    []entry
	steps   [][]int // by step: the sequence of each token
	read    int     // number of decoded tokens

	saves, loads, closed int
	faults               int // one in this number of saves and loads fails; 0 means none
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

func (m *toy) Pad(int) {}

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

// start runs a loop on a new toy during a test.
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

// ownedBy returns a sequence of an owner. Its prompt is the given number of consecutive tokens, beginning with
// first; its answer begins with first+prompt and has at most most tokens, which are appended to out.
func (m *toy) ownedBy(owner string, first, prompt, most int, out *[]batch.Token) batch.Sequence {
	s := m.sequence(first, prompt, most, out)
	s.Owner = owner
	return s
}
