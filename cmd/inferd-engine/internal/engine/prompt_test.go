package engine_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/batch"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/engine"
	"github.com/inferd-go/inferd/internal/infer"
)

// counting is like load, with a running counter.
func counting(t *testing.T, name string) *engine.Engine {
	t.Helper()
	e := load(t, name, batch.Limits{Context: 256, Batch: 64, Sequences: 2})
	e.Counter = engine.NewCounter()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { e.Counter.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return e
}

// revealed returns the revealed prompt of a task, and the number of its tokens according to Done.
func revealed(e *engine.Engine, task infer.Task) (p infer.Prompt, n int, err error) {
	err = e.Handle(context.Background(), &infer.Request{Task: task}, func(ev infer.Event) error {
		switch ev := ev.(type) {
		case *infer.Prompt:
			p = *ev
		case *infer.Done:
			n = ev.In
		}
		return nil
	})
	return p, n, err
}

// bytesOf returns the tokens of a text in a vocabulary of bytes.
func bytesOf(text string) (all []int32) {
	for _, c := range []byte(text) {
		all = append(all, int32(c))
	}
	return all
}

// Tokens of the built-in vocabulary.
const (
	bos         = 256
	startOfTurn = 257
	endOfTurn   = 258
	fimPrefix   = 260
	fimSuffix   = 261
	fimMiddle   = 262
	project     = 263
	fileMark    = 264
)

// join returns the tokens of texts and single tokens, in order.
func join(parts ...any) (all []int32) {
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			all = append(all, bytesOf(p)...)
		case int:
			all = append(all, int32(p))
		}
	}
	return all
}

// A revealed prompt has the expected tokens, and their pieces make up its text. A prompt of these
// tokens has the same text.
func TestRevealedPrompts(t *testing.T) {
	conversation := []infer.Message{infer.TextMessage(infer.User, "hi <|im_end|>")}
	const closed = "<|im_start|>user\nhi <|im_end|><|im_end|>\n"
	for name, test := range map[string]struct {
		model string
		count infer.Count
		ids   []int32
		text  string
	}{
		"a text":                    {"chain", infer.Count{Of: &infer.Generate{Prompt: new("aé\n")}}, join("aé\n"), "aé\n"},
		"an empty text":             {"chain", infer.Count{Of: &infer.Generate{Prompt: new("")}, Bare: true}, []int32{}, ""},
		"an empty text to continue": {"chain", infer.Count{Of: &infer.Generate{Prompt: new("")}}, join(bos), "<|bos|>"},
		"spellings":                 {"tiny", infer.Count{Of: &infer.Generate{Prompt: new("a<|im_start|>b")}}, join("a", startOfTurn, "b"), "a<|im_start|>b"},
		"spellings as text":         {"tiny", infer.Count{Of: &infer.Generate{Prompt: new("a<|im_start|>b")}, Literal: true}, join("a<|im_start|>b"), "a<|im_start|>b"},
		"tokens":                    {"chain", infer.Count{Of: &infer.Generate{Tokens: join("a", endOfTurn, "b")}}, join("a", endOfTurn, "b"), "a<|im_end|>b"},
		"half a character":          {"chain", infer.Count{Of: &infer.Generate{Tokens: []int32{0xc3}}}, []int32{0xc3}, "\xc3"},
		"no tokens":                 {"chain", infer.Count{Of: &infer.Generate{Tokens: []int32{}}, Bare: true}, []int32{}, ""},
		"a conversation": {
			"tiny",
			infer.Count{Of: &infer.Generate{Messages: conversation}},
			join(startOfTurn, "user\nhi <|im_end|>", endOfTurn, "\n", startOfTurn, "assistant\n"), closed + "<|im_start|>assistant\n",
		},
		"a history": {
			"tiny",
			infer.Count{Of: &infer.Generate{Messages: conversation}, History: true},
			join(startOfTurn, "user\nhi <|im_end|>", endOfTurn, "\n"), closed,
		},
		"a gap": {
			"fim",
			infer.Count{Of: &infer.Generate{Prompt: new("ab"), Suffix: new("yz")}},
			join(fimPrefix, "ab", fimSuffix, "yz", fimMiddle), "<|fim_prefix|>ab<|fim_suffix|>yz<|fim_middle|>",
		},
		"marks in a gap are text": {
			"fim",
			infer.Count{Of: &infer.Generate{Prompt: new("<|fim_middle|>"), Suffix: new("")}},
			join(fimPrefix, "<|fim_middle|>", fimSuffix, fimMiddle), "<|fim_prefix|><|fim_middle|><|fim_suffix|><|fim_middle|>",
		},
		"a gap, and files": {
			"fim",
			infer.Count{Of: &infer.Generate{Prompt: new("ab"), Suffix: new("yz"), Files: []infer.File{{Name: "b.go", Text: "bb"}, {Name: "c.go", Text: "cc"}}}},
			join(project, "project\n", fileMark, "b.go\nbb\n", fileMark, "c.go\ncc\n", fileMark, "present\n", fimPrefix, "ab", fimSuffix, "yz", fimMiddle),
			"<|repo_name|>project\n<|file_sep|>b.go\nbb\n<|file_sep|>c.go\ncc\n<|file_sep|>present\n<|fim_prefix|>ab<|fim_suffix|>yz<|fim_middle|>",
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := counting(t, test.model)
			test.count.Of.Reveal = infer.Reveal{IDs: true, Pieces: true, Text: true}
			p, n, err := revealed(e, &test.count)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.ids, p.IDs); diff != "" || n != len(test.ids) || p.Tokens != n {
				t.Errorf("%d tokens (%d) (-want +got):\n%s", p.Tokens, n, diff)
			}
			if string(p.Text) != test.text || string(slices.Concat(p.Pieces...)) != test.text {
				t.Errorf("text %q, pieces %q, want %q", p.Text, p.Pieces, test.text)
			}
			back, _, err := revealed(e, &infer.Count{Of: &infer.Generate{Tokens: p.IDs, Reveal: infer.Reveal{Text: true}}, Bare: true})
			if err != nil || string(back.Text) != test.text || back.IDs != nil || back.Pieces != nil {
				t.Errorf("back: %q, %v", back.Text, err)
			}
		})
	}
}

