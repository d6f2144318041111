package mock_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd-go/inferd/internal/backend/mock"
	"github.com/inferd-go/inferd/internal/infer"
)

// answer returns the events of a backend's answer to a plain request in one line, ending with the
// error in parentheses if there is one.
func answer(ctx context.Context, b *mock.Backend) string { return answerTo(ctx, b, &infer.Generate{}) }

func answerTo(ctx context.Context, b *mock.Backend, task infer.Task) string {
	var line string
	err := b.Handle(ctx, &infer.Request{Task: task}, func(ev infer.Event) error {
		switch ev := ev.(type) {
		case *infer.Prompt:
			if ev.IDs != nil {
				line += fmt.Sprintf("%d %v %q: ", ev.Tokens, ev.IDs, ev.Text)
				return nil
			}
			line += fmt.Sprintf("%d: ", ev.Tokens)
		case *infer.Text:
			line += string(ev.Delta) + " "
		case *infer.Thinking:
			line += fmt.Sprintf("<%s>", ev.Delta)
		case *infer.ToolCall:
			line += fmt.Sprintf("%s:%s(%s) ", ev.ID, ev.Name, ev.Input)
		case *infer.Vectors:
			line += fmt.Sprint(ev.Values, " ")
		case *infer.Scores:
			line += fmt.Sprint(ev.Values, " ")
		case *infer.Done:
			line += fmt.Sprintf("[%s %d]", ev.Backend, ev.Out)
			if ev.In > 0 {
				line += fmt.Sprintf(" of %d", ev.In)
			}
			if ev.Unsatisfied {
				line += " unsatisfied"
			}
		}
		return nil
	})
	if err != nil {
		line += fmt.Sprintf("(%s: %v)", infer.CodeOf(err), err)
	}
	return line
}

func TestBackend(t *testing.T) {
	for name, test := range map[string]struct {
		b    *mock.Backend
		want []string // answers to consecutive requests
	}{
		"the zero value":          {&mock.Backend{}, []string{"mock-response [mock 1]"}},
		"given tokens":            {&mock.Backend{Tokens: []string{"a", "b", "c"}}, []string{"a b c [mock 3]", "a b c [mock 3]"}},
		"no token at all":         {&mock.Backend{Tokens: []string{}}, []string{"[mock 0]"}},
		"not ready":               {&mock.Backend{PreStream: "not_ready"}, []string{"(unavailable: backend not ready)"}},
		"a request it refuses":    {&mock.Backend{PreStream: "invalid_request"}, []string{"(invalid: mock)"}},
		"a fault":                 {&mock.Backend{PreStream: "internal"}, []string{"(internal: mock)"}},
		"an answer without end":   {&mock.Backend{Tokens: []string{"a", "b", "c"}, DropAfter: 2}, []string{"a b "}},
		"dropped after the last":  {&mock.Backend{Tokens: []string{"a"}, DropAfter: 1}, []string{"a "}},
		"the first request fails": {&mock.Backend{FailFirst: 1}, []string{"(unavailable: mock)", "mock-response [mock 1]"}},
	} {
		t.Run(name, func(t *testing.T) {
			for i, want := range test.want {
				if got := answer(t.Context(), test.b); got != want {
					t.Errorf("request %d: got %q, want %q", i, got, want)
				}
			}
		})
	}
}

