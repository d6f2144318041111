package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/batch"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/chat"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/constraint"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/engine"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/llama"
	"github.com/inferd-go/inferd/internal/builtin"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/paths"
)

func TestMain(m *testing.M) {
	lib := os.Getenv("INFERD_ENGINE_LIB")
	if lib == "" {
		lib = paths.Default().EngineDir()
	}
	if err := llama.Open(lib); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// load runs an engine with a built-in model during a test.
func load(t *testing.T, name string, limits batch.Limits) *engine.Engine {
	t.Helper()
	return loadWith(t, name, limits, func(*batch.Loop, *llama.Model) {})
}

// loadWith is like load, but calls change with the loop before the loop runs.
func loadWith(t *testing.T, name string, limits batch.Limits, change func(*batch.Loop, *llama.Model)) *engine.Engine {
	t.Helper()
	path, err := builtin.Ensure(t.TempDir(), name)
	if err != nil {
		t.Fatal(err)
	}
	return loadFile(t, path, limits, change)
}

func loadFile(t *testing.T, path string, limits batch.Limits, change func(*batch.Loop, *llama.Model)) *engine.Engine {
	t.Helper()
	model, err := llama.Load(path, llama.Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	texts := model.TokenTexts()
	bos, _ := model.BOS()
	eos, _ := model.EOS()
	template, err := chat.New(model.ChatTemplate(), texts.Specials, model.TokenText(bos), model.TokenText(eos))
	if err != nil {
		t.Fatal(err)
	}
	lctx, err := llama.NewContext(model, llama.ContextOptions{NCtx: limits.Context, NBatch: limits.Batch, NSeq: limits.Sequences + limits.Retained, Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	e := &engine.Engine{Model: model, Context: lctx, Template: template, LongestToken: texts.Longest, Formats: &constraint.Compiler{Model: model}, Loop: &batch.Loop{
		Decoder: lctx, Memory: lctx, Whole: !model.CanTruncate(), Limits: limits,
	}}
	change(e.Loop, model)
	ctx, cancel := context.WithCancel(context.Background())
	var loop sync.WaitGroup
	loop.Go(func() { _ = e.Loop.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		loop.Wait()
		lctx.Close()
		model.Close()
	})
	return e
}

// ask returns the text of an answer, and its Done.
func ask(t *testing.T, e *engine.Engine, gen *infer.Generate) (string, infer.Done) {
	t.Helper()
	var text strings.Builder
	var done infer.Done
	err := e.Handle(t.Context(), &infer.Request{Task: gen}, func(ev infer.Event) error {
		switch ev := ev.(type) {
		case *infer.Text:
			text.Write(ev.Delta)
		case *infer.Done:
			done = *ev
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return text.String(), done
}

func user(text string, most int) *infer.Generate {
	return &infer.Generate{Messages: []infer.Message{infer.TextMessage(infer.User, text)}, MaxTokens: most, Sampling: infer.Sampling{Temperature: new(1.0), TopP: new(0.95), TopK: new(64)}}
}

// Each request gets its own answer from a real model, even in a context so small that sequences are
// evicted repeatedly.
func TestParkedSequencesKeepTheirText(t *testing.T) {
	sizes := []int{4096, 512, 256}
	if testing.Short() {
		sizes = sizes[2:]
	}
	for _, size := range sizes {
		t.Run(fmt.Sprintf("context %d", size), func(t *testing.T) {
			e := load(t, "loop", batch.Limits{Context: size, Batch: 64, Sequences: 4})
			var all sync.WaitGroup
			for i := range 6 {
				all.Go(func() {
					first := 'a' + rune(3*i)
					got, done := ask(t, e, user(string(first), 120))
					var want strings.Builder
					for j := range 120 {
						want.WriteByte('a' + byte((int(first-'a')+1+j)%26))
					}
					if got != want.String() || done.Out != 120 || done.Reason != infer.Length {
						t.Errorf("%c: %q, %+v", first, got, done)
					}
				})
			}
			all.Wait()
		})
	}
}

// Greedy text does not depend on the other sequences, unless two tokens are nearly equally likely.
func TestNeighboursDoNotShow(t *testing.T) {
	e := load(t, "tiny", batch.Limits{Context: 8192, Batch: 256, Sequences: 9, Retained: 20})
	all := []int{0, 1, 4, 8}
	if testing.Short() {
		all = []int{4}
	}
	asked, want := questions(t, e, all[len(all)-1]+1, 20, func(i int) string { return fmt.Sprintf("question %d", i) })
	for _, neighbours := range all {
		var all sync.WaitGroup
		for i := range neighbours + 1 {
			all.Go(func() {
				if got, _, err := answer(t.Context(), e, greedyRequest("1000", 20, asked[i]), nil); err != nil || got != want[i] {
					t.Errorf("beside %d others, %d wrote %q, %v; alone %q", neighbours, i, got, err, want[i])
				}
			})
		}
		all.Wait()
	}
}

// A prompt may have any characters, control characters included.
func TestAnyBytesInThePrompt(t *testing.T) {
	e := load(t, "chain", batch.Limits{Context: 2048, Batch: 256, Sequences: 1})
	var all strings.Builder
	for r := range rune(300) {
		all.WriteRune(r)
	}
	if got, done := ask(t, e, user(all.String()+"w", 10)); got != "xyz" || done.In != len(all.String())+1 {
		t.Errorf("%q, %+v; the prompt has %d bytes", got, done, all.Len()+1)
	}
}

// Spellings of control tokens in a message are text: one token per byte.
func TestSpecialSpellingsStayText(t *testing.T) {
	e := load(t, "tiny", batch.Limits{Context: 2048, Batch: 256, Sequences: 1})
	_, plain := ask(t, e, user("", 1))
	specials := e.Model.TokenTexts().Specials
	for _, special := range specials {
		_, got := ask(t, e, user(special, 1))
		if want := plain.In + len(special); got.In != want { // one token per byte
			t.Errorf("%q took %d tokens, want %d", special, got.In-plain.In, want-plain.In)
		}
	}
	if len(specials) < 3 {
		t.Errorf("specials %q", specials)
	}
}

func TestCancelFreesTheSlot(t *testing.T) {
	e := load(t, "loop", batch.Limits{Context: 4096, Batch: 256, Sequences: 1})
	ctx, cancel := context.WithCancel(t.Context())
	err := e.Handle(ctx, &infer.Request{Task: user("a", 4000)}, func(infer.Event) error {
		cancel()
		return nil
	})
	if err == nil {
		t.Error("no error")
	}
	if got, _ := ask(t, e, user("a", 3)); got != "bcd" {
		t.Errorf("then %q", got)
	}
}

func TestInvalidModels(t *testing.T) {
	dir := t.TempDir()
	good, err := builtin.Ensure(dir, "chain")
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"empty": {}, "no GGUF": []byte("hello"), "truncated": content[:len(content)/2], "cut in the header": content[:100],
	} {
		path := filepath.Join(dir, "bad.gguf")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if m, err := llama.Load(path, llama.Options{}, nil); err == nil {
			m.Close()
			t.Errorf("%s: it loads", name)
		} else if len(err.Error()) < 10 {
			t.Errorf("%s: %v says nothing", name, err)
		}
	}
}

// Logprobs are sent with the text of their tokens, even if that text was held back before. Each token
// of a sent text has one.
func TestLogprobsComeWithTheirText(t *testing.T) {
	e := load(t, "chain", batch.Limits{Context: 2048, Batch: 256, Sequences: 2})
	for name, test := range map[string]struct {
		stop []string
		want []string // each text with its tokens
	}{
		"a token a text":     {nil, []string{"v v", "w w", "x x"}},
		"text is held back":  {[]string{"vwy", "yy"}, []string{"vwx v w x"}},
		"and never sent":     {[]string{"wx"}, []string{"v v"}},
		"the end of a token": {[]string{"x"}, []string{"v v", "w w"}},
	} {
		gen := user("u", 3)
		gen.Sampling, gen.Stop, gen.Logprobs = infer.Sampling{}, test.stop, 2
		var got []string
		err := e.Handle(t.Context(), &infer.Request{Task: gen}, func(ev infer.Event) error {
			if ev, ok := ev.(*infer.Text); ok {
				one := bytes.Clone(ev.Delta)
				for _, l := range ev.Logprobs {
					one = append(append(one, ' '), l.Piece...)
					if len(l.Top) != 2 || l.Top[0].ID != l.ID || l.Logprob > 0 || l.Logprob < -1e-9 { // the token is certain
						t.Errorf("%s: %+v", name, l)
					}
				}
				if len(ev.Logprobs) != ev.Tokens {
					t.Errorf("%s: %d logprobs of %d tokens", name, len(ev.Logprobs), ev.Tokens)
				}
				got = append(got, string(one))
			}
			return nil
		})
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, %v; want %q", name, got, err, test.want)
		}
	}
}

// A request beyond the abilities is refused. The formats among the abilities constrain the answer.
func TestAbilities(t *testing.T) {
	e := load(t, "chain", batch.Limits{Context: 512, Batch: 64, Sequences: 1})
	drop := func(infer.Event) error { return nil }
	gen := user("a", 5)
	gen.Thinking = infer.ThinkOn
	if err := e.Handle(t.Context(), &infer.Request{Task: gen}, drop); infer.CodeOf(err) != infer.Invalid || !strings.Contains(err.Error(), "thinking is not supported") {
		t.Errorf("thinking: %v", err)
	}
	for _, task := range []infer.Task{&infer.Embed{Inputs: []string{"a"}}, &infer.Rerank{Query: "a", Documents: []string{"a"}}} {
		if e.Abilities().Do(task) {
			t.Errorf("it can do a %T", task)
		}
		if err := e.Handle(t.Context(), &infer.Request{Task: task}, drop); infer.CodeOf(err) != infer.Unsupported {
			t.Errorf("%T: %v", task, err)
		}
	}
	for name, format := range map[string]infer.Format{"{": {JSONObject: true}, "xyz": {Grammar: `root ::= "xyz"`}} {
		gen := user("a", 3)
		gen.Format = format
		if text, _ := ask(t, e, gen); !strings.HasPrefix(text, name) {
			t.Errorf("got %q, want %q", text, name)
		}
	}
}
