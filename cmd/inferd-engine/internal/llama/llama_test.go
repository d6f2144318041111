package llama_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/llama"
	"github.com/inferd-go/inferd/internal/builtin"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/paths"
)

func TestMain(m *testing.M) {
	if err := llama.Open(folder()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// folder returns the folder of llama.cpp's libraries.
func folder() string {
	if lib := os.Getenv("INFERD_ENGINE_LIB"); lib != "" {
		return lib
	}
	return paths.Default().EngineDir()
}

// libraries makes a folder with links to the libraries of the test, except that libllama.so is a link
// to target, or missing if target is empty. It returns the path of the folder.
func libraries(t *testing.T, target string) string {
	t.Helper()
	dir, from := t.TempDir(), folder()
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() == "libllama.so" {
			continue
		}
		if err := os.Symlink(filepath.Join(from, e.Name()), filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	if target != "" {
		if err := os.Symlink(target, filepath.Join(dir, "libllama.so")); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Wrong libraries are reported before they are used. Each case is a process of its own, in which
// TestMain opens the libraries.
func TestOpenFailures(t *testing.T) {
	missing := libraries(t, "")
	if err := llama.Open(missing); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a library that is not there: %v", err)
	}
	content, err := os.ReadFile(filepath.Join(folder(), "libllama.so"))
	if err != nil {
		t.Fatal(err)
	}
	older := bytes.Replace(content, []byte("\x000.5.0"), []byte("\x000.4.9"), 1)
	if bytes.Equal(older, content) {
		t.Fatal("the library does not hold its version")
	}
	other := filepath.Join(t.TempDir(), "older.so")
	if err := os.WriteFile(other, older, 0o600); err != nil {
		t.Fatal(err)
	}
	text := filepath.Join(t.TempDir(), "text.so")
	if err := os.WriteFile(text, []byte("no library"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		dir  string
		want []string
	}{
		"a library that is not there": {missing, []string{"libllama.so", "no such file"}},
		"a folder that is not there":  {filepath.Join(missing, "none"), []string{"libllama.so", "no such file"}},
		"another version":             {libraries(t, other), []string{"libllama.so is llama.cpp 0.4.9", "made for 0.5.0"}},
		"a library without a version": {libraries(t, filepath.Join(folder(), "libggml-base.so")), []string{"libllama.so is not llama.cpp 0.5.0"}},
		"a file that is no library":   {libraries(t, text), []string{"libllama.so"}},
	} {
		t.Run(name, func(t *testing.T) {
			again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
			again.Env = append(os.Environ(), "INFERD_ENGINE_LIB="+test.dir)
			out, err := again.CombinedOutput()
			if err == nil {
				t.Errorf("it is opened: %s", out)
			}
			for _, want := range append(test.want, `run "make engine"`) {
				if !strings.Contains(string(out), want) {
					t.Errorf("got %s, want %q in it", out, want)
				}
			}
		})
	}
}

// load returns a built-in model and a context of it. It locks the test to its OS thread.
func load(t *testing.T, name string) (*llama.Model, *llama.Context) {
	t.Helper()
	path, err := builtin.Ensure(t.TempDir(), name)
	if err != nil {
		t.Fatal(err)
	}
	return loadFile(t, path, llama.ContextOptions{NCtx: 512, NBatch: 32, NSeq: 3, Threads: 1})
}

// loadFile is like load, for a model in a file and with options for the context.
func loadFile(t *testing.T, path string, opt llama.ContextOptions) (*llama.Model, *llama.Context) {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	var seen []float64
	m, err := llama.Load(path, llama.Options{}, func(f float64) bool { seen = append(seen, f); return true })
	if err != nil {
		t.Fatal(err)
	}
	if len(seen) == 0 || seen[len(seen)-1] != 1 || !slices.IsSorted(seen) {
		t.Errorf("progress %v", seen)
	}
	c, err := llama.NewContext(m, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); m.Close() })
	return m, c
}

func TestModel(t *testing.T) {
	m, _ := load(t, "chain")
	if m.Name() != "builtin-chain" || m.ContextTrained() != 16384 || !m.IsGenerative() || m.AddBOS() || m.ChatTemplate() == "" {
		t.Errorf("%q, %d, %v, %v, %q", m.Name(), m.ContextTrained(), m.IsGenerative(), m.AddBOS(), m.ChatTemplate())
	}
	text := "a é\x00\U0001F600\n"
	tokens, err := m.Tokenize(text, false)
	if err != nil || len(tokens) != len(text) {
		t.Errorf("%d tokens for %d bytes, %v", len(tokens), len(text), err)
	}
	var back []byte
	for _, tok := range tokens {
		back = m.AppendPiece(back, tok)
	}
	if string(back) != text {
		t.Errorf("%q became %q", text, back)
	}
	eos, ok := m.EOS()
	if !ok || !m.IsEOG(eos) || m.IsEOG(tokens[0]) {
		t.Errorf("the end is %d, %v", eos, ok)
	}
	if piece := m.AppendPiece(nil, eos); len(piece) != 0 {
		t.Errorf("the end is spelt %q", piece)
	}
	spelling := m.TokenText(eos)
	texts := m.TokenTexts()
	if !slices.Contains(texts.Specials, spelling) {
		t.Errorf("%q is not in %q", spelling, texts.Specials)
	}
	if texts.Markers[spelling] != eos || !slices.Contains(texts.Ends, eos) {
		t.Errorf("%q is marker %d, the ends are %v", spelling, texts.Markers[spelling], texts.Ends)
	}
	if texts.Longest < len(spelling) || texts.Longest > 100 {
		t.Errorf("the longest token has %d bytes", texts.Longest)
	}
	if got, _ := m.Tokenize(spelling, true); len(got) != 1 || got[0] != eos {
		t.Errorf("%q with special is %v", spelling, got)
	}
	if got, _ := m.Tokenize(spelling, false); len(got) != len(spelling) {
		t.Errorf("%q without is %v", spelling, got)
	}
	if !m.IsControl(eos) || m.IsControl(tokens[0]) {
		t.Errorf("control tokens: %v, %v", m.IsControl(eos), m.IsControl(tokens[0]))
	}
	if m.NTokens() < 256 {
		t.Errorf("%d tokens", m.NTokens())
	}
	if got, ok := m.Metadata("general.architecture"); got != "llama" || !ok {
		t.Errorf("the architecture is %q, %v", got, ok)
	}
	if got, ok := m.Metadata("nothing.of.the.kind"); got != "" || ok {
		t.Errorf("a key that is not there has %q, %v", got, ok)
	}
}

// A token outside the vocabulary has no properties, and does not end the process.
func TestNoSuchToken(t *testing.T) {
	m, c := load(t, "chain")
	for _, tok := range []llama.Token{-1, llama.Token(m.NTokens()), 1 << 30} {
		if m.IsEOG(tok) || m.IsControl(tok) || m.TokenText(tok) != "" || len(m.AppendPiece(nil, tok)) != 0 {
			t.Errorf("token %d: %v, %v, %q", tok, m.IsEOG(tok), m.IsControl(tok), m.TokenText(tok))
		}
		if err := errors.Join(c.Add(tok, 0, 0, true), c.Decode()); err == nil {
			t.Errorf("token %d is decoded", tok)
		}
	}
}

// Each NUL of a text becomes a token, although a C string would end there. The text is long, so that
// a cost quadratic in the number of NULs would show as a slow test.
func TestManyNULs(t *testing.T) {
	m, _ := load(t, "chain")
	const n = 1 << 18
	tokens, err := m.Tokenize(strings.Repeat("\x00", n), true)
	if err != nil || len(tokens) != n {
		t.Fatalf("%d tokens for %d bytes, %v", len(tokens), n, err)
	}
	for i, tok := range tokens {
		if got := m.AppendPiece(nil, tok); string(got) != "\x00" {
			t.Fatalf("token %d is %q", i, got)
		}
	}
}

// run decodes a prompt in sequence seq, samples n tokens, and returns their text. It drops the
// sequence.
func run(t *testing.T, m *llama.Model, c *llama.Context, seq int, prompt string, n int, opt llama.SamplerOptions) string {
	t.Helper()
	s, err := llama.NewSampler(m, opt)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Free()
	tokens, err := m.Tokenize(prompt, false)
	if err != nil {
		t.Fatal(err)
	}
	var out []byte
	last := len(tokens) - 1
	for i, tok := range tokens {
		if err := c.Add(tok, i, seq, i == last); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		if err := c.Decode(); err != nil {
			t.Fatal(err)
		}
		tok, err := s.Sample(c, last)
		if err != nil {
			t.Fatal(err)
		}
		out = m.AppendPiece(out, tok)
		last = 0
		if err := c.Add(tok, len(tokens)+i, seq, true); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Decode(); err != nil {
		t.Fatal(err)
	}
	if err := c.Truncate(seq, 0); err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestSamplers(t *testing.T) {
	m, c := load(t, "tiny")
	seed := func(n uint32) infer.Sampling { return infer.Sampling{Temperature: new(1.0), Seed: &n} }
	text := func(opt llama.SamplerOptions) string { return run(t, m, c, 0, "hello", 30, opt) }
	if a, b := text(llama.SamplerOptions{Sampling: seed(1)}), text(llama.SamplerOptions{Sampling: seed(1)}); a != b {
		t.Errorf("one seed: %q, %q", a, b)
	}
	if a, b := text(llama.SamplerOptions{Sampling: seed(1)}), text(llama.SamplerOptions{Sampling: seed(2)}); a == b {
		t.Errorf("two seeds: %q", a)
	}
	greedy := text(llama.SamplerOptions{})
	one := seed(3)
	one.TopK = new(1)
	if got := text(llama.SamplerOptions{Sampling: one}); got != greedy {
		t.Errorf("top-k 1: %q, greedy %q", got, greedy)
	}
	minimal := seed(3)
	minimal.MinP = new(1.0)
	if got := text(llama.SamplerOptions{Sampling: minimal}); got != greedy {
		t.Errorf("min-p 1: %q, greedy %q", got, greedy)
	}
	if got := text(llama.SamplerOptions{Sampling: infer.Sampling{RepeatPenalty: new(100.0)}}); repeats(got) && repeats(greedy) {
		t.Errorf("a penalty on repeats: %q", got)
	}
}

// repeats reports whether a byte occurs twice.
func repeats(s string) bool {
	for i := range len(s) {
		if strings.Count(s, s[i:i+1]) > 1 {
			return true
		}
	}
	return false
}

func TestSequencesTogether(t *testing.T) {
	m, c := load(t, "chain")
	alone := run(t, m, c, 2, "c", 10, llama.SamplerOptions{})
	if alone != "defghijklm" {
		t.Fatalf("alone: %q", alone)
	}
	// Two sequences in each batch.
	s, err := llama.NewSampler(m, llama.SamplerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Free()
	var out [2][]byte
	last := [2]llama.Token{'a', 'p'}
	for seq, letter := range []string{"a", "p"} {
		tokens, _ := m.Tokenize(letter, false)
		last[seq] = tokens[0]
	}
	for pos := range 5 {
		for seq, tok := range last {
			if err := c.Add(tok, pos, seq, true); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Decode(); err != nil {
			t.Fatal(err)
		}
		for seq := range last {
			if last[seq], err = s.Sample(c, seq); err != nil {
				t.Fatal(err)
			}
			out[seq] = m.AppendPiece(out[seq], last[seq])
		}
	}
	if string(out[0]) != "bcdef" || string(out[1]) != "qrstu" {
		t.Errorf("together: %q", out)
	}
}

// Calls with wrong arguments, for which llama.cpp would end the process, return errors.
func TestMisuse(t *testing.T) {
	m, c := load(t, "chain")
	for name, err := range map[string]error{
		"a sequence beyond the last": c.Add(1, 0, 3, false),
		"a negative sequence":        c.Add(1, 0, -1, false),
		"a position outside":         c.Add(1, 512, 0, false),
		"an empty batch":             c.Decode(),
		"a sequence to clear":        c.Truncate(3, 0),
		"a sequence to cut":          c.Truncate(3, 1),
		"a cut before the start":     c.Truncate(0, -1),
		"a copy from nowhere":        c.Copy(3, 0, 0),
		"a copy to nowhere":          c.Copy(0, 3, 0),
		"a copy into itself":         c.Copy(0, 0, 0),
		"a copy of too many tokens":  c.Copy(0, 1, 1),
		"a context of no threads":    second(llama.NewContext(m, llama.ContextOptions{NCtx: 1, NBatch: 1, NSeq: 1})),
		"a context of too many":      second(llama.NewContext(m, llama.ContextOptions{NCtx: 1, NBatch: 1, NSeq: 1 << 20, Threads: 1})),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	s, err := llama.NewSampler(m, llama.SamplerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Free()
	if err := errors.Join(c.Add(70, 0, 0, false), c.Add(70, 1, 0, true), c.Decode()); err != nil {
		t.Fatal(err)
	}
	if c.NCtx() < 512 {
		t.Errorf("a cache of %d tokens", c.NCtx())
	}
	for _, i := range []int{-1, 0, 2, 31, 32, 1 << 20} {
		if _, err := s.Sample(c, i); err == nil {
			t.Errorf("entry %d has no logits, but is sampled", i)
		}
	}
	if _, err := s.Sample(c, 1); err != nil {
		t.Error(err)
	}
	for range 32 {
		if err := c.Add(70, 0, 1, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Add(70, 0, 1, false); err == nil {
		t.Error("a full batch takes another token")
	}
}

// Texts are computed one by one only if the model has no KV cache and the scores of all texts would
// need too much memory.
func TestOneByOne(t *testing.T) {
	for _, test := range []struct {
		model  string
		tokens int
		want   bool
	}{{"embed", 512, false}, {"embed", 16384, true}, {"tiny", 16384, false}} {
		write := func(w io.Writer) error { return builtin.Write(test.model, w) }
		_, c := loadFile(t, file(t, write), llama.ContextOptions{
			NCtx: test.tokens, NBatch: test.tokens, NSeq: 1, Threads: 1, Encodes: true, Pooling: llama.Mean,
		})
		if got := c.OneByOne(); got != test.want {
			t.Errorf("OneByOne of %s in a context of %d tokens = %v", test.model, test.tokens, got)
		}
	}
}

// In a full cache Decode fails with ErrCacheFull, and keeps the sequences. Once a sequence is
// dropped, it succeeds again.
func TestCacheFull(t *testing.T) {
	m, c := load(t, "chain")
	var err error
	pos := make([]int, 3)
	for step := 0; err == nil; step++ {
		if step > c.NCtx() {
			t.Fatalf("%d tokens in a cache of %d", step, c.NCtx())
		}
		seq := step % len(pos)
		if err = c.Add(70, pos[seq], seq, true); err != nil {
			t.Fatal(err)
		}
		if err = c.Decode(); err == nil {
			pos[seq]++
		}
	}
	if !errors.Is(err, llama.ErrCacheFull) || pos[0]+pos[1]+pos[2] != c.NCtx() {
		t.Errorf("after %v tokens: %v", pos, err)
	}
	s, err := llama.NewSampler(m, llama.SamplerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Free()
	if _, err := s.Sample(c, 0); err == nil {
		t.Error("a decode that failed has logits")
	}
	if err := errors.Join(c.Truncate(1, 0), c.Add(70, pos[0], 0, true), c.Decode()); err != nil {
		t.Errorf("with one sequence cleared: %v", err)
	}
	if err := errors.Join(c.ClearAll(), c.Add(70, 0, 2, true), c.Decode()); err != nil {
		t.Errorf("with all cleared: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestLoadFailures(t *testing.T) {
	if _, err := llama.Load("/nonexistent.gguf", llama.Options{}, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	path := filepath.Join(t.TempDir(), "bad.gguf")
	if err := os.WriteFile(path, []byte("no model at all"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := llama.Load(path, llama.Options{}, nil); err == nil || !strings.Contains(err.Error(), "magic") {
		t.Errorf("no GGUF: %v", err)
	}
	good, err := builtin.Ensure(t.TempDir(), "chain")
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content[:len(content)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = llama.Load(path, llama.Options{}, nil)
	if err == nil || !strings.Contains(err.Error(), "not within the file bounds") || strings.Contains(err.Error(), "magic") {
		t.Errorf("half a file: %v", err)
	}
	if _, err := llama.Load(good, llama.Options{}, func(float64) bool { return false }); err == nil {
		t.Error("a canceled load succeeds")
	}
}

// A step makes at most 16 allocations. They come from the calls of C functions: the Go code of a step
// does not allocate.
func TestAllocations(t *testing.T) {
	m, c := load(t, "chain")
	s, err := llama.NewSampler(m, llama.SamplerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Free()
	pos := 0
	buf := make([]byte, 0, 64)
	perStep := testing.AllocsPerRun(100, func() {
		if err := errors.Join(c.Add(70, pos, 0, true), c.Decode()); err != nil {
			t.Fatal(err)
		}
		tok, err := s.Sample(c, 0)
		if err != nil {
			t.Fatal(err)
		}
		buf = m.AppendPiece(buf[:0], tok)
		pos++
	})
	if perStep > 16 {
		t.Errorf("%.0f allocations a step", perStep)
	}
	t.Logf("%.0f allocations a step", perStep)
}
