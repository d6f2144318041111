package speech_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/constraint"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialecttest"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/speech"
	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/infer"
)

var required = infer.ToolChoice{Mode: infer.ToolRequired}

func hermes() *dialect.Dialect { return dialecttest.Fixtures()["hermes"] }

// An answer is divided into thoughts, text and calls, whether its markers are control tokens or bytes.
func TestHermes(t *testing.T) {
	const call = "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Köln\"}}\n</tool_call>"
	for name, test := range map[string]struct {
		text string
		want []string
	}{
		"text":               {"Hi *there*.\n", []string{"text Hi *there*.\n"}},
		"a call":             {call, []string{`call get_weather {"city": "Köln"}`}},
		"text and a call":    {"Let me see.\n" + call, []string{"text Let me see.", `call get_weather {"city": "Köln"}`}},
		"two calls":          {call + "\n" + `<tool_call>{"name":"now","arguments":{}}</tool_call>`, []string{`call get_weather {"city": "Köln"}`, `call now {}`}},
		"thoughts, text":     {"<think>\nhm, ok\n</think>\n\nYes.", []string{"thought hm, ok", "text Yes."}},
		"thoughts, a call":   {"<think>\nhm\n</think>\n\n" + call, []string{"thought hm", `call get_weather {"city": "Köln"}`}},
		"all":                {"<think>\nhm\n</think>\n\nSo:\n\n" + call, []string{"thought hm", "text So:", `call get_weather {"city": "Köln"}`}},
		"thoughts alone":     {"<think>\nhm", []string{"thought hm"}},
		"a fence, a call":    {"```sh\nls\n```\n" + call, []string{"text ```sh\nls\n```", `call get_weather {"city": "Köln"}`}},
		"call beside text":   {"a" + call, []string{"text a", `call get_weather {"city": "Köln"}`}},
		"a bracket":          {"1 < 2 <too bad", []string{"text 1 < 2 <too bad"}},
		"a name that begins": {`<tool_call>{"name": "get", "arguments": {"url": null}}</tool_call>`, []string{`call get {"url": null}`}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, m := range []model{plain, controls(hermes())} {
				for _, often := range []bool{true, false} {
					got := parseAnswer(t, m, speech.Options{Dialect: hermes(), Tools: tools}, test.text, often)
					if !slices.Equal(got, test.want) {
						t.Errorf("%d markers, often %v: %q, want %q", len(m.markers), often, got, test.want)
					}
				}
			}
		})
	}
}

