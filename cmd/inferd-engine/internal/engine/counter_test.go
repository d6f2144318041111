package engine_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/batch"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/engine"
	"github.com/inferd-go/inferd/internal/infer"
)

// answerOf returns the parts of an answer: its text, the number of prompt tokens in its first
// event, and its Done.
func answerOf(e *engine.Engine, req *infer.Request) (text string, prompt int, done infer.Done, err error) {
	err = e.Handle(context.Background(), req, func(ev infer.Event) error {
		switch ev := ev.(type) {
		case *infer.Prompt:
			prompt = ev.Tokens
		case *infer.Text:
			text += string(ev.Delta)
		case *infer.Done:
			done = *ev
		}
		return nil
	})
	return text, prompt, done, err
}

// A prompt is continued without the template, up to the end of the context if the request sets no
// limit. A count equals the number of prompt tokens that an answer reports, in its first event and
// in Done. A prompt beyond the context is counted, but not a text far beyond it.
func TestPromptsAndCounts(t *testing.T) {
	e := load(t, "loop", batch.Limits{Context: 256, Batch: 64, Sequences: 2})
	e.Counter = engine.NewCounter()
	ctx, cancel := context.WithCancel(context.Background())
	var counting sync.WaitGroup
	counting.Go(func() { e.Counter.Run(ctx) })
	defer counting.Wait()
	defer cancel()

	for name, test := range map[string]struct {
		gen  infer.Generate
		want string // the beginning of the text
		out  int    // tokens; 0 means the rest of the context
	}{
		"a prompt":          {infer.Generate{Prompt: new("abc"), MaxTokens: 4}, "defg", 4},
		"no limit":          {infer.Generate{Prompt: new("abc")}, "defghijk", 0},
		"an empty prompt":   {infer.Generate{Prompt: new(""), MaxTokens: 2}, "", 2},
		"a conversation":    {infer.Generate{Messages: []infer.Message{infer.TextMessage(infer.User, "abc")}, MaxTokens: 3}, "def", 3},
		"a limit too large": {infer.Generate{Prompt: new("abc"), MaxTokens: 1 << 30}, "def", 0},
	} {
		t.Run(name, func(t *testing.T) {
			text, early, done, err := answerOf(e, &infer.Request{Task: &test.gen})
			want := test.out
			if want == 0 {
				want = e.Loop.Room() - done.In
			}
			if err != nil || !strings.HasPrefix(text, test.want) || done.Out != want || early != done.In {
				t.Errorf("got %.20q of %d tokens (%d before), %d tokens, want %q and %d; %v", text, done.In, early, done.Out, test.want, want, err)
			}
			_, _, count, err := answerOf(e, &infer.Request{Task: &infer.Count{Of: &test.gen}})
			if err != nil || count.In != done.In || count.Out != 0 || count.Reason != infer.EndOfTurn {
				t.Errorf("counted %+v, %v; want %d", count, err, done.In)
			}
		})
	}
	long := strings.Repeat("x", 1000)
	if _, _, count, err := answerOf(e, &infer.Request{Task: &infer.Count{Of: &infer.Generate{Prompt: &long}}}); err != nil || count.In < 1000 {
		t.Errorf("a prompt beyond the context: %+v, %v", count, err)
	}
	long = strings.Repeat("x", 16*256+1)
	if _, _, _, err := answerOf(e, &infer.Request{Task: &infer.Count{Of: &infer.Generate{Prompt: &long}}}); infer.CodeOf(err) != infer.TooLarge {
		t.Errorf("a text far beyond the context: %v", err)
	}
	thinks := infer.Message{Role: infer.Assistant, Content: []infer.Part{&infer.ThinkingPart{Text: long}, &infer.TextPart{Text: "a"}}}
	if _, _, _, err := answerOf(e, &infer.Request{Task: &infer.Count{Of: &infer.Generate{Messages: []infer.Message{thinks}}}}); infer.CodeOf(err) != infer.TooLarge {
		t.Errorf("thinking far beyond the context: %v", err)
	}
	if _, _, _, err := answerOf(e, &infer.Request{Task: &infer.Generate{Prompt: new("a"), Suffix: new("b")}}); infer.CodeOf(err) != infer.Invalid {
		t.Errorf("a suffix: %v", err)
	}
}

// A request to count ends when its client hangs up, even while it waits for the counter.
func TestCountIsCanceled(t *testing.T) {
	e := load(t, "loop", batch.Limits{Context: 256, Batch: 64, Sequences: 2})
	e.Counter = engine.NewCounter() // does not run
	left := errors.New("left")
	ctx, cancel := context.WithCancelCause(context.Background())
	time.AfterFunc(time.Millisecond, func() { cancel(left) })
	err := e.Handle(ctx, &infer.Request{Task: &infer.Count{Of: &infer.Generate{Prompt: new("a")}}}, func(infer.Event) error { return nil })
	if !errors.Is(err, left) {
		t.Errorf("got %v", err)
	}
}

// Requests with different users, salts or keys do not reuse each other's cached prompts. Requests with
// neither a user nor a key reuse none at all.
func TestSalts(t *testing.T) {
	e := load(t, "loop", batch.Limits{Context: 1024, Batch: 64, Sequences: 2, Retained: 8})
	prompt := strings.Repeat("abcdefgh", 10)
	for i, test := range []struct {
		user, key, salt string
		cached          bool
	}{
		{"1000", "", "", false},
		{"1000", "", "", true},
		{"1000", "", "x", false},
		{"1000", "", "x", true},
		{"1000", "ci", "", false},
		{"1000", "ci", "", true},
		{"1000", "ci", "x", false},
		{"1001", "", "", false},
		{"1001", "", "x", false},
		{"", "", "", false},
		{"", "", "", false},
		{"", "", "x", false},
		{"", "", "x", false},
		{"", "ci", "", false},
		{"", "ci", "", true},
		{"1000", "", "", true},
	} {
		req := &infer.Request{
			Task: &infer.Generate{Prompt: &prompt, MaxTokens: 1}, CacheSalt: test.salt,
			Peer: infer.Peer{User: test.user, Key: test.key},
		}
		_, _, done, err := answerOf(e, req)
		if err != nil || (done.Cached > 0) != test.cached {
			t.Errorf("request %d, %+v: %d tokens were cached, %v", i, test, done.Cached, err)
		}
	}
}
