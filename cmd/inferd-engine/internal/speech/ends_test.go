package speech_test

import (
	"encoding/json"
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialecttest"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/speech"
	"github.com/inferd-go/inferd/internal/infer"
)

// recite takes the tokens of script until one is refused, and then the first token of each mask until the answer ends.
// It returns the number of tokens taken.
func (r *run) recite(t *testing.T, script []int32) (tokens int) {
	t.Helper()
	for tokens < len(script) && r.answer.Try(script[tokens]) {
		tokens++
	}
	if tokens == len(script) {
		return tokens
	}
	for range 10_000 {
		mask, err := r.answer.Mask()
		if err != nil {
			t.Fatal(err)
		}
		for taken := false; !taken; {
			i := slices.IndexFunc(mask, func(w uint64) bool { return w != 0 })
			if i < 0 {
				t.Fatalf("no token fits behind %d tokens", tokens)
			}
			id := int32(i<<6 + bits.TrailingZeros64(mask[i]))
			if r.answer.Position().MayEnd { // end at the first opportunity
				return tokens
			}
			taken = r.answer.Take(id)
		}
		tokens++
	}
	t.Fatal("no end")
	return 0
}

const reciteCall = "<think>\nhm\n</think>\n\nI look.\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Köln\", \"days\": 3, \"x\": [1]}}\n</tool_call>"

// An answer ends within any limit on its tokens and satisfies the request, whether markers are control tokens or bytes.
// If the limit allows the model's whole answer, its parts are unchanged.
func TestAnswersEndInTime(t *testing.T) {
	wantCall := []string{"thought hm", "text I look.", `call get_weather {"city": "Köln", "days": 3, "x": [1]}`}
	for name, test := range map[string]struct {
		o    speech.Options
		text string
		want []string
	}{
		"auto":     {speech.Options{Tools: tools}, reciteCall, wantCall},
		"required": {speech.Options{Tools: tools, Choice: required}, reciteCall, wantCall},
		"an object behind thoughts": {
			speech.Options{Format: &infer.Format{JSONObject: true}},
			"<think>\nhm\n</think>\n\n{\"a\": {\"b\": \"c\"}, \"d\": [1, 2]}",
			[]string{"thought hm", `text {"a": {"b": "c"}, "d": [1, 2]}`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, m := range modelsOf(hermes()) {
				test.o.Dialect = hermes()
				k, err := compile(t, m, test.o)
				if err != nil {
					t.Fatal(err)
				}
				script := m.tokens(test.text)
				step := 1
				if testing.Short() {
					step = 7
				}
				for most := k.Least(); most <= k.Least()+400; most += step {
					r, err := openWithin(t, m, k, most)
					if err != nil {
						t.Fatal(err)
					}
					n := r.recite(t, script)
					cut := r.parser.End()
					r.drain()
					switch {
					case n > most || cut || !r.answer.Position().MayEnd:
						t.Errorf("%d tokens of %d, cut %v: %q", n, most, cut, r.log)
					case most >= len(script):
						if !slices.Equal(r.log, test.want) {
							t.Errorf("within %d tokens: %q", most, r.log)
						}
					case test.o.Format != nil:
						if text := strings.TrimPrefix(r.log[len(r.log)-1], "text "); !json.Valid([]byte(text)) {
							t.Errorf("within %d tokens: %q", most, r.log)
						}
					case test.o.Choice == required && r.parser.Calls != 1:
						t.Errorf("within %d tokens: %q", most, r.log)
					}
					r.answer.Close()
				}
			}
		})
	}
}

// Answers of every family with a call, behind thoughts if the family has them, also end within the limit on their
// tokens, and keep the whole call if the limit allows it.
func TestFamiliesEndInTime(t *testing.T) {
	const input = `{"text": "ünï \"x\"", "n": -1.5, "deep": {"a": {"b": "x"}}, "list": ["a"]}`
	for _, name := range dialecttest.Names(testing.Short()) {
		d := dialecttest.Fixtures()[name]
		all, err := d.Write([]dialect.Call{{ID: "tc0000001", Name: anything.Name, Arguments: input}})
		if err != nil {
			t.Fatal(err)
		}
		text := ""
		if d.Thinking.Has() {
			text = d.Thinking.Begin + "Hm, {}." + d.Thinking.End + d.Next
		}
		for _, f := range all {
			text += f.Text
		}
		for _, m := range modelsOf(d) {
			for _, choice := range []infer.ToolMode{infer.ToolAuto, infer.ToolRequired} {
				t.Run(fmt.Sprintf("%s, %d markers, %s", name, len(m.markers), choice), func(t *testing.T) {
					familyEnds(t, m, withoutEnd(m, text), input, speech.Options{Dialect: d, Tools: []infer.Tool{anything}, Choice: infer.ToolChoice{Mode: choice}})
				})
			}
		}
	}
}

// familyEnds checks the answers of a model that writes text, which has one call with the arguments input, under several
// limits on the tokens.
func familyEnds(t *testing.T, m model, text, input string, o speech.Options) {
	t.Helper()
	k, err := compile(t, m, o)
	if err != nil {
		t.Fatal(err)
	}
	script := m.tokens(text)
	for most := k.Least(); most < len(script)+20; most += 1 + max(0, len(script)-most)/8 {
		r, err := openWithin(t, m, k, most)
		if err != nil {
			t.Fatal(err)
		}
		n := r.recite(t, script)
		cut := r.parser.End()
		r.drain()
		if n > most || cut || !r.answer.Position().MayEnd || o.Choice.Mode == infer.ToolRequired && r.parser.Calls == 0 {
			t.Errorf("%d tokens of %d, cut %v: %q", n, most, cut, r.log)
		}
		if most >= len(script) {
			if last, ok := strings.CutPrefix(r.log[len(r.log)-1], "call any_thing "); !ok || r.parser.Calls != 1 || !equalJSON(last, input) {
				t.Errorf("within %d tokens of %d: %q", most, len(script), r.log)
			}
		}
		r.answer.Close()
	}
}

// A limit of exactly the tokens of a call with many required members suffices for it, although the schema allows
// further members.
func TestLongCallsEndInTime(t *testing.T) {
	for _, size := range []struct{ members, letters int }{{5, 20}, {12, 33}, {40, 60}} {
		properties, input := make(map[string]any), make([]string, 0, size.members)
		var names []string
		for i := range size.members {
			name := strings.Repeat("a_name", 10)[:size.letters-3] + fmt.Sprintf("_%02d", i)
			names = append(names, name)
			properties[name] = map[string]string{"type": "string"}
			input = append(input, fmt.Sprintf(`"%s": "v"`, name))
		}
		schema, err := json.Marshal(map[string]any{"type": "object", "properties": properties, "required": names})
		if err != nil {
			t.Fatal(err)
		}
		args := "{" + strings.Join(input, ", ") + "}"
		text := "Ok.\n<tool_call>\n{\"name\": \"edit\", \"arguments\": " + args + "}\n</tool_call>"
		for _, m := range modelsOf(hermes()) {
			k, err := compile(t, m, speech.Options{Dialect: hermes(), Tools: []infer.Tool{{Name: "edit", Schema: schema}}})
			if err != nil {
				t.Fatal(err)
			}
			script := m.tokens(text)
			r, err := openWithin(t, m, k, len(script))
			if err != nil {
				t.Fatal(err)
			}
			r.recite(t, script)
			r.parser.End()
			if r.drain(); !slices.Equal(r.log, []string{"text Ok.", "call edit " + args}) {
				t.Errorf("%d members, %d markers: %.200q", size.members, len(m.markers), r.log)
			}
		}
	}
}
