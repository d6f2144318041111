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
	{Name: "open", Schema: []byte(`{"type":"object","properties":{"url":{"type":["string","null"]},"mode":{"enum":["none","fast"]}},"additionalProperties":false}`)},
}

// A failure is a case from a public report about another engine: the answer of the model, and the parts
// into which the engine must parse it.
type failure struct {
	family string
	answer string
	change func(*infer.Generate)
	wrong  []string // tokens that are always likelier than the right one
	bytes  bool     // the markers are not control tokens
	rest   string   // a token that may not follow the answer
	want   []string // the parts; nil means that the thoughts are cut off
}

// twenty returns the spelling of twenty calls in Hermes, and the calls.
func twenty() (answer string, want []string) {
	var all []string
	for i := range 20 {
		all = append(all, fmt.Sprintf("<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"%d\"}}\n</tool_call>", i))
		want = append(want, fmt.Sprintf(`call get_weather {"city": "%d"}`, i))
	}
	return strings.Join(all, "\n"), want
}

var twentyCalls, twentyCalled = twenty()

var numbered = &infer.Format{Schema: []byte(`{"type":"object","properties":{"a":{"type":"string"}},"required":["a"],"additionalProperties":false}`)}

func formatted(thinking infer.ThinkingMode) func(*infer.Generate) {
	return func(g *infer.Generate) { g.Tools, g.Format, g.Thinking = nil, *numbered, thinking }
}

func demanded(g *infer.Generate) { g.Choice.Mode = infer.ToolRequired }

// wrongs are tokens that must not be chosen inside a string.
var wrongs = []string{"<|pad|>", "<|bos|>", "<unused1>", "</tool_call>", "</think>"}

const hermesCall = "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Köln <b>&\"}}\n</tool_call>"

const hermesCalled = `call get_weather {"city": "Köln <b>&"}`

// failures are cases for the whole engine; package speech tests more spellings of some. In their names, L#1
// is issue 1 of llama.cpp; V stands for vllm, S for sglang, O for ollama.
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
	"S#38198 lmdeploy#3412 dynamo#4723 twenty calls of one tool": {
		family: "hermes", answer: twentyCalls, want: twentyCalled, change: func(g *infer.Generate) { g.MaxTokens = 2000 },
	},
	"V#28806 no arguments": {
		family: "qwen3-coder", answer: "<tool_call>\n<function=now>\n</function>\n</tool_call>", want: []string{"call now {}"},
	},
	"O#18237 markup in an argument": {
		family: "hermes", answer: "<tool_call>\n{\"name\": \"run\", \"arguments\": {\"command\": \"<b>&'\\u0001\"}}\n</tool_call>", want: []string{`call run {"command": "<b>&'\u0001"}`},
	},
	"O#11505 arguments before the name": {
		family: "hermes", answer: "<tool_call>\n{\"arguments\": {\"command\": \"a}\"}, \"name\": \"run\"}\n</tool_call>", want: []string{`call run {"command": "a}"}`},
		change: func(g *infer.Generate) { g.Tools = g.Tools[1:] }, // the tools with closed objects
	},
	"S#36835 an empty tag": {
		family: "qwen3-coder", answer: "<tool_call>\n<function=run>\n<parameter=command>\n\n</parameter>\n</function>\n</tool_call>", want: []string{`call run {"command": ""}`},
	},
	"S#36835 the word none of an enum": {
		family: "qwen3-coder", answer: "<tool_call>\n<function=open>\n<parameter=mode>\nnone\n</parameter>\n</function>\n</tool_call>", want: []string{`call open {"mode": "none"}`},
	},
	"V#39580 null in place of a text": {
		family: "qwen3-coder", answer: "<tool_call>\n<function=open>\n<parameter=url>\nnull\n</parameter>\n</function>\n</tool_call>", want: []string{`call open {"url": null}`},
	},
	"drama_llama#115 the text 4 where null may stand": {
		family: "qwen3-coder", answer: "<tool_call>\n<function=open>\n<parameter=url>\n4\n</parameter>\n</function>\n</tool_call>", want: []string{`call open {"url": "4"}`},
	},
}

func think(g *infer.Generate) { g.Thinking = infer.ThinkOn }

// Failures that were reported for other engines do not occur, however the answer is divided into tokens.
func TestPublicFailures(t *testing.T) {
	for name, f := range failures {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && len(name)%3 > 0 {
				t.Skip("one case in three")
			}
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
				h := request(t, s.play(t, gen, cuts[chunking]), gen)
				if f.want != nil && !slices.Equal(h.log, f.want) {
					t.Errorf("%s: %q, want %q", chunking, h.log, f.want)
				}
				for i, c := range h.calls {
					if c.ID != fmt.Sprintf("tc-%d", i+1) {
						t.Errorf("%s: call %d has the id %s", chunking, i+1, c.ID)
					}
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

// Every template renders the arguments of an earlier call, which are text in the request, as an object, and
// leaves markup in them unchanged. Package chat tests the other forms.
func TestArgumentsInHistory(t *testing.T) {
	for i, family := range families() {
		t.Run("Qwen3#1894 Qwen3-Coder#444 GLM-5#158 O#18237 "+family, func(t *testing.T) {
			if testing.Short() && i%2 > 0 {
				t.Skip("one family in two")
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
			for _, input := range []string{`"{\"city\": \"<b>&'\"}"`, `{"city": "<b>&'"}`} {
				gen := greedy(publicTools)
				gen.Messages = append(gen.Messages,
					infer.Message{Role: infer.Assistant, Content: []infer.Part{&infer.CallPart{ID: "tc-1", Name: "get_weather", Input: []byte(input)}}},
					infer.Message{Role: infer.User, Content: []infer.Part{&infer.ResultPart{ID: "tc-1", Content: []infer.Part{&infer.TextPart{Text: "sunny"}}}}},
				)
				gen.Reveal.Text = true
				h := request(t, s.play(t, gen, cuts["words"]), gen)
				if got := strings.Join(h.log, "|"); got != "text Ok." {
					t.Errorf("%q", got)
				}
				prompts = append(prompts, h.prompt)
			}
			if prompts[0] != prompts[1] || !strings.Contains(prompts[0], "<b>&'") {
				t.Errorf("the prompt is\n%s\nwant\n%s", prompts[0], prompts[1])
			}
		})
	}
}
