package engine_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/batch"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialecttest"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/engine"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/speech"
	"github.com/inferd-go/inferd/internal/infer"
)

// speaking loads a model with the dialect of a family.
func speaking(t *testing.T, model, family string) *engine.Engine {
	t.Helper()
	e := load(t, model, batch.Limits{Context: 8192, Batch: 256, Sequences: 4})
	texts := e.Model.TokenTexts()
	e.Markers, e.Ends = speech.NewMarkers(texts.Markers), texts.Ends
	e.Dialect = dialecttest.Fixtures()[family]
	return e
}

// A heard is an answer with all its parts.
type heard struct {
	text, thoughts strings.Builder
	calls          []infer.ToolCall
	log            []string // the parts in their order, adjacent ones of a kind joined
	prompt         string
	ids            []int32 // of the prompt
	tokens         int
	done           infer.Done
}

// note adds a part to the log.
func (h *heard) note(kind string, text []byte) {
	if len(text) == 0 {
		return
	}
	if n := len(h.log); n > 0 && strings.HasPrefix(h.log[n-1], kind) && kind != "call " {
		h.log[n-1] += string(text)
		return
	}
	h.log = append(h.log, kind+string(text))
}

// hear returns the answer to a request.
func hear(t *testing.T, e *engine.Engine, gen *infer.Generate) *heard {
	t.Helper()
	h, err := tryHear(t, e, gen)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func tryHear(t *testing.T, e *engine.Engine, gen *infer.Generate) (*heard, error) {
	t.Helper()
	h := new(heard)
	err := e.Handle(t.Context(), &infer.Request{Peer: infer.Peer{User: "1000"}, Task: gen}, func(ev infer.Event) error {
		switch ev := ev.(type) {
		case *infer.Text:
			h.text.Write(ev.Delta)
			h.note("text ", ev.Delta)
			h.tokens += ev.Tokens
		case *infer.Thinking:
			h.thoughts.Write(ev.Delta)
			h.note("thought ", ev.Delta)
			h.tokens += ev.Tokens
		case *infer.ToolCall:
			h.calls = append(h.calls, infer.ToolCall{ID: ev.ID, Name: ev.Name, Input: append([]byte(nil), ev.Input...)})
			h.note("call ", fmt.Appendf(nil, "%s %s", ev.Name, ev.Input))
			h.tokens += ev.Tokens
		case *infer.Prompt:
			h.prompt, h.ids = string(ev.Text), ev.IDs
		case *infer.Done:
			h.done = *ev
		default:
		}
		return nil
	})
	return h, err
}

// declared returns a tool for each kind of schemas.
func declared() (tools []infer.Tool) {
	for i, schema := range schemasOfTools {
		tools = append(tools, infer.Tool{Name: fmt.Sprintf("tool_%d", i), Description: "d", Schema: []byte(schema)})
	}
	return tools
}

var schemasOfTools = []string{
	`{"type":"object","properties":{"city":{"type":"string","maxLength":12},"days":{"type":"integer","minimum":1,"maximum":14}},"required":["city"],"additionalProperties":false}`,
	`{"type":"object","properties":{"a":{"enum":["x","y",null]},"b":{"type":"array","items":{"type":"number"},"maxItems":3}},"required":["b"],"additionalProperties":false}`,
	`{"type":"object","properties":{"when":{"type":"string","format":"date"},"who":{"type":"object","properties":{"name":{"type":"string","maxLength":5}},"required":["name"],"additionalProperties":false}},"required":["when","who"],"additionalProperties":false}`,
	`{"type":"object","additionalProperties":false}`,
	`{"type":"object","properties":{"code":{"type":"string","pattern":"^[A-Z]{3}-[0-9]+$","maxLength":9},"ok":{"type":"boolean"}},"required":["code"],"additionalProperties":false}`,
}

// validate checks the calls of an answer with a judge of its own.
func validate(t *testing.T, tools []infer.Tool, calls []infer.ToolCall) {
	t.Helper()
	for i, c := range calls {
		if want := fmt.Sprintf("tc-%d", i+1); c.ID != want {
			t.Errorf("call %d has the id %q", i, c.ID)
		}
		var schema any
		for _, tool := range tools {
			if tool.Name == c.Name {
				if err := json.Unmarshal(tool.Schema, &schema); err != nil {
					t.Fatal(err)
				}
			}
		}
		if schema == nil {
			t.Fatalf("%q is not declared", c.Name)
		}
		judge := jsonschema.NewCompiler()
		judge.AssertFormat()
		if err := judge.AddResource("tool.json", schema); err != nil {
			t.Fatal(err)
		}
		s, err := judge.Compile("tool.json")
		if err != nil {
			t.Fatal(err)
		}
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(string(c.Input)))
		if err != nil {
			t.Fatalf("%s: %v", c.Input, err)
		}
		if err := s.Validate(value); err != nil {
			t.Errorf("%s%s: %v", c.Name, c.Input, err)
		}
	}
}

