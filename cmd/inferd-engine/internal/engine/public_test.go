package engine_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/infer"
)

// publicTools are the tools of the cases below.
var publicTools = []infer.Tool{
	{Name: "get_weather", Schema: []byte(`{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}`)},
	{Name: "run", Schema: []byte(`{"type":"object","properties":{"command":{"type":"string"}},"required":["command"],"additionalProperties":false}`)},
	{Name: "now", Schema: []byte(`{"type":"object","additionalProperties":false}`)},
}

// A failure is a public failure of another engine: the answer of the model, and the parts that the
// engine must make of it.
type failure struct {
	family string
	answer string
	change func(*infer.Generate)
	wrong  []string // tokens that are always likelier
	bytes  bool     // the markers are not control tokens
	rest   string   // a further token that may not follow
	want   []string // the parts; nil means thoughts that are cut
}

var numbered = &infer.Format{Schema: []byte(`{"type":"object","properties":{"a":{"type":"string"}},"required":["a"],"additionalProperties":false}`)}

func formatted(thinking infer.ThinkingMode) func(*infer.Generate) {
	return func(g *infer.Generate) { g.Tools, g.Format, g.Thinking = nil, *numbered, thinking }
}

func demanded(g *infer.Generate) { g.Choice.Mode = infer.ToolRequired }

// wrongs are tokens that may not be in a text.
var wrongs = []string{"<|pad|>", "<|bos|>", "<unused1>", "</tool_call>", "</think>"}

const hermesCall = "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Köln <b>&\"}}\n</tool_call>"

const hermesCalled = `call get_weather {"city": "Köln <b>&"}`

