package engine_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/batch"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/engine"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/llama"
	"github.com/inferd-go/inferd/internal/builtin"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/paths"
)

// loadScript runs an engine with a model that recites pieces and has no chat template.
func loadScript(t *testing.T, pieces ...string) *engine.Engine {
	t.Helper()
	path := filepath.Join(t.TempDir(), "script.gguf")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(builtin.Script(f, pieces...), f.Close()); err != nil {
		t.Fatal(err)
	}
	return loadFile(t, path, roomy, func(*batch.Loop, *llama.Model) {})
}

// An answer ends at a marker, at a stop of the request, or at the end of the model's turn. White
// space at its beginning is not sent. The next turn finds prompt and answer in the cache, as far as it
// has the same tokens.
func TestTranscript(t *testing.T) {
	for name, test := range map[string]struct {
		pieces []string
		stop   []string
		most   int // tokens; 0 means many
		want   string
		reason infer.Reason
		out    int
		cached int // tokens behind the first prompt that the second turn finds in the cache
	}{
		"a user's marker":         {[]string{" Hello", " world", ".", "\n", "User", ":"}, nil, 0, "Hello world.", infer.EndOfTurn, 6, 5},
		"the own marker":          {[]string{" Hello", ".", "\n", "Assistant", ":"}, nil, 0, "Hello.", infer.EndOfTurn, 5, 3},
		"a system marker":         {[]string{" Hello", ".", "\n", "System", ":"}, nil, 0, "Hello.", infer.EndOfTurn, 5, 3},
		"no space in front":       {[]string{"Hello", "\n", "User", ":"}, nil, 0, "Hello", infer.EndOfTurn, 4, 0},
		"line breaks in front":    {[]string{"\n", " Hello", "."}, nil, 0, "Hello.", infer.EndOfTurn, 3, 0},
		"lines":                   {[]string{" Hello", "\n", "Users", ".", "U"}, nil, 0, "Hello\nUsers.U", infer.EndOfTurn, 5, 5},
		"a marker as one token":   {[]string{" Hello", "\nUser:"}, nil, 0, "Hello", infer.EndOfTurn, 2, 1},
		"the end of the text":     {[]string{" Hello", "."}, nil, 0, "Hello.", infer.EndOfTurn, 2, 2},
		"the limit":               {[]string{" Hello", ".", "\n", "User", ":"}, nil, 2, "Hello.", infer.Length, 2, 1},
		"the limit in a marker":   {[]string{" Hello", ".", "\n", "User", ":"}, nil, 4, "Hello.\nUser", infer.Length, 4, 3},
		"the limit at its end":    {[]string{" Hello", ".", "\n", "User", ":"}, nil, 5, "Hello.", infer.EndOfTurn, 5, 4},
		"a caller's stop":         {[]string{" Hello", ".", "\n", "User", ":"}, []string{"."}, 0, "Hello", infer.StopSequence, 2, 1},
		"a marker is the stop":    {[]string{" Hello", ".", "\n", "User", ":"}, []string{"\nUser:"}, 0, "Hello.", infer.StopSequence, 5, 4},
		"a marker begins so":      {[]string{" Hello", ".", "\n", "User", ":"}, []string{"\n"}, 0, "Hello.", infer.StopSequence, 3, 2},
		"an empty answer":         {[]string{"\n", "User", ":"}, nil, 0, "", infer.EndOfTurn, 3, 2},
		"a marker at once":        {[]string{"\nUser:"}, nil, 0, "", infer.EndOfTurn, 1, 0},
		"white space alone":       {[]string{" ", "\t", "\n", "User", ":"}, nil, 0, "", infer.EndOfTurn, 5, 0},
		"white space, no marker":  {[]string{" ", "\n"}, nil, 0, "", infer.EndOfTurn, 2, 0},
		"a stop at once":          {[]string{" Hello", "."}, []string{"Hello"}, 0, "", infer.StopSequence, 1, 0},
		"a stop that is a space":  {[]string{" Hello", "."}, []string{" "}, 0, "", infer.StopSequence, 1, 0},
		"a stop held at the end":  {[]string{" Hello", "."}, []string{".\n"}, 0, "Hello.", infer.EndOfTurn, 2, 2},
		"a stop made at the end":  {[]string{" Hello", "\xe2"}, []string{"\uFFFD"}, 0, "Hello", infer.StopSequence, 2, 1},
		"a character of 2 tokens": {[]string{" ", "\xc3", "\xa9"}, nil, 0, "é", infer.EndOfTurn, 3, 3},
	} {
		t.Run(name, func(t *testing.T) {
			e := loadScript(t, test.pieces...)
			first := greedyRequest("1000", max(test.most, 1), "Hi")
			gen := first.Task.(*infer.Generate)
			gen.Stop = test.stop
			if test.most == 0 {
				gen.MaxTokens = 100
			}
			var texts []string
			text, done, err := answer(t.Context(), e, first, func(text string) { texts = append(texts, text) })
			if err != nil || text != test.want || done.Reason != test.reason || done.Out != test.out {
				t.Fatalf("%q, %+v, %v; want %q, %q, %d tokens", text, done, err, test.want, test.reason, test.out)
			}
			if text == "" && len(texts) > 0 {
				t.Errorf("texts %q", texts)
			}
			second := greedyRequest("1000", 1, "Hi", text+" \n", "\nBye")
			_, then, err := answer(t.Context(), e, second, nil)
			if got := then.Cached - done.In; err != nil || got != test.cached {
				t.Errorf("the second turn had %d more tokens than the first prompt in the cache, %v; want %d", got, err, test.cached)
			}
		})
	}
}

