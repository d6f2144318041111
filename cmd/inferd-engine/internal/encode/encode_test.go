package encode_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/inferd-go/inferd/client/stats"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/encode"
)

// A toy is a Model that returns the sum of a sequence's tokens as each value of its result. A batch
// takes a second. The toy logs the batches, with the first token of each sequence.
type toy struct {
	tokens, sequences int // limits
	fail              int // number of the batch that fails, from 1

	batch   map[int][]encode.Token
	decoded map[int][]encode.Token
	log     []string
}

func (m *toy) Add(tok encode.Token, pos, seq int, _ bool) error {
	if m.batch == nil {
		m.batch = make(map[int][]encode.Token)
	}
	if pos != len(m.batch[seq]) || seq >= m.sequences {
		return fmt.Errorf("position %d of sequence %d", pos, seq)
	}
	m.batch[seq] = append(m.batch[seq], tok)
	return nil
}

func (m *toy) Decode() error {
	n := 0
	for _, tokens := range m.batch {
		n += len(tokens)
	}
	if n > m.tokens || n == 0 {
		return fmt.Errorf("a batch of %d", n)
	}
	var firsts []string
	for seq := range len(m.batch) {
		firsts = append(firsts, fmt.Sprint(m.batch[seq][0]))
	}
	m.log = append(m.log, strings.Join(firsts, " "))
	m.decoded, m.batch = m.batch, nil
	time.Sleep(time.Second)
	if m.fail == len(m.log) {
		return errors.New("out of memory")
	}
	return nil
}

func (m *toy) ClearAll() error {
	m.decoded = nil
	return nil
}

func (m *toy) AppendVector(dst []float32, seq, n int) ([]float32, error) {
	sum := float32(0)
	for _, tok := range m.decoded[seq] {
		sum += float32(tok)
	}
	for range n {
		dst = append(dst, sum)
	}
	return dst, nil
}

// run runs a loop over m until the test ends.
func run(t *testing.T, m *toy) *encode.Loop {
	t.Helper()
	l := &encode.Loop{Model: m, Limits: encode.Limits{Tokens: m.tokens, Sequences: m.sequences}, Width: 2}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = l.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return l
}

// inputs returns n sequences of the given length; sequence k begins with token first+k.
func inputs(first, n, length int) (all [][]encode.Token) {
	for k := range n {
		seq := make([]encode.Token, length)
		seq[0] = encode.Token(first + k)
		all = append(all, seq)
	}
	return all
}

func TestTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &toy{tokens: 10, sequences: 4}
		l := run(t, m)
		got, err := l.Do(t.Context(), 0, inputs(1, 7, 3))
		want := [][]float32{{1, 1}, {2, 2}, {3, 3}, {4, 4}, {5, 5}, {6, 6}, {7, 7}}
		if err != nil || !slices.EqualFunc(got, want, slices.Equal) {
			t.Errorf("got %v, %v", got, err)
		}
		if want := []string{"1 2 3", "4 5 6", "7"}; !slices.Equal(m.log, want) {
			t.Errorf("batches %q, want %q", m.log, want)
		}
	})
}

// A batch has at most Batch tokens, unless it is a single sequence with more. Each batch is
// computed inside Exclusive.
func TestBatchAndTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &toy{tokens: 10, sequences: 4}
		turns := 0
		l := &encode.Loop{
			Model: m, Limits: encode.Limits{Tokens: 10, Batch: 4, Sequences: 4}, Width: 1,
			Exclusive: func(compute func()) { turns++; compute() },
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = l.Run(ctx) })
		got, err := l.Do(t.Context(), 0, append(inputs(1, 3, 2), append(inputs(4, 1, 9), inputs(5, 1, 1)...)...))
		if want := [][]float32{{1}, {2}, {3}, {4}, {5}}; err != nil || !slices.EqualFunc(got, want, slices.Equal) {
			t.Errorf("got %v, %v", got, err)
		}
		if want := []string{"1 2", "3", "4", "5"}; !slices.Equal(m.log, want) || turns != 4 {
			t.Errorf("batches %q in %d turns, want %q", m.log, turns, want)
		}
		cancel()
		running.Wait()
	})
}

// The stats count every computed token, including those of canceled and failed jobs.
func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := run(t, &toy{tokens: 10, sequences: 4, fail: 3})
		ctx, cancel := context.WithCancel(t.Context())
		var asking sync.WaitGroup
		asking.Go(func() { _, _ = l.Do(ctx, 0, inputs(1, 7, 3)) })
		synctest.Wait()
		time.Sleep(1500 * time.Millisecond)
		if want, got := (stats.Engine{Sequences: 7, Steps: 1, PrefillTokens: 9, StepMS: 1000}), l.Stats(); !reflect.DeepEqual(got, want) {
			t.Errorf("in the middle: %+v, want %+v", got, want)
		}
		cancel()
		asking.Wait()
		_, _ = l.Do(t.Context(), 0, inputs(1, 1, 2)) // fails
		if want, got := (stats.Engine{Steps: 3, PrefillTokens: 20, StepMS: 1000}), l.Stats(); !reflect.DeepEqual(got, want) {
			t.Errorf("at the end: %+v, want %+v", got, want)
		}
	})
}

