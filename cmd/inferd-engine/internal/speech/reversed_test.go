package speech_test

import (
	"slices"
	"testing"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialecttest"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/speech"
	"github.com/inferd-go/inferd/internal/infer"
)

// strict are tools with schemas that allow no additional members.
var strict = []infer.Tool{
	{Name: "go", Schema: []byte(`{"type":"object","properties":{"to":{"type":"string"},"far":{"type":"integer"}},"required":["to"],"additionalProperties":false}`)},
	{Name: "go_home", Schema: []byte(`{"type":"object","properties":{"to":{"enum":["bed"]}},"additionalProperties":false}`)},
}

// Arguments in front of the name are read as those of the named tool, in all shapes with JSON objects, whether markers
// are control tokens or bytes. If they do not fit that tool, the answer is text.
func TestArgumentsBeforeName(t *testing.T) {
	for name, test := range map[string]struct {
		family, text string
		want         []string
	}{
		"hermes":           {"hermes", "So <tool_call>\n{\"arguments\": {\"to\": \"a}\"}, \"name\": \"go\"}\n</tool_call>", []string{"text So", `call go {"to": "a}"}`}},
		"two":              {"hermes", "<tool_call>\n{\"arguments\": {\"to\": \"bed\"}, \"name\": \"go_home\"}\n</tool_call>\n<tool_call>\n{\"name\": \"go\", \"arguments\": {\"to\": \"x\"}}\n</tool_call>", []string{`call go_home {"to": "bed"}`, `call go {"to": "x"}`}},
		"llama 3":          {"llama3-json", `{"parameters": {"to": "bed", "far": 7}, "name": "go"}`, []string{`call go {"to": "bed", "far": 7}`}},
		"an array":         {"mistral-nemo", `[TOOL_CALLS][{"arguments": {}, "name": "go_home", "id": "abcDEF123"}]`, []string{`call go_home {}`}},
		"generic":          {"generic", `{"tool_calls": [{"arguments": {"to": "bed"}, "name": "go_home"}]}`, []string{`call go_home {"to": "bed"}`}},
		"undeclared":       {"llama3-json", `{"parameters": {"to": "bed"}, "name": "fly"}`, []string{`text {"parameters": {"to": "bed"}, "name": "fly"}`}},
		"of no tool":       {"llama3-json", `{"parameters": {"up": 1}, "name": "go"}`, []string{`text {"parameters": {"up": 1}, "name": "go"}`}},
		"of another tool":  {"llama3-json", `{"parameters": {"to": "bath"}, "name": "go_home"}`, []string{`text {"parameters": {"to": "bath"}, "name": "go_home"}`}},
		"cut off":          {"llama3-json", `{"parameters": {"to": "be`, []string{`text {"parameters": {"to": "be`}},
		"a text of braces": {"llama3-json", `{"parameters": {"to": [{}, "x"]}} and more`, []string{`text {"parameters": {"to": [{}, "x"]}} and more`}},
	} {
		t.Run("O#11505 "+name, func(t *testing.T) {
			d := dialecttest.Fixtures()[test.family]
			models := []model{plain, controls(d)}
			for _, m := range models {
				for _, often := range []bool{true, false} {
					if got := parseAnswer(t, m, speech.Options{Dialect: d, Tools: strict}, test.text, often); !slices.Equal(got, test.want) {
						t.Errorf("%d markers, often %v: %q, want %q", len(m.markers), often, got, test.want)
					}
				}
			}
		})
	}
}

// If the marker is a token, or if a call is demanded, the mask enforces the schemas on arguments in front of the name.
// If no call is allowed, one is refused at the end of its name.
func TestArgumentsBeforeNameMasked(t *testing.T) {
	d := dialecttest.Fixtures()["hermes"]
	llama := dialecttest.Fixtures()["llama3-json"]
	open := []infer.Tool{{Name: "any"}}
	none := infer.ToolChoice{Mode: infer.ToolNone}
	for name, test := range map[string]struct {
		m          model
		d          *dialect.Dialect
		tools      []infer.Tool
		choice     infer.ToolChoice
		text, rest string
	}{
		"of no tool":          {controls(d), d, strict, infer.ToolChoice{}, `<tool_call>{"arguments": {"up`, `up`},
		"of one tool only":    {controls(d), d, strict, infer.ToolChoice{}, `<tool_call>{"arguments": {"to": "bath"}, "name": "go_home`, `_home`},
		"demanded":            {plain, llama, strict, required, `{"parameters": {"to": 5`, `5`},
		"the only tool, open": {controls(d), d, open, infer.ToolChoice{}, `<tool_call>{"arguments": {"x": {"y": 1}}, "name": "any"}</tool_call>`, ``},
		"a name twice":        {controls(d), d, open, infer.ToolChoice{}, `<tool_call>{"arguments": {"x": 1, "x": 2`, `": 2`},
		"none":                {plain, llama, strict, none, `{"parameters": {"to": "x"}, "name": "go"`, `"`},
		"none, open":          {plain, llama, open, none, `{"parameters": {"x": 1, "x": 2}, "name": "any"`, `"`},
	} {
		t.Run(name, func(t *testing.T) {
			r := begin(t, test.m, speech.Options{Dialect: test.d, Tools: test.tools, Choice: test.choice})
			if rest := r.feed(test.text, nil); rest != test.rest {
				t.Errorf("%q is left, want %q", rest, test.rest)
			}
		})
	}
}