// failures are the cases that involve the engine; package speech has the others. L is llama.cpp, V
// vllm, S sglang, O ollama.
var failures = map[string]failure{
	"L#13341 L#13690 L#23677 control and unused tokens in a string": {
		family: "hermes", answer: hermesCall, change: demanded, wrong: wrongs, want: []string{hermesCalled},
	},
	"L#13341 L#13690 L#23677 in a value of a schema": {
		family: "hermes", answer: `{"a": "x y"}`, change: formatted(infer.ThinkOff), wrong: append([]string{"\xff"}, wrongs...),
		want: []string{`text {"a": "x y"}`},
	},
	"L#12597 a fenced block before a call": {
		family: "hermes", answer: "```py\nx = 1\n```\n" + hermesCall, want: []string{"text ```py\nx = 1\n```", hermesCalled},
	},
	"L#20260 prose between thoughts and call": {
		family: "hermes", answer: "<think>\nhm\n</think>\n\nI call.\n" + hermesCall, want: []string{"thought hm", "text I call.", hermesCalled},
	},
	"L#29240 a call without thoughts": {family: "hermes", answer: hermesCall, change: think, want: []string{hermesCalled}},
	"L#15608 a demanded call behind thoughts": {
		family: "hermes", answer: "<think>\nhm\n</think>\n\n" + hermesCall, change: demanded, want: []string{"thought hm", hermesCalled},
	},
	"L#22537 a schema behind thoughts": {
		family: "hermes", answer: "<think>\nhm\n</think>\n\n{\"a\": \"1\"}", change: formatted(infer.ThinkOn), want: []string{"thought hm", `text {"a": "1"}`},
	},
	"V#16182 O#14440 a schema, thinking absent": {
		family: "hermes", answer: "<think>\nhm\n</think>\n\n{\"a\": \"1\"}", change: formatted(infer.ThinkAuto), want: []string{"thought hm", `text {"a": "1"}`},
	},
	"V#47027 O#14850 a schema, thinking on, none written": {
		family: "hermes", answer: `{"a": "1"}`, change: formatted(infer.ThinkOn), want: []string{`text {"a": "1"}`},
	},
	"V#50948 O#15260 a schema, thinking off": {
		family: "hermes", answer: `{"a": "1"}`, change: formatted(infer.ThinkOff), want: []string{`text {"a": "1"}`},
	},
	"V#50948 a schema in a model that cannot think": {
		family: "llama3-json", answer: `{"a": "1"}`, change: formatted(infer.ThinkAuto), want: []string{`text {"a": "1"}`},
	},
	"V#16182 a schema behind thoughts that the prompt opens": {
		family: "deepseek-v3.1", answer: `hm</think>{"a": "1"}`, change: formatted(infer.ThinkAuto), want: []string{"thought hm", `text {"a": "1"}`},
	},
	"L#27733 a stray marker at the end": {family: "hermes", answer: "Done.", rest: "<think>", want: []string{"text Done."}},
	"L#27733 a stray marker of bytes":   {family: "hermes", answer: "Done.\n<think>", bytes: true, want: []string{"text Done.\n<think>"}},
	"O#17561 V#15418 thoughts without end": {
		family: "hermes", answer: "<think>\nand so on", want: []string{"thought and so on"},
	},
	"O#17561 V#15418 thoughts over their budget": {
		family: "hermes", answer: "<think>\n" + strings.Repeat("and so on ", 30), want: nil,
		change: func(g *infer.Generate) { g.Thinking, g.ThinkingBudget = infer.ThinkOn, 20 },
	},
	"O#8337 text and a call in one answer": {family: "hermes", answer: "Both.\n" + hermesCall, want: []string{"text Both.", hermesCalled}},
	"O#12017 a letter behind the call": {
		family: "llama3-json", answer: `{"name": "now", "parameters": {}}`, rest: "A", want: []string{"call now {}"},
	},
	"O#17638 a bracket too many": {
		family: "mistral-nemo", answer: `[TOOL_CALLS][{"name": "now", "arguments": {}, "id": "tc0000001"}]`, rest: "]", want: []string{"call now {}"},
	},
	"V#10395 V#21544 V#32152 an open brace in a string": {
		family: "mistral-small-3.2", answer: `[TOOL_CALLS]run[CALL_ID]tc0000001[ARGS]{"command": "mkdir -p t/{a,b"}`, want: []string{`call run {"command": "mkdir -p t/{a,b"}`},
	},
	"L#24644 JSON and an end tag's beginning in a raw value": {
		family: "qwen3-coder", want: []string{`call run {"command": "{\"a\": 1}\n\n</param </parameter"}`},
		answer: "<tool_call>\n<function=run>\n<parameter=command>\n{\"a\": 1}\n\n</param </parameter\n</parameter>\n</function>\n</tool_call>", bytes: true,
	},
	"L#27720 kronk#931 V#23567 a recipient in thoughts": {
		family: "gpt-oss", answer: "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.now <|constrain|>json<|message|>{}<|call|>",
		want: []string{"thought Hm.", "call now {}"},
	},
	"V#57541 a call quoted in a fenced block": {
		family: "hermes", answer: "```\n" + hermesCall + "\n```\nlike that", bytes: true, want: []string{"text ```\n" + hermesCall + "\n```\nlike that"},
	},
	"S#38624 continue#11070 a call quoted in thoughts": {
		family: "hermes", answer: "<think>\n" + hermesCall + "\n</think>\n\nNo.", bytes: true, want: []string{"thought " + hermesCall, "text No."},
	},
	"S#34677 an undeclared tool": {
		family: "hermes", answer: `<tool_call>{"name": "rm", "arguments": {}}</tool_call>`, bytes: true, want: []string{`text <tool_call>{"name": "rm", "arguments": {}}</tool_call>`},
	},
}

func think(g *infer.Generate) { g.Thinking = infer.ThinkOn }

