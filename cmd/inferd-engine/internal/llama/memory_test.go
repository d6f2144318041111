package llama_test

import (
	"bytes"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/llama"
	"github.com/inferd-go/inferd/internal/builtin"
)

// A memory is a model with one kind of memory.
type memory struct {
	write func(io.Writer) error
	cuts  bool // its sequences can be truncated
}

// memories are models with three kinds of memory: of all tokens, of a window of the last tokens, and
// of one state that stands for all tokens.
var memories = map[string]memory{
	"whole":     {func(w io.Writer) error { return builtin.Write("tiny", w) }, true},
	"sliding":   {builtin.Sliding, true},
	"recurrent": {builtin.Recurrent, false},
}

// kinds returns memories; with -short only the most common kind.
func kinds() map[string]memory {
	if testing.Short() {
		return map[string]memory{"whole": memories["whole"]}
	}
	return memories
}

// file writes a model to a temporary file, and returns its path.
func file(t *testing.T, write func(io.Writer) error) string {
	t.Helper()
	var content bytes.Buffer
	if err := write(&content); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "model.gguf")
	if err := os.WriteFile(path, content.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// text returns n pseudo-random tokens, different for each seed.
func text(seed, n int) []llama.Token {
	tokens := make([]llama.Token, n)
	x := uint32(seed)*2654435761 + 1
	for i := range tokens {
		x = x*1664525 + 1013904223
		tokens[i] = llama.Token(x >> 24)
	}
	return tokens
}

// read decodes tokens of a sequence from position pos on, and returns the index of the batch's entry
// with the logits of the last token.
func read(c *llama.Context, seq, pos int, tokens []llama.Token) (int, error) {
	for {
		n := min(len(tokens), 32)
		for i, tok := range tokens[:n] {
			if err := c.Add(tok, pos+i, seq, i == len(tokens)-1); err != nil {
				return 0, err
			}
		}
		if err := c.Decode(); err != nil {
			return 0, err
		}
		if tokens, pos = tokens[n:], pos+n; len(tokens) == 0 {
			return n - 1, nil
		}
	}
}

// An answer is a continuation of a sequence by 24 tokens, with the log probability of each token of the
// vocabulary in front of each of them.
type answer struct {
	tokens   []llama.Token
	logprobs [][]float64
}

// rounding bounds the difference of log probabilities between two computations of one answer: the order
// of sums depends on the processor, and on the batches into which the sequence was divided. It is 0.02
// at most; with other tokens in the cache the difference is above 4.
const rounding = 0.1

// distance returns the maximum difference of the log probabilities of two answers.
func (a answer) distance(b answer) (most float64) {
	for i := range a.logprobs {
		for j := range a.logprobs[i] {
			most = max(most, math.Abs(a.logprobs[i][j]-b.logprobs[i][j]))
		}
	}
	return most
}

// continuation decodes tokens of a sequence from position pos on, and continues it by 24 tokens: the
// likeliest ones, or those of an answer. So two answers can be compared although two tokens were almost
// equally likely.
func continuation(t *testing.T, m *llama.Model, c *llama.Context, seq, pos int, tokens []llama.Token, like ...answer) (a answer) {
	t.Helper()
	s, err := llama.NewSampler(m, llama.SamplerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Free()
	for i := range 24 {
		entry, err := read(c, seq, pos, tokens)
		if err != nil {
			t.Fatal(err)
		}
		p, err := m.Logprobs(c, entry, 0, m.NTokens())
		if err != nil {
			t.Fatal(err)
		}
		tok, err := s.Sample(c, entry)
		if err != nil {
			t.Fatal(err)
		}
		if len(like) > 0 {
			tok = like[0].tokens[i]
		}
		all := make([]float64, m.NTokens())
		for _, one := range p.Top {
			all[one.ID] = one.Logprob
		}
		a.tokens, a.logprobs = append(a.tokens, tok), append(a.logprobs, all)
		pos += len(tokens)
		tokens = []llama.Token{tok}
	}
	return a
}

// fresh returns the continuation of tokens in an empty cache; see continuation.
func fresh(t *testing.T, m *llama.Model, c *llama.Context, tokens []llama.Token, like ...answer) answer {
	t.Helper()
	if err := c.ClearAll(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.ClearAll(); err != nil {
			t.Error(err)
		}
	}()
	return continuation(t, m, c, 0, 0, tokens, like...)
}

// padded returns the continuation of tokens in an empty cache, with padding allowed in all batches
// of the prompt.
func padded(t *testing.T, m *llama.Model, c *llama.Context, tokens []llama.Token, like answer) answer {
	t.Helper()
	for pos := 0; pos < len(tokens)-1; pos += 32 {
		c.Pad(64)
		if _, err := read(c, 0, pos, tokens[pos:min(pos+32, len(tokens)-1)]); err != nil {
			t.Fatal(err)
		}
	}
	return continuation(t, m, c, 0, len(tokens)-1, tokens[len(tokens)-1:], like)
}

// A truncated sequence, or a copy of a part, continues like a new sequence of the same tokens. A
// recurrent model returns ErrCannotTruncate.
func TestTruncate(t *testing.T) {
	for name, memory := range kinds() {
		t.Run(name, func(t *testing.T) {
			m, c := loadFile(t, file(t, memory.write), llama.ContextOptions{NCtx: 2048, NBatch: 32, NSeq: 4, Threads: 1})
			if m.CanTruncate() != memory.cuts {
				t.Errorf("CanTruncate = %v", m.CanTruncate())
			}
			prompt, other := text(1, 300), text(2, 90)
			lengths := []int{200, 20, 299}
			if testing.Short() {
				prompt, lengths = prompt[:100], []int{70}
			}
			for _, n := range lengths {
				again := append(append([]llama.Token{}, prompt[:n]...), other...)
				want, long := fresh(t, m, c, again), fresh(t, m, c, prompt)
				if want.distance(long) <= rounding {
					t.Fatal("the model does not tell its prompts apart")
				}
				if _, err := read(c, 0, 0, prompt); err != nil {
					t.Fatal(err)
				}
				copied, cut := c.Copy(0, 1, n), c.Truncate(0, n)
				if !memory.cuts {
					if !errors.Is(copied, llama.ErrCannotTruncate) || !errors.Is(cut, llama.ErrCannotTruncate) {
						t.Errorf("%d of %d tokens: copied %v, cut %v", n, len(prompt), copied, cut)
					}
					continue
				}
				if copied != nil || cut != nil {
					t.Fatal(copied, cut)
				}
				if off := continuation(t, m, c, 0, n, other, want).distance(want); off > rounding {
					t.Errorf("cut to %d: log probabilities differ by %g", n, off)
				}
				if off := continuation(t, m, c, 1, n, other, want).distance(want); off > rounding {
					t.Errorf("a copy of %d: log probabilities differ by %g", n, off)
				}
			}
		})
	}
}

// A padded batch has the same results as one without padding, and leaves no padding in the cache,
// so that all cells can be used.
func TestPad(t *testing.T) {
	cells := 512
	if testing.Short() {
		cells = 256
	}
	for name, memory := range kinds() {
		t.Run(name, func(t *testing.T) {
			path := file(t, memory.write)
			_, plain := loadFile(t, path, llama.ContextOptions{NCtx: cells, NBatch: 32, NSeq: 2, Threads: 1})
			m, c := loadFile(t, path, llama.ContextOptions{NCtx: cells, NBatch: 64, NSeq: 2, Threads: 1})
			tokens := text(1, cells*3/4)
			want := fresh(t, m, plain, tokens)
			if off := padded(t, m, c, tokens, want).distance(want); off > rounding {
				t.Errorf("filled: log probabilities differ by %g", off)
			}
			if err := c.ClearAll(); err != nil {
				t.Fatal(err)
			}
			all := text(2, c.NCtx())
			if _, err := read(c, 1, 0, all); err != nil {
				t.Fatalf("%d tokens, all that there is room for: %v", len(all), err)
			}
			if !memory.cuts {
				return // padding needs no cells there
			}
			c.Pad(1000)
			if _, err := read(c, 0, 0, all[:1]); !errors.Is(err, llama.ErrCacheFull) {
				t.Errorf("one more: %v", err)
			}
		})
	}
}

// A whole sequence can be copied in models of all kinds, and the copy does not depend on the original
// afterwards: both can be continued, and the original can be dropped.
func TestCopy(t *testing.T) {
	n := 200
	if testing.Short() {
		n = 60
	}
	for name, memory := range kinds() {
		t.Run(name, func(t *testing.T) {
			m, c := loadFile(t, file(t, memory.write), llama.ContextOptions{NCtx: 2048, NBatch: 32, NSeq: 4, Threads: 1})
			prompt, left, right := text(1, n), text(2, 30), text(3, 30)
			join := func(tail []llama.Token) []llama.Token { return append(prompt[:n:n], tail...) }
			wantLeft, wantRight := fresh(t, m, c, join(left)), fresh(t, m, c, join(right))
			_, err := read(c, 3, 0, text(4, 50)) // these tokens are replaced
			if _, more := read(c, 2, 0, prompt); errors.Join(err, more, c.Copy(2, 3, n), c.Copy(2, 0, n)) != nil {
				t.Fatal(err, more)
			}
			if off := continuation(t, m, c, 3, n, left, wantLeft).distance(wantLeft); off > rounding {
				t.Errorf("the copy: log probabilities differ by %g", off)
			}
			if off := continuation(t, m, c, 2, n, right, wantRight).distance(wantRight); off > rounding {
				t.Errorf("the original: log probabilities differ by %g", off)
			}
			if err := c.Truncate(2, 0); err != nil {
				t.Fatal(err)
			}
			if off := continuation(t, m, c, 0, n, left, wantLeft).distance(wantLeft); off > rounding {
				t.Errorf("a copy whose original is gone: log probabilities differ by %g", off)
			}
			if err := errors.Join(c.Truncate(0, 1000), c.Truncate(1, 1000), c.Truncate(0, 0), c.Copy(0, 3, 0)); err != nil {
				t.Error(err)
			}
			if off := continuation(t, m, c, 0, 0, join(left), wantLeft).distance(wantLeft); off > rounding {
				t.Errorf("after a cut to nothing: log probabilities differ by %g", off)
			}
			if off := continuation(t, m, c, 3, 0, join(left), wantLeft).distance(wantLeft); off > rounding {
				t.Errorf("after a copy of nothing: log probabilities differ by %g", off)
			}
		})
	}
}

// A saved state, loaded into another sequence, continues like the original, even after the original
// was dropped and the cache was used for other sequences. An invalid state is refused, and leaves the
// sequence empty.
func TestSaveAndLoad(t *testing.T) {
	for name, memory := range kinds() {
		t.Run(name, func(t *testing.T) {
			m, c := loadFile(t, file(t, memory.write), llama.ContextOptions{NCtx: 512, NBatch: 32, NSeq: 3, Threads: 1})
			tokens := text(1, 100)
			if _, err := read(c, 0, 0, tokens); err != nil {
				t.Fatal(err)
			}
			state, err := c.Save(0, 0, len(tokens))
			if err != nil {
				t.Fatal(err)
			}
			want := continuation(t, m, c, 0, len(tokens), text(2, 3))
			if err := c.Truncate(0, 0); err != nil {
				t.Fatal(err)
			}
			if _, err := read(c, 2, 0, text(3, 200)); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := errors.Join(c.Truncate(1, 0), c.Load(1, state)); err != nil {
					t.Fatal(err)
				}
				if off := continuation(t, m, c, 1, len(tokens), text(2, 3), want).distance(want); off > rounding {
					t.Errorf("it went on, but log probabilities differ by %g", off)
				}
			}
			for what, bad := range map[string][]byte{"nothing": nil, "a part": state[:len(state)/2], "rubbish": bytes.Repeat([]byte{1}, 64)} {
				if err := c.Truncate(1, 0); err != nil {
					t.Fatal(err)
				}
				if err := c.Load(1, bad); err == nil {
					t.Errorf("%s was taken", what)
				}
				continuation(t, m, c, 1, 0, tokens[:5]) // fails unless the sequence is empty
			}
		})
	}
}

// Pieces of KV state from one context can be loaded into another, one after the other. Invalid pieces
// are refused. A recurrent model saves no pieces.
func TestPieces(t *testing.T) {
	for name, memory := range kinds() {
		t.Run(name, func(t *testing.T) {
			m, c := loadFile(t, file(t, memory.write), llama.ContextOptions{NCtx: 512, NBatch: 32, NSeq: 3, Threads: 1})
			tokens, more := text(1, 100), text(2, 3)
			want := fresh(t, m, c, append(tokens[:100:100], more...))
			pieces, err := piecesOf(m, tokens, 10, 50, 100)
			if !memory.cuts {
				if !errors.Is(err, llama.ErrCannotTruncate) {
					t.Fatalf("a piece of a sequence that cannot be truncated: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			_, err = read(c, 0, 0, text(3, 50)) // another sequence
			if err := errors.Join(err, c.Load(1, pieces[0]), c.Load(1, pieces[1])); err != nil {
				t.Fatal(err)
			}
			for what, bad := range map[string][]byte{"nothing": nil, "a part": pieces[2][:len(pieces[2])/2]} {
				if err := c.Load(1, bad); err == nil {
					t.Errorf("%s was taken", what)
				}
			}
			if name == "whole" && c.Load(1, pieces[1]) == nil {
				t.Error("the same piece was loaded twice")
			}
			if err := errors.Join(c.Copy(1, 2, 50), c.Load(2, pieces[2])); err != nil {
				t.Fatal(err)
			}
			if off := continuation(t, m, c, 2, 100, more, want).distance(want); off > rounding {
				t.Errorf("it went on, but log probabilities differ by %g", off)
			}
			if off := continuation(t, m, c, 1, 50, append(tokens[50:100:100], more...), want).distance(want); off > rounding {
				t.Errorf("the sequence with two pieces: log probabilities differ by %g", off)
			}
			if _, err := c.Save(1, 30, 20); err == nil {
				t.Error("a piece that ends before it begins was saved")
			}
		})
	}
}

// piecesOf decodes tokens in a context of idle priority, on a thread of its own. It returns the KV
// state in pieces that end at the given positions.
func piecesOf(m *llama.Model, tokens []llama.Token, ends ...int) (pieces [][]byte, err error) {
	var other sync.WaitGroup
	other.Go(func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var c *llama.Context
		if c, err = llama.NewContext(m, llama.ContextOptions{NCtx: 256, NBatch: 32, NSeq: 2, Threads: 1, IdlePriority: true}); err != nil {
			return
		}
		defer c.Close()
		if _, err = read(c, 0, 0, tokens); err != nil {
			return
		}
		for from := 0; len(ends) > 0 && err == nil; from, ends = ends[0], ends[1:] {
			var state []byte
			state, err = c.Save(0, from, ends[0])
			pieces = append(pieces, state)
		}
	})
	other.Wait()
	return pieces, err
}

// Tokens older than an attention window may be overwritten. A truncation that needs them then fails
// with ErrCannotTruncate; after any successful truncation the continuation is right.
func TestTruncateBehindTheWindow(t *testing.T) {
	if testing.Short() {
		t.Skip("reads many prompts")
	}
	m, c := loadFile(t, file(t, builtin.Sliding), llama.ContextOptions{NCtx: 512, NBatch: 32, NSeq: 2, Threads: 1})
	const room = 30 // free cells before the sequence
	prompt, other := text(1, 300), text(2, 30)
	refused, granted := 0, 0
	for _, others := range []int{room, 2 * room, 5 * room} {
		for _, n := range []int{299, 270, 150, 20} {
			want := fresh(t, m, c, append(prompt[:n:n], other...))
			_, before := read(c, 1, 0, text(3, room))
			_, own := read(c, 0, 0, prompt)
			cleared := c.Truncate(1, 0)
			_, after := read(c, 1, 0, text(4, others))
			if err := errors.Join(before, own, cleared, after); err != nil {
				t.Fatal(err)
			}
			err := c.Truncate(0, n)
			switch {
			case err == nil:
				granted++
			case errors.Is(err, llama.ErrCannotTruncate):
				refused++
				if copied := c.Copy(0, 1, n); !errors.Is(copied, llama.ErrCannotTruncate) {
					t.Errorf("a sequence that cannot be truncated is copied: %v", copied)
				}
				err := c.Truncate(0, 0)
				if _, again := read(c, 0, 0, prompt[:n]); errors.Join(err, again) != nil {
					t.Fatal(err, again)
				}
			default:
				t.Fatal(err)
			}
			if off := continuation(t, m, c, 0, n, other, want).distance(want); off > rounding {
				t.Errorf("cut to %d beside %d: log probabilities differ by %g", n, others, off)
			}
		}
	}
	if refused == 0 || granted == 0 {
		t.Errorf("%d cuts granted, %d refused: the test has not met both", granted, refused)
	}
}

// A long computation can be aborted. Afterwards each of its sequences can be truncated to its
// earlier length, or decoded again.
func TestAbort(t *testing.T) {
	for name, memory := range kinds() {
		t.Run(name, func(t *testing.T) {
			most := 1024
			if testing.Short() {
				most = 256
			}
			m, c := loadFile(t, file(t, memory.write), llama.ContextOptions{NCtx: 8192, NBatch: most, NSeq: 2, Threads: 1})
			prompt, beside := text(1, most-1), text(2, 40)
			wantPrompt, wantBeside := fresh(t, m, c, prompt), fresh(t, m, c, beside)

			last := len(beside) - 1
			if _, err := read(c, 1, 0, beside[:last]); err != nil {
				t.Fatal(err)
			}
			c.Abort() // without a computation; it does not affect the next one
			calledOff := false
			for try := 0; !calledOff; try++ {
				if try == 1000 {
					t.Fatal("no computation was aborted")
				}
				if err := c.Add(beside[last], last, 1, true); err != nil {
					t.Fatal(err)
				}
				for i, tok := range prompt {
					if err := c.Add(tok, i, 0, i == len(prompt)-1); err != nil {
						t.Fatal(err)
					}
				}
				computing := make(chan struct{})
				var caller sync.WaitGroup
				caller.Go(func() {
					for {
						select {
						case <-computing:
							return
						default:
							c.Abort()
							runtime.Gosched()
						}
					}
				})
				err := c.Decode()
				close(computing)
				caller.Wait()
				if err != nil && !errors.Is(err, llama.ErrAborted) {
					t.Fatal(err)
				}
				calledOff = err != nil
				if err := errors.Join(c.Truncate(0, 0), decodeAgain(c, 1, beside[:last])); err != nil {
					t.Fatal(err)
				}
			}
			if off := continuation(t, m, c, 1, last, beside[last:], wantBeside).distance(wantBeside); off > rounding {
				t.Errorf("the sequence beside: log probabilities differ by %g", off)
			}
			if off := continuation(t, m, c, 0, 0, prompt, wantPrompt).distance(wantPrompt); off > rounding {
				t.Errorf("read anew: log probabilities differ by %g", off)
			}
		})
	}
}

// decodeAgain resets a sequence to the tokens that it had before: it truncates the sequence, or, if that is
// not possible, decodes the tokens again.
func decodeAgain(c *llama.Context, seq int, tokens []llama.Token) error {
	err := c.Truncate(seq, len(tokens))
	if errors.Is(err, llama.ErrCannotTruncate) {
		if err = c.Truncate(seq, 0); err == nil {
			_, err = read(c, seq, 0, tokens)
		}
	}
	return err
}

// Calls of Abort, during a computation or between two, do not affect computations that begin later.
func TestAbortBetween(t *testing.T) {
	m, c := load(t, "tiny")
	prompt := text(1, 100)
	want := fresh(t, m, c, prompt)
	stop := make(chan struct{})
	var caller sync.WaitGroup
	caller.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				c.Abort()
				runtime.Gosched()
			}
		}
	})
	_, err := read(c, 0, 0, prompt)
	close(stop)
	caller.Wait()
	if err != nil && !errors.Is(err, llama.ErrAborted) {
		t.Fatal(err)
	}
	if off := fresh(t, m, c, prompt, want).distance(want); off > rounding {
		t.Errorf("afterwards: log probabilities differ by %g", off)
	}
}

