package speech_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialecttest"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/speech"
	"github.com/inferd-go/inferd/internal/infer"
)

// Failures of other engines, by their public numbers: L llama.cpp, V vllm, S sglang, O ollama.
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
		"L12597 fenced block before a call":    {"hermes", "```py\nx\n```\n<tool_call>{\"name\": \"now\", \"arguments\": {}}</tool_call>", []string{"text ```py\nx\n```", "call now {}"}},
		"L20260 prose behind thoughts":         {"hermes", "<think>\nhm\n</think>\n\nI call. <tool_call>{\"name\": \"now\", \"arguments\": {}}</tool_call>", []string{"thought hm", "text I call.", "call now {}"}},
		"L29240 call without thoughts":         {"hermes", `<tool_call>{"name": "now", "arguments": {}}</tool_call>`, []string{"call now {}"}},
		"O17561 V15418 thoughts without end":   {"hermes", "<think>\nand so on", []string{"thought and so on"}},
		"O8337 text and call":                  {"hermes", `Both. <tool_call>{"name": "now", "arguments": {}}</tool_call>`, []string{"text Both.", "call now {}"}},
		"L24644 end tag's beginning":           {"qwen3-coder", "<tool_call>\n<function=run>\n<parameter=command>\n{\"a\": 1}\n\n</param </parameter\n</parameter>\n</function>\n</tool_call>", []string{`call run {"command": "{\"a\": 1}\n\n</param </parameter"}`}},
		"V10395 V21544 V32152 an open brace":   {"mistral-small-3.2", `[TOOL_CALLS]run[CALL_ID]abc123DEF[ARGS]{"command": "mkdir -p t/{a,b"}`, []string{`call run {"command": "mkdir -p t/{a,b"}`}},
		"V28806 no arguments":                  {"qwen3-coder", "<tool_call>\n<function=now>\n</function>\n</tool_call>", []string{"call now {}"}},
		"O18237 markup":                        {"hermes", `<tool_call>{"name": "run", "arguments": {"command": "<b>&\u0001"}}</tool_call>`, []string{`call run {"command": "<b>&\u0001"}`}},
		"S36835 an enum none":                  {"qwen3-coder", "<tool_call>\n<function=run>\n<parameter=mode>\nnone\n</parameter>\n</function>\n</tool_call>", []string{`call run {"mode": "none"}`}},
		"V39580 nullable string null":          {"qwen3-coder", "<tool_call>\n<function=get>\n<parameter=url>\nnull\n</parameter>\n</function>\n</tool_call>", []string{`call get {"url": null}`}},
		"drama_llama115 nullable string 4":     {"qwen3-coder", "<tool_call>\n<function=get>\n<parameter=url>\n4\n</parameter>\n</function>\n</tool_call>", []string{`call get {"url": "4"}`}},
		"S36835 an empty tag":                  {"qwen3-coder", "<tool_call>\n<function=run>\n<parameter=command>\n\n</parameter>\n</function>\n</tool_call>", []string{`call run {"command": ""}`}},
		"S34677 one undeclared":                {"hermes", `<tool_call>{"name": "rm", "arguments": {}}</tool_call>`, []string{`text <tool_call>{"name": "rm", "arguments": {}}</tool_call>`}},
		"S38198 lmdeploy3412 twenty of a tool": {"hermes", twenty, want20},
		"V57541 quoted in a fence":             {"hermes", "```\n<tool_call>{\"name\": \"now\", \"arguments\": {}}</tool_call>\n```", []string{"text ```\n<tool_call>{\"name\": \"now\", \"arguments\": {}}</tool_call>\n```"}},
		"S38624 continue11070 in thoughts":     {"hermes", "<think>\n<tool_call>{\"name\": \"now\", \"arguments\": {}}</tool_call>\n</think>\n\nNo.", []string{`thought <tool_call>{"name": "now", "arguments": {}}</tool_call>`, "text No."}},
	} {
		t.Run(name, func(t *testing.T) {
			d := dialecttest.Fixtures()[test.family]
			for _, often := range []bool{true, false} {
				if got := understand(t, plain, speech.Options{Dialect: d, Tools: tools}, test.text, often); !slices.Equal(got, test.want) {
					t.Errorf("often %v: %q, want %q", often, got, test.want)
				}
			}
		})
	}
}

// L27720 kronk931 V23567: a header that a message cannot have is masked out.
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

// L15608 L22537 V16182 V47027 O15260 O14850: a format or a demanded call stands behind thoughts that were
// opened by the prompt, by the model, or not at all.
func TestFormatsBehindThoughts(t *testing.T) {
	format := &infer.Format{Schema: []byte(`{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}`)}
	for name, test := range map[string]struct {
		place dialect.Place
		text  string
		want  []string
	}{
		"before, thoughts": {dialect.Before, "<think>\nhm\n</think>\n\n{\"a\": 1}", []string{"thought hm", `text {"a": 1}`}},
		"before, none":     {dialect.Before, `{"a": 1}`, []string{`text {"a": 1}`}},
		"inside":           {dialect.Inside, "hm\n</think>\n\n{\"a\": 1}", []string{"thought hm", `text {"a": 1}`}},
		"behind":           {dialect.Behind, `{"a": 1}`, []string{`text {"a": 1}`}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, m := range modelsOf(hermes()) {
				got := understand(t, m, speech.Options{Dialect: hermes(), Format: format, Place: test.place}, test.text, true)
				if !slices.Equal(got, test.want) {
					t.Errorf("%q, want %q", got, test.want)
				}
				r := begin(t, m, speech.Options{Dialect: hermes(), Tools: tools, Choice: required, Place: dialect.Inside})
				if r.feed("hm", nil); r.answer.Place().MayEnd {
					t.Error("a demanded call may be missing behind thoughts")
				}
			}
		})
	}
}
