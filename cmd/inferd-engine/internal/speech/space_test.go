package speech_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialecttest"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/speech"
)

// spaced returns a dialect with the template's white space.
func spaced(family string, s dialect.Space) *dialect.Dialect {
	d := dialecttest.Fixtures()[family]
	d.Calls.Space = &s
	return d
}

// The white space of calls is the template's behind a marker that is a token; behind a marker of bytes only that of the
// arguments is, so that no call is lost.
func TestSpace(t *testing.T) {
	d := spaced("hermes", dialect.Space{JSON: true, Comma: " ", Colon: " "})
	const exact = "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"x\", \"days\": 2}}\n</tool_call>"
	const loose = `<tool_call>{"name":"get_weather", "arguments":{"city": "x", "days": 2} }</tool_call>`
	const compact = `<tool_call>{"name":"get_weather", "arguments":{"city":"x"}}</tool_call>`
	for name, test := range map[string]struct {
		m          model
		text, rest string
	}{
		"tokens":            {controls(d), exact, ""},
		"tokens, loose":     {controls(d), loose, loose[len("<tool_call>"):]},
		"bytes":             {plain, exact, ""},
		"bytes, loose":      {plain, loose, ""},
		"bytes, compact":    {plain, compact, compact[len(`<tool_call>{"name":"get_weather", "arguments":{"city":`):]},
		"tokens, two calls": {controls(d), exact + "\n" + exact, ""},
		"no line between":   {controls(d), exact + exact, exact},
		"a line at the end": {controls(d), exact + "\n", ""},
		"two lines":         {controls(d), exact + "\n\n", "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			r := begin(t, test.m, speech.Options{Dialect: d, Tools: tools})
			if rest := r.feed(test.text, nil); rest != test.rest {
				t.Errorf("%q is left, want %q", rest, test.rest)
			}
		})
	}
}

// Members come in the order in which the template will write them.
func TestSortedMembers(t *testing.T) {
	d := spaced("gemma4", dialect.Space{Sorted: true})
	text := `<|tool_call>call:get{deep:{},list:[1],url:<|"|>a<|"|>}<tool_call|>`
	want := []string{`call get {"deep": {}, "list": [1], "url": "a"}`}
	if got := understand(t, controls(d), speech.Options{Dialect: d, Tools: tools}, text, true); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	r := begin(t, controls(d), speech.Options{Dialect: d, Tools: tools})
	if rest := r.feed(`<|tool_call>call:get{url:<|"|>a<|"|>,deep:{}`, nil); rest != `:{}` { // another name may begin with deep

		t.Errorf("%q is left", rest)
	}
}

// The numbers and ids of calls are those of the next prompt, whatever the model likes.
func TestNumbered(t *testing.T) {
	for name, test := range map[string]struct {
		d            *dialect.Dialect
		text         string // up to the number
		before, last int
		want         string // up to the symbol behind it
		first        int
		another      string
	}{
		"nine":     {dialecttest.Fixtures()["mistral-small-3.2"], "[TOOL_CALLS]now[CALL_ID]", 3, 7, "tc%07d[ARGS]", 8, "{}[TOOL_CALLS]now[CALL_ID]"},
		"an array": {dialecttest.Fixtures()["mistral-nemo"], `[TOOL_CALLS][{"name": "now", "arguments": {}, "id": "`, 0, 0, `tc%07d"`, 1, `}, {"name": "now", "arguments": {}, "id": "`},
		"counter":  {kimi(), "<|begin|>functions.now:", 3, 7, "%d<|args|>", 3, "{}<|end|><|begin|>functions.now:"},
	} {
		t.Run(name, func(t *testing.T) {
			m := model{markers: append([]string{"<|im_end|>", "<|begin|>", "<|args|>", "<|end|>"}, markersOf[test.d.Name]...)}
			r := begin(t, m, speech.Options{Dialect: test.d, Tools: tools})
			r.parser.CallsBefore, r.parser.LastID = test.before, test.last
			for i, text := range []string{test.text, test.another} {
				if rest := r.feed(text, nil); rest != "" {
					t.Fatalf("%q is left", rest)
				}
				var got strings.Builder
				for _, x := range r.parser.Numbered() {
					if x >= 512 {
						got.WriteString(m.markers[x-512])
					} else {
						got.WriteString(string(rune(x)))
					}
				}
				if want := fmt.Sprintf(test.want, test.first+i); got.String() != want {
					t.Errorf("call %d: got %q, want %q", i, got.String(), fmt.Sprintf(test.want, test.first+i))
				}
				if rest := r.feed(got.String(), nil); rest != "" {
					t.Fatalf("%q is left", rest)
				}
				if r.parser.Numbered() != nil {
					t.Error("the number comes twice")
				}
			}
		})
	}
}

// kimi is a dialect with calls that are counted over the conversation.
func kimi() *dialect.Dialect {
	return &dialect.Dialect{Name: "kimi", Shape: dialect.Named, Calls: dialect.Calls{Several: true, Call: []dialect.Piece{
		{Kind: dialect.Fixed, Text: "<|begin|>functions."},
		{Kind: dialect.Name},
		{Kind: dialect.Fixed, Text: ":"},
		{Kind: dialect.Counter},
		{Kind: dialect.Fixed, Text: "<|args|>"},
		{Kind: dialect.Arguments},
		{Kind: dialect.Fixed, Text: "<|end|>"},
	}}}
}

// Markers within thoughts are allowed and are no part of them.
func TestMarkersWithinThoughts(t *testing.T) {
	d := &dialect.Dialect{Thinking: dialect.Thinking{
		Begin: "<seed:think>", End: "</seed:think>", Within: []string{"<seed:cot_budget_reflect>", "</seed:cot_budget_reflect>"},
	}}
	m := model{markers: []string{"<|im_end|>", "<seed:think>", "</seed:think>", "<seed:cot_budget_reflect>", "</seed:cot_budget_reflect>"}}
	text := "<seed:think>Hm. <seed:cot_budget_reflect>Used 5.</seed:cot_budget_reflect> So.</seed:think>Yes."
	want := []string{"thought Hm. Used 5. So.", "text Yes."}
	if got := understand(t, m, speech.Options{Dialect: d}, text, true); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