// A call is text, or a part of thoughts, if it is quoted in a fenced block, names no declared tool, is cut off in its
// name, or stands within thoughts.
func TestQuotedCalls(t *testing.T) {
	for name, text := range map[string]string{
		"in a fenced block": "Write\n```xml\n<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>\n```\nlike that",
		"undeclared":        `<tool_call>{"name": "rm", "arguments": {}}</tool_call>`,
		"cut off":           `<tool_call>{"name": "no`,
		"a longer name":     `<tool_call>{"name": "nowhere", "arguments": {}}</tool_call>`,
	} {
		t.Run(name, func(t *testing.T) {
			for _, often := range []bool{true, false} {
				if got := parseAnswer(t, plain, speech.Options{Dialect: hermes(), Tools: tools}, text, often); !slices.Equal(got, []string{"text " + text}) {
					t.Errorf("%q, want text", got)
				}
			}
		})
	}
	text := "<think>\nI could write <tool_call>{\"name\": \"now\", \"arguments\": {}}</tool_call>.\n</think>\n\nNo."
	want := []string{`thought I could write <tool_call>{"name": "now", "arguments": {}}</tool_call>.`, "text No."}
	if got := parseAnswer(t, plain, speech.Options{Dialect: hermes(), Tools: tools}, text, true); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// The masks enforce the tool choice, the limit to one call, and the schemas of the arguments.
func TestChoice(t *testing.T) {
	for name, test := range map[string]struct {
		choice infer.ToolChoice
		one    bool
		text   string
		rest   string // the part of text from the first refused token on
		may    bool   // the answer may end in front of rest
	}{
		"required, text":           {choice: required, text: "I will", may: false},
		"required, a call":         {choice: required, text: `ok <tool_call>{"name": "now", "arguments": {}}</tool_call>`, may: true},
		"named, another":           {choice: infer.ToolChoice{Mode: infer.ToolNamed, Tool: "now"}, text: `<tool_call>{"name": "get`, rest: `get`},
		"named":                    {choice: infer.ToolChoice{Mode: infer.ToolNamed, Tool: "now"}, text: `<tool_call>{"name": "now", "arguments": {}}</tool_call>`, may: true},
		"none":                     {choice: infer.ToolChoice{Mode: infer.ToolNone}, text: `text`, may: true},
		"none, a call":             {choice: infer.ToolChoice{Mode: infer.ToolNone}, text: `<tool_call>{"name": "now"`, rest: `<tool_call>{"name": "now"`, may: true},
		"one call":                 {one: true, text: `<tool_call>{"name": "now", "arguments": {}}</tool_call>` + "\n<", rest: "<", may: true},
		"arguments by the schema":  {text: `<tool_call>{"name": "get_weather", "arguments": {"city": 4`, rest: "4"},
		"a member that is missing": {text: `<tool_call>{"name": "get_weather", "arguments": {}`, rest: "}"},
	} {
		t.Run(name, func(t *testing.T) {
			r := begin(t, controls(hermes()), speech.Options{Dialect: hermes(), Tools: tools, Choice: test.choice, OneCall: test.one})
			if rest := r.feed(test.text, nil); rest != test.rest {
				t.Errorf("%q is left, want %q", rest, test.rest)
			}
			if may := r.answer.Position().MayEnd; may != test.may {
				t.Errorf("may end: %v", may)
			}
		})
	}
	r := begin(t, plain, speech.Options{Dialect: hermes(), Tools: tools, Choice: infer.ToolChoice{Mode: infer.ToolNone}})
	if rest := r.feed(`<tool_call>{"name": "now"`, nil); rest != `"` {
		t.Errorf("none, of bytes: %q is left", rest)
	}
}

// The grammar of the openers is compiled within the time limit, kept, and counted as memory, together with the grammar
// of the answers.
func TestKept(t *testing.T) {
	c := &constraint.Compiler{Model: plain, Time: time.Minute}
	o := speech.Options{Dialect: hermes(), Tools: tools}
	ask := func() *speech.Speech {
		s, err := speech.New(o)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first, second := ask(), ask()
	bare := first.Size()
	k, spent, err := c.Compile(t.Context(), "a", first)
	if err != nil || spent <= 0 || first.Size() <= bare {
		t.Fatalf("compiled in %v: %d bytes, before %d; %v", spent, first.Size(), bare, err)
	}
	before := c.Used()
	again, spent, err := c.Compile(t.Context(), "a", second)
	if err != nil || again != k || spent != 0 || second.Size() != bare || c.Used() != before {
		t.Errorf("again in %v: %d bytes, %d in all, not %d; %v", spent, second.Size(), c.Used(), before, err)
	}
	again.Release()
	k.Release()
	// Without its openers a speech takes less of the budget.
	o.Choice.Mode, o.NoThoughts = infer.ToolNone, true
	none := ask()
	if k, _, err = c.Compile(t.Context(), "a", none); err != nil || none.Size() != bare {
		t.Errorf("without openers: %d bytes, want %d; %v", none.Size(), bare, err)
	}
	k.Release()
	if _, _, err := (&constraint.Compiler{Model: plain, Time: 1}).Compile(t.Context(), "a", ask()); !errors.Is(err, automaton.ErrTime) {
		t.Errorf("without time: %v", err)
	}
}