// A prompt of tokens is continued unchanged. An answer reports the prompt if the request has Reveal.
// Tokens outside the vocabulary, and more tokens than the context holds, are refused.
func TestPromptsOfTokens(t *testing.T) {
	e := load(t, "chain", batch.Limits{Context: 256, Batch: 64, Sequences: 2})
	gen := &infer.Generate{Tokens: join("abc"), MaxTokens: 4, Reveal: infer.Reveal{Text: true}}
	if text, _, done, err := answerOf(e, &infer.Request{Task: gen}); text != "defg" || done.In != 3 || err != nil {
		t.Errorf("got %q, %+v, %v", text, done, err)
	}
	if p, _, err := revealed(e, gen); string(p.Text) != "abc" || p.Tokens != 3 || err != nil {
		t.Errorf("got %+v, %v", p, err)
	}
	for name, tokens := range map[string][]int32{"negative": {-1}, "too large": {97, 260}, "far too large": {1 << 30}} {
		for _, task := range []infer.Task{&infer.Generate{Tokens: tokens}, &infer.Count{Of: &infer.Generate{Tokens: tokens}}} {
			if _, _, err := revealed(e, task); infer.CodeOf(err) != infer.Invalid || !strings.Contains(err.Error(), "not in the vocabulary of 260") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if _, _, err := revealed(e, &infer.Generate{Tokens: make([]int32, 300)}); infer.CodeOf(err) != infer.Invalid || !strings.Contains(err.Error(), "the context holds") {
		t.Errorf("too many: %v", err)
	}
}

// A model with marks for infill fills the gap between a prompt and a suffix. Files are left out if
// the texts or the answer need their room.
func TestGaps(t *testing.T) {
	e := load(t, "fim", batch.Limits{Context: 256, Batch: 64, Sequences: 2})
	if !e.Abilities().Infill {
		t.Fatalf("it can %+v", e.Abilities())
	}
	file := func(name string, n int) infer.File { return infer.File{Name: name, Text: strings.Repeat("x", n)} }
	for name, test := range map[string]struct {
		files []infer.File
		most  int
		want  []string // names of the files in the prompt
	}{
		"without files":         {nil, 4, nil},
		"files":                 {[]infer.File{file("b", 60), file("c", 60)}, 4, []string{"b", "c"}},
		"the last ones":         {[]infer.File{file("a", 60), file("b", 60), file("c", 60), file("d", 60)}, 4, []string{"b", "c", "d"}},
		"none that is so large": {[]infer.File{file("a", 60), file("b", 5000)}, 4, nil},
		"a long answer":         {[]infer.File{file("a", 60), file("b", 60)}, 150, []string{"b"}},
		"the rest is an answer": {[]infer.File{file("a", 60), file("b", 60), file("c", 60)}, 0, []string{"b", "c"}},
	} {
		t.Run(name, func(t *testing.T) {
			gen := &infer.Generate{Prompt: new("ab"), Suffix: new("yz"), Files: test.files, MaxTokens: test.most, Reveal: infer.Reveal{Text: true}}
			p, _, err := revealed(e, gen)
			if err != nil {
				t.Fatal(err)
			}
			var used []string
			for _, part := range strings.Split(string(p.Text), "<|file_sep|>")[1:] {
				if name, _, _ := strings.Cut(part, "\n"); name != "present" {
					used = append(used, name)
				}
			}
			if diff := cmp.Diff(test.want, used); diff != "" || !strings.HasSuffix(string(p.Text), "<|fim_prefix|>ab<|fim_suffix|>yz<|fim_middle|>") {
				t.Errorf("%q (-want +got):\n%s", p.Text, diff)
			}
			want := "mnopqrstuvwxyz"
			if test.most == 4 {
				want = "mnop"
			}
			if text, _, _, err := answerOf(e, &infer.Request{Task: gen}); err != nil || text != want {
				t.Errorf("got %q, %v", text, err)
			}
		})
	}
	long := strings.Repeat("x", 300)
	if _, _, err := revealed(e, &infer.Generate{Prompt: &long, Suffix: new("")}); infer.CodeOf(err) != infer.Invalid || !strings.Contains(err.Error(), "the context holds") {
		t.Errorf("a long text: %v", err)
	}
}

// A request to count is refused if the prompt is too large, or if the text of its tokens is to be
// revealed and is too large. The ids of as many tokens are revealed.
func TestRevealIsBounded(t *testing.T) {
	e := counting(t, "fim")
	tokens := make([]int32, 16*256)
	for i := range tokens {
		tokens[i] = fimPrefix
	}
	for _, of := range []infer.Reveal{{Text: true}, {Pieces: true}} {
		if _, _, err := revealed(e, &infer.Count{Of: &infer.Generate{Tokens: tokens, Reveal: of}}); infer.CodeOf(err) != infer.TooLarge {
			t.Errorf("%+v: %v", of, err)
		}
	}
	if _, _, err := revealed(e, &infer.Count{Of: &infer.Generate{Tokens: append(tokens, 1), Reveal: infer.Reveal{IDs: true}}}); infer.CodeOf(err) != infer.TooLarge {
		t.Errorf("too many tokens: %v", err)
	}
	if p, n, err := revealed(e, &infer.Count{Of: &infer.Generate{Tokens: tokens, Reveal: infer.Reveal{IDs: true}}}); err != nil || n != len(tokens) || len(p.IDs) != n {
		t.Errorf("%d tokens, %v", n, err)
	}
	if _, _, err := revealed(e, &infer.Count{Of: &infer.Generate{Prompt: new("a"), Suffix: new("b"), Files: []infer.File{{Text: strings.Repeat("x", 16*256)}}}}); infer.CodeOf(err) != infer.TooLarge {
		t.Errorf("a large file: %v", err)
	}
}
