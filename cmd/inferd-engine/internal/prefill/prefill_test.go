package prefill_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/kv"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/prefill"
)

// A toy is a context in which the KV state of a token is the token itself.
type toy struct {
	tokens  map[int][]kv.Token
	pending [][2]int      // sequence and token
	hang    chan struct{} // if not nil, Decode closes it and waits for Abort
	aborted chan struct{}
	closed  chan struct{}
}

func newToy() *toy {
	return &toy{tokens: make(map[int][]kv.Token), aborted: make(chan struct{}, 1), closed: make(chan struct{})}
}

func (m *toy) context() (prefill.Context, error) {
	return prefill.Context{Decoder: m, Memory: m, Close: func() { close(m.closed) }}, nil
}

func (m *toy) Add(tok kv.Token, pos, seq int, logits bool) error {
	if n := len(m.tokens[seq]); pos < n || logits {
		return fmt.Errorf("token %d of sequence %d at %d", tok, seq, pos)
	}
	m.pending = append(m.pending, [2]int{seq, int(tok)})
	return nil
}

func (m *toy) Pad(int) {}

func (m *toy) Copy(src, dst, n int) error {
	m.tokens[dst] = slices.Clone(m.tokens[src][:n])
	return nil
}

func (m *toy) Decode() error {
	pending := m.pending
	m.pending = nil
	if m.hang != nil {
		close(m.hang)
		<-m.aborted
		return errors.New("aborted")
	}
	for _, e := range pending {
		m.tokens[e[0]] = append(m.tokens[e[0]], kv.Token(e[1]))
	}
	return nil
}

func (m *toy) Abort() { m.aborted <- struct{}{} }

func (m *toy) Truncate(seq, n int) error {
	m.tokens[seq] = m.tokens[seq][:n]
	return nil
}

func (m *toy) Save(seq, from, to int) ([]byte, error) {
	var state []byte
	for _, tok := range m.tokens[seq][from:to] {
		state = append(state, byte(tok))
	}
	return state, nil
}

func (m *toy) Load(seq int, state []byte) error {
	for _, b := range state {
		m.tokens[seq] = append(m.tokens[seq], kv.Token(b))
	}
	return nil
}

// has reports whether any sequence consists of exactly these tokens.
func (m *toy) has(tokens ...kv.Token) bool {
	for _, have := range m.tokens {
		if slices.Equal(have, tokens) {
			return true
		}
	}
	return false
}

// do submits a job, waits until it is done, and returns it.
func do(t *testing.T, w *prefill.Worker, chunks ...prefill.Chunk) *prefill.Job {
	t.Helper()
	done := make(chan struct{}, 1)
	w.Notify(func() { done <- struct{}{} })
	w.Submit(chunks)
	<-done
	j := w.Poll()
	if j == nil {
		t.Fatal("Poll returns no job after the notification")
	}
	return j
}

// The worker decodes chunks behind the tokens of their sequences and returns the KV state of each
// chunk. A wrong chunk fails its job and leaves the sequences as they were. A released sequence is
// empty when it is reserved again.
func TestWorker(t *testing.T) {
	m := newToy()
	w, err := prefill.Start(100, 2, m.context)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := w.Reserve()
	b, _ := w.Reserve()
	if _, ok := w.Reserve(); ok || a == b {
		t.Errorf("sequences %d and %d, and a third one", a, b)
	}
	j := do(t, w, prefill.Chunk{Seq: a, Tokens: []kv.Token{1, 2}})
	if j.Err != nil || j.Tokens() != 2 || !m.has(1, 2) {
		t.Errorf("the first job: %+v, %v", j, m.tokens)
	}
	first := j.Chunks[0].Export
	j = do(t, w, prefill.Chunk{Seq: a, Start: 2, Tokens: []kv.Token{3}}, prefill.Chunk{Seq: b, Before: []kv.Token{1, 2}, Import: first, Start: 2, Tokens: []kv.Token{7}})
	if j.Err != nil || j.Tokens() != 2 || !m.has(1, 2, 3) || !m.has(1, 2, 7) {
		t.Errorf("the next one: %+v, %v", j, m.tokens)
	}
	seven := j.Chunks[1].Export
	w.Release(a)
	if seq, ok := w.Reserve(); !ok || seq != a {
		t.Errorf("Reserve = %d, %v", seq, ok)
	}
	j = do(t, w, prefill.Chunk{Seq: a, Before: []kv.Token{7}, Import: seven, Start: 1, Tokens: []kv.Token{9}})
	if j.Err != nil || !m.has(7, 9) {
		t.Errorf("the new sequence: %+v, %v", j, m.tokens)
	}
	if j = do(t, w, prefill.Chunk{Seq: a, Start: 2, Tokens: []kv.Token{8}}, prefill.Chunk{Seq: b, Start: 9, Tokens: []kv.Token{9}}); j.Err == nil {
		t.Error("a chunk behind tokens that are not there was decoded")
	}
	if j = do(t, w, prefill.Chunk{Seq: a, Start: 2, Tokens: []kv.Token{6}}); j.Err != nil || !m.has(7, 9, 6) {
		t.Errorf("after a job that failed: %v, %v", j.Err, m.tokens)
	}
	for range 20 { // more often than there are numbers
		w.Release(a)
		if a, _ = w.Reserve(); do(t, w, prefill.Chunk{Seq: a, Tokens: []kv.Token{4, 5}}).Err != nil || !m.has(4, 5) || !m.has(1, 2, 7) {
			t.Fatalf("after many others: %v", m.tokens)
		}
	}
	w.Stop()
	<-m.closed
}

func TestAbort(t *testing.T) {
	m := newToy()
	m.hang = make(chan struct{})
	w, err := prefill.Start(100, 1, m.context)
	if err != nil {
		t.Fatal(err)
	}
	w.Abort() // without a job
	go func() {
		<-m.hang
		w.Abort()
		w.Abort()
	}()
	if j := do(t, w, prefill.Chunk{Tokens: []kv.Token{1}}); j.Err == nil || !j.Aborted {
		t.Errorf("the job: %+v", j)
	}
	w.Stop()
}

func TestNoContext(t *testing.T) {
	broken := errors.New("no memory")
	w, err := prefill.Start(100, 1, func() (prefill.Context, error) { return prefill.Context{}, broken })
	if w != nil || !errors.Is(err, broken) {
		t.Errorf("Start = %v, %v", w, err)
	}
}