// With a grammar, the grammar alone defines the text: nothing is trimmed, and neither markers nor
// stop sequences end it.
func TestTranscriptWithGrammar(t *testing.T) {
	e := loadScript(t, " Hello", "\n", "User", ":")
	req := greedyRequest("", 30, "Hi")
	gen := req.Task.(*infer.Generate)
	gen.Format.Grammar = `root ::= "\n\nUser: " [a-c] "."`
	gen.Stop = []string{"."}
	text, done, err := answer(t.Context(), e, req, nil)
	if rest, ok := strings.CutPrefix(text, "\n\nUser: "); err != nil || !ok || len(rest) != 2 || done.Reason != infer.EndOfTurn || !done.StopIgnored {
		t.Errorf("%q, %+v, %v", text, done, err)
	}
}

// Logprobs are sent for the tokens with text that is sent, in whole or in part.
func TestTranscriptLogprobs(t *testing.T) {
	for name, test := range map[string]struct {
		pieces []string
		stop   []string
		want   []string // each text with its tokens
	}{
		"a space in a token": {[]string{" Hi", ".", "\n", "User", ":"}, nil, []string{"Hi| Hi", ".|."}},
		"tokens of space":    {[]string{" ", "\t", " Hi", "a", "\n", "User", ":"}, nil, []string{"Hi| Hi", "a|a"}},
		"held, then sent":    {[]string{"\n", "U", ".", "a"}, nil, []string{"U.|U|.", "a|a"}},
		"no text":            {[]string{" ", "\n", "User", ":"}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			e := loadScript(t, test.pieces...)
			req := greedyRequest("", 30, "Hi")
			gen := req.Task.(*infer.Generate)
			gen.Stop, gen.Logprobs = test.stop, 1
			var got []string
			err := e.Handle(t.Context(), req, func(ev infer.Event) error {
				if ev, ok := ev.(*infer.Text); ok {
					one := []string{string(ev.Delta)}
					for _, l := range ev.Logprobs {
						one = append(one, string(l.Piece))
					}
					got = append(got, strings.Join(one, "|"))
				}
				return nil
			})
			if err != nil || !slices.Equal(got, test.want) {
				t.Errorf("%q, %v; want %q", got, err, test.want)
			}
		})
	}
}