// Random weights call declared tools with arguments that validate, in every dialect.
func TestRandomCallsValidate(t *testing.T) {
	for family := range dialecttest.Fixtures() {
		if testing.Short() && family != "hermes" && family != "gemma4" {
			continue
		}
		t.Run(family, func(t *testing.T) {
			e := speaking(t, "tiny", family)
			tools := declared()
			for seed := range uint32(2) {
				gen := user("call", 300)
				gen.Blocks, gen.Tools, gen.Choice = true, tools, infer.ToolChoice{Mode: infer.ToolRequired}
				gen.Sampling = infer.Sampling{Temperature: new(1.0), Seed: &seed}
				h := hear(t, e, gen)
				if len(h.calls) == 0 || h.done.Unsatisfied {
					t.Errorf("seed %d: no call, %+v: %q", seed, h.done, h.text.String())
				}
				validate(t, tools, h.calls)
				if h.done.Out > 300 || h.done.Reason != infer.CalledTool && h.done.Reason != infer.Length {
					t.Errorf("%d tokens, %s", h.done.Out, h.done.Reason)
				}
			}
		})
	}
}

// A demanded call comes even if the model ends its turn by a text.
func TestDemandAtStop(t *testing.T) {
	e := loadScript(t, " Hi", "\n", "User", ":")
	texts := e.Model.TokenTexts()
	e.Markers, e.Ends, e.Dialect = speech.NewMarkers(texts.Markers), texts.Ends, dialecttest.Fixtures()["hermes"]
	for _, choice := range []infer.ToolMode{infer.ToolRequired, infer.ToolAuto} {
		gen := user("call", 100)
		gen.Blocks, gen.Choice.Mode = true, choice
		gen.Tools = []infer.Tool{{Name: "now", Schema: []byte(`{"type":"object","additionalProperties":false}`)}}
		h := hear(t, e, gen)
		want := 0
		if choice == infer.ToolRequired {
			want = 1
		}
		if len(h.calls) != want || h.done.Unsatisfied || strings.TrimSpace(h.text.String()) != "Hi" {
			t.Errorf("%v: %q, %d calls, %+v", choice, h.text.String(), len(h.calls), h.done)
		}
	}
}

// The abilities name the dialect; thinking is among them where the template has it.
func TestAbilitiesOfDialects(t *testing.T) {
	e := load(t, "chain", roomy)
	if can := e.Abilities(); can.Tools || can.ToolsDialect != "" || can.Thinking {
		t.Errorf("without a dialect: %+v", can)
	}
	for name, thinks := range map[string]bool{"generic": false, "hermes": true, "qwen3-coder": false, "gpt-oss": true} {
		e.Dialect = dialecttest.Fixtures()[name]
		if can := e.Abilities(); !can.Tools || can.ToolsDialect != name || can.Thinking != thinks {
			t.Errorf("%s: %+v", name, can)
		}
	}
}
