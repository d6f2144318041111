package speech_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialecttest"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/speech"
	"github.com/inferd-go/inferd/internal/infer"
)

// Answers that other projects mishandled are parsed correctly. Each case is named after the public reports: L is
// llama.cpp, V vLLM, S SGLang, O Ollama; other projects are spelt out.
func TestPublicFailures(t *testing.T) {
	twenty, want20 := "", []string(nil)
	for i := range 20 {
		twenty += fmt.Sprintf("<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"%d\"}}\n</tool_call>\n", i)
		want20 = append(want20, fmt.Sprintf(`call get_weather {"city": "%d"}`, i))
	}
	for name, test := range map[string]struct {
		family, text string
		want         []string
	}{
		"L#12597 fenced block before a call":     {"hermes", "```py\nx\n```\n<tool_call>{\"name\": \"now\", \"arguments\": {}}</tool_call>", []string{"text ```py\nx\n```", "call now {}"}},
		"L#20260 prose behind thoughts":          {"hermes", "<think>\nhm\n</think>\n\nI call. <tool_call>{\"name\": \"now\", \"arguments\": {}}</tool_call>", []string{"thought hm", "text I call.", "call now {}"}},
		"L#29240 call without thoughts":          {"hermes", `<tool_call>{"name": "now", "arguments": {}}</tool_call>`, []string{"call now {}"}},
		"O#17561 V#15418 thoughts without end":   {"hermes", "<think>\nand so on", []string{"thought and so on"}},
		"O#8337 text and call":                   {"hermes", `Both. <tool_call>{"name": "now", "arguments": {}}</tool_call>`, []string{"text Both.", "call now {}"}},
		"L#24644 end tag's beginning":            {"qwen3-coder", "<tool_call>\n<function=run>\n<parameter=command>\n{\"a\": 1}\n\n</param </parameter\n</parameter>\n</function>\n</tool_call>", []string{`call run {"command": "{\"a\": 1}\n\n</param </parameter"}`}},
		"V#10395 V#21544 V#32152 an open brace":  {"mistral-small-3.2", `[TOOL_CALLS]run[CALL_ID]abc123DEF[ARGS]{"command": "mkdir -p t/{a,b"}`, []string{`call run {"command": "mkdir -p t/{a,b"}`}},
		"V#28806 no arguments":                   {"qwen3-coder", "<tool_call>\n<function=now>\n</function>\n</tool_call>", []string{"call now {}"}},
		"O#18237 markup":                         {"hermes", `<tool_call>{"name": "run", "arguments": {"command": "<b>&\u0001"}}</tool_call>`, []string{`call run {"command": "<b>&\u0001"}`}},
		"S#36835 an enum none":                   {"qwen3-coder", "<tool_call>\n<function=run>\n<parameter=mode>\nnone\n</parameter>\n</function>\n</tool_call>", []string{`call run {"mode": "none"}`}},
		"V#39580 nullable string null":           {"qwen3-coder", "<tool_call>\n<function=get>\n<parameter=url>\nnull\n</parameter>\n</function>\n</tool_call>", []string{`call get {"url": null}`}},
		"drama_llama#115 nullable string 4":      {"qwen3-coder", "<tool_call>\n<function=get>\n<parameter=url>\n4\n</parameter>\n</function>\n</tool_call>", []string{`call get {"url": "4"}`}},
		"S#36835 an empty tag":                   {"qwen3-coder", "<tool_call>\n<function=run>\n<parameter=command>\n\n</parameter>\n</function>\n</tool_call>", []string{`call run {"command": ""}`}},
		"S#34677 one undeclared":                 {"hermes", `<tool_call>{"name": "rm", "arguments": {}}</tool_call>`, []string{`text <tool_call>{"name": "rm", "arguments": {}}</tool_call>`}},
		"S#38198 lmdeploy#3412 twenty of a tool": {"hermes", twenty, want20},
		"dynamo#4723 two of a tool":              {"mistral-small-3.2", `[TOOL_CALLS]now[CALL_ID]abc123DEF[ARGS]{}[TOOL_CALLS]now[CALL_ID]abc123DEF[ARGS]{}`, []string{"call now {}", "call now {}"}},
		"L#27733 a stray marker, of bytes":       {"hermes", "Done.\n<think>", []string{"text Done.\n<think>"}},
		"V#57541 quoted in a fence":              {"hermes", "```\n<tool_call>{\"name\": \"now\", \"arguments\": {}}</tool_call>\n```", []string{"text ```\n<tool_call>{\"name\": \"now\", \"arguments\": {}}</tool_call>\n```"}},
		"S#38624 continue#11070 in thoughts":     {"hermes", "<think>\n<tool_call>{\"name\": \"now\", \"arguments\": {}}</tool_call>\n</think>\n\nNo.", []string{`thought <tool_call>{"name": "now", "arguments": {}}</tool_call>`, "text No."}},
	} {
		t.Run(name, func(t *testing.T) {
			d := dialecttest.Fixtures()[test.family]
			for _, often := range []bool{true, false} {
				if got := parseAnswer(t, plain, speech.Options{Dialect: d, Tools: tools}, test.text, often); !slices.Equal(got, test.want) {
					t.Errorf("often %v: %q, want %q", often, got, test.want)
				}
			}
		})
	}
}

