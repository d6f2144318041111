package builtin_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/inferd-go/inferd/internal/jinja"
)

func dict(pairs ...any) jinja.Value {
	v := jinja.NewDict()
	for pair := range slices.Chunk(pairs, 2) {
		value, ok := pair[1].(jinja.Value)
		if !ok {
			value = jinja.FromGoValue(pair[1])
		}
		v.AsDict().Set(pair[0].(string), value)
	}
	return v
}

func list(items ...jinja.Value) jinja.Value { return jinja.NewList(items) }

// The chat templates give the expected prompts. They are rendered with package jinja, as in the
// engine.
func TestTemplates(t *testing.T) {
	system := dict("role", "system", "content", "Be brief.")
	hello := dict("role", "user", "content", "Hello")
	reply := dict("role", "assistant", "content", "Hi")
	weather := dict("type", "function", "function", dict("name", "weather", "parameters", dict("type", "object")))
	clock := dict("type", "function", "function", dict("name", "clock"))
	const (
		toolsBegin = "These functions may be called, one JSON object a line:\n<tools>\n"
		toolsEnd   = "\n</tools>\nA call is one JSON object with the function's name and its arguments:\n" +
			"<tool_call>\n{\"name\": NAME, \"arguments\": OBJECT}\n</tool_call><|im_end|>\n"
		assistant = "<|im_start|>assistant\n"
	)
	for name, test := range map[string]struct {
		model    string
		messages jinja.Value
		tools    jinja.Value
		want     string
	}{
		"chain takes the last message alone": {
			"chain", list(system, hello, reply, dict("role", "user", "content", " a\n{{ x }}")), jinja.Undefined(),
			" a\n{{ x }}",
		},
		"chain takes an empty message": {"chain", list(dict("role", "user", "content", "")), jinja.Undefined(), ""},
		"loop takes the last message":  {"loop", list(hello), jinja.Undefined(), "Hello"},
		"tiny frames every message": {
			"tiny", list(system, hello, reply, hello), jinja.Undefined(),
			"<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n" + assistant,
		},
		"tiny frames an empty message": {
			"tiny", list(dict("role", "user", "content", "")), jinja.None(),
			"<|im_start|>user\n<|im_end|>\n" + assistant,
		},
		"tiny lists the tools, each on its line": {
			"tiny", list(hello), list(weather, clock),
			"<|im_start|>system\n" + toolsBegin +
				`{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}` + "\n" +
				`{"type": "function", "function": {"name": "clock"}}` + toolsEnd +
				"<|im_start|>user\nHello<|im_end|>\n" + assistant,
		},
		"tiny lists the tools behind what the system says, once": {
			"tiny", list(system, hello), list(clock),
			"<|im_start|>system\nBe brief.\n\n" + toolsBegin + `{"type": "function", "function": {"name": "clock"}}` + toolsEnd +
				"<|im_start|>user\nHello<|im_end|>\n" + assistant,
		},
		"tiny renders a call and its result": {
			"tiny", list(hello,
				dict("role", "assistant", "content", "Let me see.", "tool_calls", list(
					dict("function", dict("name", "weather", "arguments", dict("city", "Dublin"))),
					dict("function", dict("name", "clock", "arguments", "{}")),
				)),
				dict("role", "tool", "content", "rain"),
				dict("role", "tool", "content", "noon"),
			), list(clock),
			"<|im_start|>system\n" + toolsBegin + `{"type": "function", "function": {"name": "clock"}}` + toolsEnd +
				"<|im_start|>user\nHello<|im_end|>\n" +
				"<|im_start|>assistant\nLet me see.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Dublin\"}}\n</tool_call>\n" +
				"<tool_call>\n{\"name\": \"clock\", \"arguments\": {}}\n</tool_call><|im_end|>\n" +
				"<|im_start|>tool\n<tool_response>\nrain\n</tool_response><|im_end|>\n" +
				"<|im_start|>tool\n<tool_response>\nnoon\n</tool_response><|im_end|>\n" + assistant,
		},
		"tiny renders a call that says nothing": {
			"tiny", list(hello, dict("role", "assistant", "content", nil, "tool_calls", list(
				dict("function", dict("name", "clock", "arguments", dict())),
			))), jinja.Undefined(),
			"<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n<tool_call>\n{\"name\": \"clock\", \"arguments\": {}}\n</tool_call><|im_end|>\n" + assistant,
		},
	} {
		t.Run(name, func(t *testing.T) {
			source, _ := parse(t, generate(t, test.model)).meta["tokenizer.chat_template"].(string)
			template, err := jinja.Compile(source)
			if err != nil {
				t.Fatal(err)
			}
			got, err := template.RenderValues(map[string]jinja.Value{
				"messages": test.messages, "tools": test.tools, "add_generation_prompt": jinja.NewBool(true),
			})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("rendered (-want +got):\n%s", diff)
			}
		})
	}
}
