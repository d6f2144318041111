package speech_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialecttest"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/speech"
	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/infer"
)

// opened are texts that end within a fenced block, by the place in the block.
var opened = map[string]string{
	"its first line": "So:\n```py", "a line": "```py\nx = 1", "a new line": "```py\nx = 1\n", "a tick": "```\n`", "two ticks": "```\n``",
	"a space": "```\n ", "a second block": "```\na\n```\n```\nb",
}

// A marker that is a token begins a call, or ends a text, in a fenced block, too, and is refused there if no
// call may come; a marker of bytes is text there.
func TestCallsInFences(t *testing.T) {
	const call = "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>"
	const function = "<function=now>\n</function>"
	enclosed := dialecttest.Fixtures()["granite-3.3"]
	coder := dialecttest.Fixtures()["qwen3-coder"]
	response := model{markers: []string{"<|im_end|>", "<response>", "</response>"}}
	for place, text := range opened {
		for name, test := range map[string]struct {
			m    model
			d    *dialect.Dialect
			text string
			want []string
		}{
			"a token":           {controls(hermes()), hermes(), text + call, []string{"text " + strings.TrimSpace(text), "call now {}"}},
			"bytes":             {plain, hermes(), text + call, []string{"text " + text + call}},
			"of two, the token": {controls(coder), coder, text + "<tool_call>\n" + function + "\n</tool_call>", []string{"text " + strings.TrimSpace(text), "call now {}"}},
			"of two, the bytes": {controls(coder), coder, text + function, []string{"text " + text + function}},
			"the end of a text": {response, enclosed, "<response>" + text + "</response>", []string{"text " + strings.TrimSpace(text)}},
		} {
			t.Run(place+", "+name, func(t *testing.T) {
				for _, often := range []bool{true, false} {
					if got := parseAnswer(t, test.m, speech.Options{Dialect: test.d, Tools: tools}, test.text, often); !slices.Equal(got, test.want) {
						t.Errorf("often %v: %q, want %q", often, got, test.want)
					}
				}
			})
		}
		none := infer.ToolChoice{Mode: infer.ToolNone}
		if rest := begin(t, controls(hermes()), speech.Options{Dialect: hermes(), Tools: tools, Choice: none}).feed(text+call, nil); rest != call {
			t.Errorf("%s: %q is left although no call may come", place, rest)
		}
	}
}

// A demanded call can be forced at every place of a text. If the text is in a fenced block or in a message, the forced
// text ends that first, so that the call is not quoted.
func TestForcedCalls(t *testing.T) {
	now := []infer.Tool{{Name: "now", Schema: []byte(`{"type":"object","additionalProperties":false}`)}}
	texts := map[string]string{"text": "Hi", "a beginning": "Hi <", "more of one": "Hi <tool_", "a bracket": "Hi ["}
	maps.Copy(texts, opened)
	for _, family := range dialecttest.Names(false) {
		d := spaced(family, dialect.Space{JSON: true, Comma: " ", Colon: " "})
		if d.Calls.Alone {
			continue // the answer is the call
		}
		for _, m := range modelsOf(d) {
			if len(m.markers) == 1 && family == "command-r7b" {
				continue // an id stands between its marker, which is bytes, and the name; text may go on there
			}
			k, err := compile(t, m, speech.Options{Dialect: d, Tools: now, Choice: required, OneCall: true, Position: dialect.Behind})
			if err != nil {
				t.Fatal(err)
			}
			for place, text := range texts {
				r, err := open(t, m, k)
				if err != nil {
					t.Fatal(err)
				}
				if n := len(d.Text.Begins); n > 0 {
					text = d.Text.Begins[0] + text
				}
				if rest := r.feed(text, nil); rest != "" {
					t.Fatalf("%s, %s: %q is left", family, place, rest)
				}
				r.force(t)
				for range 200 { // the rest, of the first token of each mask
					if !r.answer.Position().MayEnd {
						r.step(t)
					}
				}
				r.parser.End()
				r.drain()
				if n := len(r.log); n == 0 || r.log[n-1] != "call now {}" {
					t.Errorf("%s, %d markers, %s: %q", family, len(m.markers), place, r.log)
				}
			}
		}
	}
}

// force forces the beginning of a call, and follows its tokens. Meanwhile no other text can be forced.
func (r *run) force(t *testing.T) {
	t.Helper()
	text := r.parser.CallStart()
	if !r.answer.Force(text, nil) {
		t.Fatalf("%q cannot be forced", r.spelling(text))
	}
	for range len(text) - 1 {
		r.step(t)
		if r.answer.Force(text, nil) {
			t.Fatalf("%q begins again", r.spelling(text))
		}
	}
	r.step(t)
}

// step follows the first token of the mask.
func (r *run) step(t *testing.T) {
	t.Helper()
	mask, err := r.answer.Mask()
	if err != nil {
		t.Fatal(err)
	}
	for id := range int32(len(mask) * 64) {
		if mask[id>>6]>>(id&63)&1 != 0 && r.answer.Take(id) {
			return
		}
	}
	t.Fatalf("no token fits; so far %q", r.log)
}

// spelling returns symbols as text.
func (r *run) spelling(list []automaton.Symbol) (text string) {
	for _, x := range list {
		if x < 256 {
			text += string([]byte{byte(x)})
		} else {
			text += r.model.markers[x-512]
		}
	}
	return text
}