// L#27720 kronk#931 V#23567: the mask refuses a header that no message can have.
func TestMalformedHeaders(t *testing.T) {
	d := dialecttest.Fixtures()["gpt-oss"]
	for text, rest := range map[string]string{
		"<|channel|>analysis to=functions.now code<|message|>": " to=functions.now code<|message|>",
		"<|channel|>final json<|message|>":                     " json<|message|>",
		"<|message|>":                                          "<|message|>",
		"<|channel|>commentary to=functions.zz":                "zz",
	} {
		if got := begin(t, controls(d), speech.Options{Dialect: d, Tools: tools}).feed(text, nil); got != rest {
			t.Errorf("%q: %q is left, want %q", text, got, rest)
		}
	}
}

// O#12017 O#17638 L#27733: the mask refuses a byte or a marker that may not follow a call or a text, and the answer may
// end in front of it.
func TestTrailingRubbish(t *testing.T) {
	for name, test := range map[string]struct {
		family, text, rest string
		want               []string
	}{
		"O#12017 a letter behind the brace": {"llama3-json", `{"name": "now", "parameters": {}}A`, "A", []string{"call now {}"}},
		"O#17638 a bracket too many":        {"mistral-nemo", `[TOOL_CALLS][{"name": "now", "arguments": {}, "id": "abcDEF123"}]]`, "]", []string{"call now {}"}},
		"L#27733 a stray marker":            {"hermes", "Done.<think>", "<think>", []string{"text Done."}},
		"L#27733 an end without beginning":  {"hermes", "Done.</think>", "</think>", []string{"text Done."}},
	} {
		t.Run(name, func(t *testing.T) {
			d := dialecttest.Fixtures()[test.family]
			m := controls(d)
			if test.family == "llama3-json" {
				m = plain
			}
			m = m.withPieces(test.text)
			k, err := compile(t, m, speech.Options{Dialect: d, Tools: tools})
			if err != nil {
				t.Fatal(err)
			}
			for chunking, cut := range cuts {
				r, err := open(t, m, k)
				if err != nil {
					t.Fatal(err)
				}
				rest := r.follow(m.chunks(test.text, cut), nil)
				if !strings.HasSuffix(rest, test.rest) || chunking == "bytes" && rest != test.rest {
					t.Errorf("%s: %q is left, want %q", chunking, rest, test.rest)
				}
				if chunking != "bytes" {
					continue
				}
				if may := r.answer.Position().MayEnd; may != (test.want != nil) {
					t.Errorf("may end: %v", may)
				}
				r.parser.End()
				r.drain()
				if !slices.Equal(r.log, test.want) {
					t.Errorf("%q, want %q", r.log, test.want)
				}
			}
		})
	}
}

// L#15608 L#22537 V#16182 V#47027 O#15260 O#14850: a response format, or a demanded call, applies behind the thoughts,
// whether the prompt or the model has opened them, and a format also if there are none.
func TestFormatsBehindThoughts(t *testing.T) {
	format := &infer.Format{Schema: []byte(`{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}`)}
	for name, test := range map[string]struct {
		position dialect.Position
		text     string
		want     []string
	}{
		"before, thoughts": {dialect.Before, "<think>\nhm\n</think>\n\n{\"a\": 1}", []string{"thought hm", `text {"a": 1}`}},
		"before, none":     {dialect.Before, `{"a": 1}`, []string{`text {"a": 1}`}},
		"inside":           {dialect.Inside, "hm\n</think>\n\n{\"a\": 1}", []string{"thought hm", `text {"a": 1}`}},
		"behind":           {dialect.Behind, `{"a": 1}`, []string{`text {"a": 1}`}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, m := range modelsOf(hermes()) {
				got := parseAnswer(t, m, speech.Options{Dialect: hermes(), Format: format, Position: test.position}, test.text, true)
				if !slices.Equal(got, test.want) {
					t.Errorf("%q, want %q", got, test.want)
				}
				r := begin(t, m, speech.Options{Dialect: hermes(), Tools: tools, Choice: required, Position: dialect.Inside})
				if r.feed("hm", nil); r.answer.Position().MayEnd {
					t.Error("a demanded call may be missing behind thoughts")
				}
			}
		})
	}
}