func TestTasks(t *testing.T) {
	typed := &infer.Generate{Blocks: true}
	once, offered := &mock.Backend{ToolUse: "f", ToolOnce: true}, []infer.Tool{{Name: "g"}, {Name: "f"}}
	ran := infer.Message{Role: infer.User, Content: []infer.Part{&infer.ResultPart{ID: "1", Content: []infer.Part{&infer.TextPart{Text: "r"}}}}}
	must := &infer.Generate{Blocks: true, Choice: infer.ToolChoice{Mode: infer.ToolRequired}}
	for name, test := range map[string]struct {
		b    *mock.Backend
		task infer.Task
		want string
	}{
		"a tool is called":                         {&mock.Backend{ToolUse: "f"}, typed, "mock-call-1:f({}) [mock 1]"},
		"no call for clients of text":              {&mock.Backend{ToolUse: "f"}, &infer.Generate{}, "mock-response [mock 1]"},
		"a required call":                          {&mock.Backend{ToolUse: "f"}, must, "mock-call-1:f({}) [mock 1]"},
		"a required call without a tool":           {&mock.Backend{}, must, "mock-response [mock 1] unsatisfied"},
		"a call with an input":                     {&mock.Backend{ToolUse: "f", ToolInput: []byte(`{"a":1}`)}, typed, `mock-call-1:f({"a":1}) [mock 1]`},
		"one call, if the tool is offered":         {once, &infer.Generate{Blocks: true, Tools: offered}, "mock-call-1:f({}) [mock 1]"},
		"one call, without an offer":               {once, typed, "mock-response [mock 1]"},
		"one call, with an offer of another tool":  {once, &infer.Generate{Blocks: true, Tools: offered[:1]}, "mock-response [mock 1]"},
		"one call, after a result":                 {once, &infer.Generate{Blocks: true, Tools: offered, Messages: []infer.Message{infer.TextMessage(infer.User, "a"), ran}}, "mock-response [mock 1]"},
		"one call, before a result":                {once, &infer.Generate{Blocks: true, Tools: offered, Messages: []infer.Message{infer.TextMessage(infer.User, "a")}}, "mock-call-1:f({}) [mock 1]"},
		"it thinks":                                {&mock.Backend{Thoughts: []string{"h", "", "m"}}, &infer.Generate{Blocks: true, Thinking: infer.ThinkOn}, "<h><m>mock-response [mock 4]"},
		"it thinks before a call":                  {&mock.Backend{Thoughts: []string{"hm"}, ToolUse: "f"}, &infer.Generate{Blocks: true, Thinking: infer.ThinkOn}, "<hm>mock-call-1:f({}) [mock 2]"},
		"it does not think unasked":                {&mock.Backend{Thoughts: []string{"hm"}}, typed, "mock-response [mock 1]"},
		"it does not think for clients of text":    {&mock.Backend{Thoughts: []string{"hm"}}, &infer.Generate{Thinking: infer.ThinkOn}, "mock-response [mock 1]"},
		"without v2":                               {&mock.Backend{NoV2: true, Name: "m"}, typed, `(internal: backend "m" does not advertise v2 capability)`},
		"without v2, asked over v1":                {&mock.Backend{NoV2: true}, &infer.Generate{}, "mock-response [mock 1]"},
		"a prompt of a size":                       {&mock.Backend{PromptTokens: 7}, typed, "7: mock-response [mock 1] of 7"},
		"a request for the size of a prompt":       {&mock.Backend{PromptTokens: 7}, &infer.Count{Of: typed}, "[mock 0] of 7"},
		"a request for the ids of a prompt":        {&mock.Backend{PromptTokens: 7}, &infer.Count{Of: &infer.Generate{Prompt: new("aé"), Reveal: infer.Reveal{IDs: true}}}, `7 [97 195 169] "aé": [mock 0] of 7`},
		"a request for the text of tokens":         {&mock.Backend{}, &infer.Count{Of: &infer.Generate{Tokens: []int32{98, 300, -1}, Reveal: infer.Reveal{Text: true}}}, `0 [98 300 -1] "b": [mock 0]`},
		"a request for the text of a conversation": {&mock.Backend{}, &infer.Generate{Blocks: true, Messages: []infer.Message{infer.TextMessage(infer.User, "a"), infer.TextMessage(infer.User, "b")}, Reveal: infer.Reveal{Text: true}}, `0 [97 98] "ab": mock-response [mock 1]`},
		"a request for the size, without v2":       {&mock.Backend{NoV2: true, Name: "m"}, &infer.Count{Of: typed}, `(internal: backend "m" does not advertise v2 capability)`},
		"vectors":                                  {&mock.Backend{}, &infer.Embed{Inputs: []string{"abc", "é"}, Dimensions: 2}, "[[0.25 0.5] [0.33333334 0.6666667]] [mock 0] of 5"},
		"vectors of the usual length":              {&mock.Backend{}, &infer.Embed{Inputs: []string{"abc"}}, "[[0.25 0.5 0.75 1 1.25 1.5 1.75 2]] [mock 0] of 3"},
		"vectors of a length of its own":           {&mock.Backend{Dimensions: 1}, &infer.Embed{Inputs: []string{"abc"}}, "[[0.25]] [mock 0] of 3"},
		"vectors it cannot make":                   {&mock.Backend{NoEmbed: true}, &infer.Embed{Inputs: []string{"a"}}, "(unsupported: embed not supported by this backend)"},
		"scores":                                   {&mock.Backend{}, &infer.Rerank{Query: "Alpha beta", Documents: []string{"x", "ALPHA", "alphabeta"}}, "[0 0.5 1] [mock 0] of 45"},
		"scores it cannot give":                    {&mock.Backend{NoRerank: true}, &infer.Rerank{Query: "a", Documents: []string{"x"}}, "(unsupported: rerank not supported by this backend)"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := answerTo(t.Context(), test.b, test.task); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestGoesAway(t *testing.T) {
	b := &mock.Backend{NotReadyAfter: 2}
	for i, want := range []string{"mock-response [mock 1]", "mock-response [mock 1]", "(unavailable: backend not ready)"} {
		if ready := b.Ready(); ready != (i < 2) {
			t.Errorf("before request %d: Ready = %v", i, ready)
		}
		if got := answer(t.Context(), b); got != want {
			t.Errorf("request %d: got %q, want %q", i, got, want)
		}
	}
}

func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &mock.Backend{Tokens: []string{"a", "b"}, TokenDelay: time.Second}
		begin := time.Now()
		_ = answer(t.Context(), b)
		if got := time.Since(begin); got != 2*time.Second {
			t.Errorf("took %s", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		if got, want := answer(ctx, b), "a (internal: context deadline exceeded)"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestDeadline(t *testing.T) {
	for name, test := range map[string]struct {
		b    *mock.Backend
		task *infer.Generate
		want string
	}{
		"in the middle":                  {&mock.Backend{Tokens: []string{"a", "b"}, TokenDelay: time.Second}, &infer.Generate{}, "a canceled 1"},
		"before a tool":                  {&mock.Backend{ToolUse: "f", TokenDelay: time.Minute}, &infer.Generate{Blocks: true}, " canceled 0"},
		"a deadline that is long enough": {&mock.Backend{TokenDelay: time.Millisecond}, &infer.Generate{}, "mock-response end of turn 1"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got string
				req := &infer.Request{Task: test.task, Deadline: time.Now().Add(1500 * time.Millisecond)}
				err := test.b.Handle(t.Context(), req, func(ev infer.Event) error {
					switch ev := ev.(type) {
					case *infer.Text:
						got += string(ev.Delta)
					case *infer.Done:
						got += fmt.Sprintf(" %s %d", ev.Reason, ev.Out)
					}
					return nil
				})
				if got != test.want || err != nil {
					t.Errorf("got %q, %v, want %q", got, err, test.want)
				}
			})
		})
	}
}
