package engine_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialecttest"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/engine"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/speech"
	"github.com/inferd-go/inferd/internal/infer"
)

// A reply is an answer, divided into its parts.
type reply struct {
	text, thoughts strings.Builder
	calls          []infer.ToolCall
	log            []string // the parts in order; adjacent parts of one kind are joined
	prompt         string
	ids            []int32 // of the prompt
	tokens         int
	done           infer.Done
}

// note adds a part to the log.
func (h *reply) note(kind string, text []byte) {
	if len(text) == 0 {
		return
	}
	if n := len(h.log); n > 0 && strings.HasPrefix(h.log[n-1], kind) && kind != "call " {
		h.log[n-1] += string(text)
		return
	}
	h.log = append(h.log, kind+string(text))
}

// request returns the answer to a request.
func request(t *testing.T, e *engine.Engine, gen *infer.Generate) *reply {
	t.Helper()
	h, err := tryRequest(t, e, gen)
	if err != nil {
		t.Fatal(err)
	}
	if h.tokens > h.done.Out {
		t.Errorf("the events have %d tokens, the answer has %d", h.tokens, h.done.Out)
	}
	return h
}

func tryRequest(t *testing.T, e *engine.Engine, gen *infer.Generate) (*reply, error) {
	t.Helper()
	h := new(reply)
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

// A demanded call is made even if the model ends its turn behind a text.
func TestDemandAtStop(t *testing.T) {
	e := loadScript(t, " Hi", "\n", "User", ":")
	texts := e.Model.TokenTexts()
	e.Markers, e.Ends, e.Dialect = speech.NewMarkers(texts.Markers), texts.Ends, dialecttest.Fixtures()["hermes"]
	for _, choice := range []infer.ToolMode{infer.ToolRequired, infer.ToolAuto} {
		gen := user("call", 100)
		gen.Blocks, gen.Choice.Mode = true, choice
		gen.Tools = []infer.Tool{{Name: "now", Schema: []byte(`{"type":"object","additionalProperties":false}`)}}
		h := request(t, e, gen)
		want := 0
		if choice == infer.ToolRequired {
			want = 1
		}
		if len(h.calls) != want || h.done.Unsatisfied || strings.TrimSpace(h.text.String()) != "Hi" {
			t.Errorf("%v: %q, %d calls, %+v", choice, h.text.String(), len(h.calls), h.done)
		}
	}
}

// The abilities name the dialect, and include thinking if the dialect has it.
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

// A call is not missed because the model has left a fenced block open: a marker that is one token begins a call within
// the block, and a demanded call is made where the text ends. That holds for every sampler.
func TestCallsInOpenFences(t *testing.T) {
	const block = "```py\nx = 1\n"
	const call = "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>"
	now := []infer.Tool{{Name: "now", Schema: []byte(`{"type":"object","additionalProperties":false}`)}}
	for name, test := range map[string]struct {
		answer string
		bytes  bool
		choice infer.ToolMode
		want   []string
	}{
		"a token":            {block + call, false, infer.ToolAuto, []string{"text ```py\nx = 1", "call now {}"}},
		"a token, demanded":  {block + call, false, infer.ToolRequired, []string{"text ```py\nx = 1", "call now {}"}},
		"bytes":              {block + call, true, infer.ToolAuto, []string{"text " + block + call}},
		"bytes, demanded":    {block + call, true, infer.ToolRequired, []string{"text " + block + call + "\n```", "call now {}"}},
		"no call, demanded":  {block, false, infer.ToolRequired, []string{"text ```py\nx = 1", "call now {}"}},
		"no bytes, demanded": {block, true, infer.ToolNamed, []string{"text " + block + "```", "call now {}"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, penalty := range []*float64{nil, new(1.01)} {
				if testing.Short() && penalty != nil {
					continue
				}
				gen := greedy(now)
				gen.Choice, gen.Sampling.RepeatPenalty = infer.ToolChoice{Mode: test.choice}, penalty
				if test.choice == infer.ToolNamed {
					gen.Choice.Tool = "now"
				}
				s := &scene{template: familyTemplate(t, "hermes"), answer: test.answer}
				if !test.bytes {
					s.controls = markersOf(s.dialect(t))
				}
				h := request(t, s.play(t, gen, cuts["words"]), gen)
				if !slices.Equal(h.log, test.want) || h.done.Unsatisfied || h.done.Out > 200 {
					t.Errorf("%q, %+v, want %q", h.log, h.done, test.want)
				}
			}
		})
	}
}

// A stop of the request before a demanded call ends only the text: the call follows. If no call is demanded, the stop
// ends the answer.
func TestStopBeforeDemandedCall(t *testing.T) {
	const call = "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>"
	now := []infer.Tool{{Name: "now", Schema: []byte(`{"type":"object","additionalProperties":false}`)}}
	required, named := infer.ToolChoice{Mode: infer.ToolRequired}, infer.ToolChoice{Mode: infer.ToolNamed, Tool: "now"}
	for name, test := range map[string]struct {
		answer string
		choice infer.ToolChoice
		most   int
		want   []string
		reason infer.Reason
	}{
		"auto":                     {"I look it up, so.\n" + call, infer.ToolChoice{}, 0, []string{"text I look it "}, infer.StopSequence},
		"required":                 {"I look it up, so.\n" + call, required, 0, []string{"text I look it ", "call now {}"}, infer.CalledTool},
		"named":                    {"I look it up, so.\n" + call, named, 0, []string{"text I look it ", "call now {}"}, infer.CalledTool},
		"behind the call":          {"Well\n" + call + "\n" + call, required, 0, []string{"text Well", "call now {}", "call now {}"}, infer.CalledTool},
		"in a fence":               {"```\nup, so.\n```\n" + call, required, 0, []string{"text ```\n", "call now {}"}, infer.CalledTool},
		"no call":                  {"I look it up, so.", required, 0, []string{"text I look it ", "call now {}"}, infer.CalledTool},
		"as the tokens run out":    {"I look it up, so.", required, 66, []string{"text I look it ", "call now {}"}, infer.Length},
		"behind a beginning of it": {"I look it <tool_up", required, 0, []string{"text I look it <tool_", "call now {}"}, infer.CalledTool},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, tokens := range []bool{true, false} {
				if testing.Short() && !tokens {
					continue
				}
				for _, chunking := range chunkings() {
					gen := greedy(now)
					gen.Choice, gen.Stop = test.choice, []string{"up"}
					if test.most > 0 {
						gen.MaxTokens = test.most
					}
					s := &scene{template: familyTemplate(t, "hermes"), answer: test.answer}
					if tokens {
						s.controls = markersOf(s.dialect(t))
					}
					h := request(t, s.play(t, gen, cuts[chunking]), gen)
					reason := test.reason
					if test.most > 0 && h.done.Reason == infer.CalledTool {
						reason = infer.CalledTool // in long tokens, the whole call still fits behind the stop
					}
					if !slices.Equal(h.log, test.want) || h.done.Unsatisfied || h.done.Reason != reason {
						t.Errorf("%v, %s: %q, %+v, want %q", tokens, chunking, h.log, h.done, test.want)
					}
				}
			}
		})
	}
}