// Tokens without text are reported, so that admission charges them. An answer without text so far
// can be canceled.
func TestTranscriptOfWhiteSpace(t *testing.T) {
	e := loadScript(t, " Hi")
	endless := func(most int) *infer.Request {
		req := greedyRequest("", most, "Hi")
		req.Task.(*infer.Generate).Sampling.LogitBias = map[int]float64{' ': 100}
		return req
	}
	reported := 0
	var done infer.Done
	err := e.Handle(t.Context(), endless(100), func(ev infer.Event) error {
		switch ev := ev.(type) {
		case *infer.Text:
			if reported += ev.Tokens; len(ev.Delta) > 0 {
				t.Errorf("text %q", ev.Delta)
			}
		case *infer.Done:
			done = *ev
		}
		return nil
	})
	if err != nil || done.Reason != infer.Length || done.Out != 100 || reported < 90 {
		t.Errorf("%d tokens reported, %+v, %v", reported, done, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, _, err := answer(ctx, e, endless(4000), func(string) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	if text, done, err := answer(t.Context(), e, greedyRequest("", 10, "Hi"), nil); text != "Hi" || err != nil {
		t.Errorf("then: %q, %+v, %v", text, done, err)
	}
}

// With a real model without a template, each turn finds the previous one in the cache, up to the
// first token that is tokenised differently. The test runs if scripts/model.sh has installed the
// model.
func TestRealTranscript(t *testing.T) {
	if testing.Short() {
		t.Skip("a real model takes seconds")
	}
	path := filepath.Join(paths.Default().DataDir(), "models", "gemma-3-270m-q4_k_m.gguf")
	if _, err := os.Stat(path); err != nil {
		t.Skip("there is no real model: scripts/model.sh gets it")
	}
	e := loadFile(t, path, roomy, func(*batch.Loop, *llama.Model) {})
	if !e.Template.Transcript() {
		t.Fatal("it has a template")
	}
	tokens := func(req *infer.Request) []llama.Token {
		segments, err := e.Template.Render(req.Task.(*infer.Generate).Messages)
		if err != nil || len(segments) != 1 {
			t.Fatalf("%d segments, %v", len(segments), err)
		}
		all, err := e.Model.Tokenize(segments[0].Text, true)
		if err != nil {
			t.Fatal(err)
		}
		bos, _ := e.Model.BOS()
		return append([]llama.Token{bos}, all...)
	}
	var (
		turns  []string
		before []llama.Token // prompt and answer of the previous turn
		whole  int           // number of turns that found all of them
	)
	questions := []string{"What is the capital of France?", "And of Spain?", "Name three colours.", "Write a haiku.", "Say yes or no."}
	for _, question := range questions {
		turns = append(turns, question)
		req := greedyRequest("1000", 40, turns...)
		req.Task.(*infer.Generate).Logprobs = 1
		prompt := tokens(req)
		var text strings.Builder
		var done infer.Done
		answered := prompt
		err := e.Handle(t.Context(), req, func(ev infer.Event) error {
			switch ev := ev.(type) {
			case *infer.Text:
				text.Write(ev.Delta)
				for _, l := range ev.Logprobs {
					answered = append(answered, llama.Token(l.ID))
				}
			case *infer.Done:
				done = *ev
			}
			return nil
		})
		if err != nil || done.In != len(prompt) || strings.TrimLeft(text.String(), " \n") != text.String() {
			t.Fatalf("%q, %+v, %v; the prompt has %d tokens", text.String(), done, err, len(prompt))
		}
		common := 0
		for common < min(len(before), len(prompt)) && before[common] == prompt[common] {
			common++
		}
		if done.Cached < common {
			t.Errorf("%q: %+v, of which %d are known", question, done, common)
		}
		if common > 0 && common == len(before) {
			whole++
		}
		t.Logf("%q: %q, %+v", question, text.String(), done)
		before, turns = answered, append(turns, text.String())
	}
	if whole < len(questions)/2 {
		t.Errorf("%d of %d turns found the whole turn before", whole, len(questions)-1)
	}
}