// A batch has at most as many tokens as take the time Longest, according to earlier batches.
func TestLongest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &toy{tokens: 8, sequences: 8} // each batch takes a second, whatever its size
		l := &encode.Loop{Model: m, Limits: encode.Limits{Tokens: 8, Sequences: 8}, Width: 1, Longest: 500 * time.Millisecond}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = l.Run(ctx) })
		if _, err := l.Do(t.Context(), 0, inputs(1, 16, 1)); err != nil {
			t.Error(err)
		}
		if want := "1 2 3 4 5 6 7 8|9 10 11 12|13 14 15|16"; strings.Join(m.log, "|") != want {
			t.Errorf("batches %q, want %s", m.log, want)
		}
		cancel()
		running.Wait()
	})
}

// A large job does not delay a small one.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &toy{tokens: 4, sequences: 4}
		l := run(t, m)
		begin := time.Now()
		var all sync.WaitGroup
		ends := make(map[string]time.Duration)
		var mu sync.Mutex
		do := func(name string, in [][]encode.Token) {
			all.Go(func() {
				if _, err := l.Do(t.Context(), 0, in); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				ends[name] = time.Since(begin)
			})
			synctest.Wait()
		}
		do("large", inputs(100, 20, 2))
		do("small", inputs(1, 2, 1))
		all.Wait()
		if ends["small"] != 2*time.Second || ends["large"] < 10*time.Second {
			t.Errorf("ends %v, batches %q", ends, m.log)
		}
	})
}

func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &toy{tokens: 4, sequences: 4}
		l := run(t, m)
		gone := errors.New("gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(1500*time.Millisecond, func() { cancel(gone) })
		if _, err := l.Do(ctx, 0, inputs(1, 100, 2)); !errors.Is(err, gone) {
			t.Errorf("got %v", err)
		}
		if len(m.log) != 2 {
			t.Errorf("%d batches were computed", len(m.log))
		}
	})
}

func TestFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &toy{tokens: 4, sequences: 4, fail: 1}
		l := run(t, m)
		if got, err := l.Do(t.Context(), 0, inputs(1, 1, 2)); err == nil || err.Error() != "encode: out of memory" || got != nil {
			t.Errorf("got %v, %v", got, err)
		}
		if got, err := l.Do(t.Context(), 0, inputs(1, 1, 2)); err != nil || got[0][0] != 1 {
			t.Errorf("the next got %v, %v", got, err)
		}
		for name, in := range map[string][][]encode.Token{"too long": inputs(1, 1, 5), "empty": {{}}} {
			if _, err := l.Do(t.Context(), 0, in); err == nil {
				t.Errorf("%s: no error", name)
			}
		}
		if got, err := l.Do(t.Context(), 0, nil); err != nil || got != nil {
			t.Errorf("nothing: %v, %v", got, err)
		}
	})
}

func TestLoopEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &encode.Loop{Model: &toy{tokens: 4, sequences: 4}, Limits: encode.Limits{Tokens: 4, Sequences: 4}}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = l.Run(ctx) })
		running.Go(func() {
			if _, err := l.Do(t.Context(), 0, inputs(1, 50, 4)); !errors.Is(err, encode.ErrStopped) {
				t.Errorf("a job in the loop got %v", err)
			}
		})
		synctest.Wait()
		cancel()
		running.Wait()
		if _, err := l.Do(t.Context(), 0, inputs(1, 1, 1)); !errors.Is(err, encode.ErrStopped) {
			t.Errorf("a later job gets %v", err)
		}
	})
}

// Whatever the jobs, each gets its own results, and no batch is too large.
func TestAnyJobs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &fast{toy{tokens: rapid.IntRange(1, 20).Draw(t, "tokens"), sequences: rapid.IntRange(1, 6).Draw(t, "sequences")}}
		l := &encode.Loop{Model: m, Limits: encode.Limits{Tokens: m.tokens, Sequences: m.sequences}, Width: 1}
		ctx, cancel := context.WithCancel(context.Background())
		var running, asking sync.WaitGroup
		running.Go(func() { _ = l.Run(ctx) })
		errs := make(chan error, 10)
		for j := range rapid.IntRange(1, 5).Draw(t, "jobs") {
			in := inputs(1000*j, rapid.IntRange(0, 12).Draw(t, "inputs"), 1)
			for k := range in {
				in[k] = append(in[k], make([]encode.Token, rapid.IntRange(0, m.tokens-1).Draw(t, "more"))...)
			}
			asking.Go(func() {
				got, err := l.Do(ctx, 0, in)
				for k, v := range got {
					if v[0] != float32(1000*j+k) {
						err = fmt.Errorf("input %d of job %d came to %v", k, j, v)
					}
				}
				if err == nil && len(got) != len(in) {
					err = fmt.Errorf("%d results of %d", len(got), len(in))
				}
				errs <- err
			})
		}
		asking.Wait()
		cancel()
		running.Wait()
		close(errs)
		for err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
	})
}

// fast is a toy that takes no time.
type fast struct{ toy }

func (m *fast) Decode() error {
	n := 0
	for _, tokens := range m.batch {
		n += len(tokens)
	}
	if n > m.tokens || len(m.batch) > m.sequences || n == 0 {
		return fmt.Errorf("a batch of %d in %d", n, len(m.batch))
	}
	m.decoded, m.batch = m.batch, nil
	return nil
}