// Public failures of other engines do not occur, however the answer is divided into tokens.
func TestPublicFailures(t *testing.T) {
	for name, f := range failures {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, chunking := range chunkings() {
				gen := greedy(publicTools)
				if f.change != nil {
					f.change(gen)
				}
				s := &scene{template: familyTemplate(t, f.family), answer: f.answer, wrong: f.wrong, rest: f.rest}
				if !f.bytes {
					s.controls = markersOf(s.dialect(t))
				}
				h := hear(t, s.play(t, gen, cuts[chunking]), gen)
				if f.want != nil && !slices.Equal(h.log, f.want) {
					t.Errorf("%s: %q, want %q", chunking, h.log, f.want)
				}
				calls := 0
				for _, part := range f.want {
					if strings.HasPrefix(part, "call ") {
						calls++
					}
				}
				reason := infer.EndOfTurn
				if calls > 0 {
					reason = infer.CalledTool
				}
				if h.done.Reason != reason || h.done.Unsatisfied {
					t.Errorf("%s: %+v, want %s", chunking, h.done, reason)
				}
				if all := strings.Join(h.log, ""); f.want == nil && (!strings.HasPrefix(all, "thought and so on") || strings.Contains(all, "think>")) {
					t.Errorf("%s: %q", chunking, h.log)
				}
			}
		})
	}
}

// S#38198 lmdeploy#3412 dynamo#4723: an answer may have many calls of one tool, each with an id of
// its own.
func TestTwentyCalls(t *testing.T) {
	var answer strings.Builder
	for i := range 20 {
		fmt.Fprintf(&answer, "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"%d\"}}\n</tool_call>\n", i)
	}
	chunkings := []string{"whole", "words"}
	if testing.Short() {
		chunkings = chunkings[:1]
	}
	for _, chunking := range chunkings {
		gen := greedy(publicTools)
		s := &scene{template: familyTemplate(t, "hermes"), answer: strings.TrimSuffix(answer.String(), "\n")}
		s.controls = markersOf(s.dialect(t))
		h := hear(t, s.play(t, gen, cuts[chunking]), gen)
		if len(h.calls) != 20 {
			t.Fatalf("%s: %d calls: %q", chunking, len(h.calls), h.log)
		}
		for i, c := range h.calls {
			if c.ID != fmt.Sprintf("tc-%d", i+1) || string(c.Input) != fmt.Sprintf(`{"city": "%d"}`, i) {
				t.Errorf("%s: %s %s", chunking, c.ID, c.Input)
			}
		}
	}
}

// Qwen3#1894 Qwen3-Coder#444 GLM-5#158: a call in the history has its arguments as text, and every
// template renders them as an object. Package chat tests the other forms.
func TestArgumentsInHistory(t *testing.T) {
	for i, family := range families() {
		t.Run(family, func(t *testing.T) {
			if testing.Short() && i%4 > 0 {
				t.Skip("one family in four")
			}
			s := &scene{template: familyTemplate(t, family), answer: "Ok."}
			d := s.dialect(t)
			s.controls = markersOf(d)
			if n := len(d.Text.Begins); n > 0 {
				s.answer = d.Text.Begins[0] + s.answer
			}
			if d.Thinking.Opened {
				s.answer = d.Thinking.End + s.answer
			}
			var prompts []string
			for _, input := range []string{`"{\"city\": \"Rome\"}"`, `{"city": "Rome"}`} {
				gen := greedy(publicTools)
				gen.Messages = append(gen.Messages,
					infer.Message{Role: infer.Assistant, Content: []infer.Part{&infer.CallPart{ID: "tc-1", Name: "get_weather", Input: []byte(input)}}},
					infer.Message{Role: infer.User, Content: []infer.Part{&infer.ResultPart{ID: "tc-1", Content: []infer.Part{&infer.TextPart{Text: "sunny"}}}}},
				)
				gen.Reveal.Text = true
				h := hear(t, s.play(t, gen, cuts["words"]), gen)
				if got := strings.Join(h.log, "|"); got != "text Ok." {
					t.Errorf("%q", got)
				}
				prompts = append(prompts, h.prompt)
			}
			if prompts[0] != prompts[1] {
				t.Errorf("the prompt is\n%s\nwant\n%s", prompts[0], prompts[1])
			}
		})
	}
}