// With one processor per thread, the threads of a context, including the decoding one, are bound to
// processors. Threads of idle priority are not.
func TestThreadsStay(t *testing.T) {
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	threads := all.Count()
	if threads < 2 {
		t.Skip("there is one processor only")
	}
	before := bound(t, threads)
	m, c := loadFile(t, file(t, builtin.Sliding), llama.ContextOptions{NCtx: 512, NBatch: 32, NSeq: 2, Threads: threads})
	if got := bound(t, threads) - before; got != threads-1 {
		t.Errorf("before the first batch %d of %d threads are bound", got, threads)
	}
	if _, err := read(c, 0, 0, text(1, 40)); err != nil {
		t.Fatal(err)
	}
	if got := bound(t, threads) - before; got != threads {
		t.Errorf("%d of %d threads are bound", got, threads)
	}
	var other sync.WaitGroup
	other.Go(func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		c, err := llama.NewContext(m, llama.ContextOptions{NCtx: 256, NBatch: 32, NSeq: 2, Threads: threads, IdlePriority: true})
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		if got := bound(t, threads) - before; got != threads {
			t.Errorf("beside a context of idle priority %d of %d threads are bound", got, threads)
		}
	})
	other.Wait()
}

// bound returns the number of threads of this process that may not use all processors.
func bound(t *testing.T, processors int) (n int) {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Error(err)
	}
	for _, task := range tasks {
		id, _ := strconv.Atoi(task.Name()) // the name is a number
		var set unix.CPUSet
		if unix.SchedGetaffinity(id, &set) == nil && set.Count() < processors { // an error means that the thread has ended
			n++
		}
	}
	return n
}
