package speech_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/constraint"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialecttest"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/speech"
	"github.com/inferd-go/inferd/internal/infer"
)

// A compiled is a speech with its dialect and model, compiled once for all inputs of a fuzz target.
type compiled struct {
	model model
	k     *constraint.Constraint
	d     *dialect.Dialect
	tools bool // calls may come
}

// compileAll compiles the speeches of all families, with markers as control tokens and as bytes.
func compileAll(tb testing.TB) (all []compiled) {
	tb.Helper()
	fixtures := dialecttest.Fixtures()
	for _, name := range dialecttest.Names(testing.Short()) {
		d := fixtures[name]
		for _, m := range modelsOf(d) {
			m.pieces = bordering(d)
			for _, choice := range []infer.ToolMode{infer.ToolAuto, infer.ToolRequired, infer.ToolNone} {
				for _, position := range []dialect.Position{dialect.Before, dialect.Inside, dialect.Behind} {
					if position != dialect.Before && (!d.Thinking.Has() || d.Next != "") {
						continue
					}
					k, err := compile(tb, m, speech.Options{Dialect: d, Tools: tools, Choice: infer.ToolChoice{Mode: choice}, Position: position})
					if err != nil {
						tb.Fatal(err)
					}
					all = append(all, compiled{m, k, d, choice != infer.ToolNone})
				}
			}
		}
	}
	return all
}

// bordering returns pieces of two to five bytes of a dialect's spelling of an answer, as tokens. Some of them reach
// across the borders between the parts of the spelling.
func bordering(d *dialect.Dialect) (pieces []string) {
	var text strings.Builder
	text.WriteString("a" + d.Thinking.Begin + "b" + d.Thinking.End + "c" + d.Calls.Lead + d.Calls.Begin)
	for _, p := range d.Calls.Call {
		text.WriteString(p.Text)
		switch p.Kind {
		case dialect.Name:
			text.WriteString("now")
		case dialect.Arguments:
			text.WriteString("{}")
		default:
		}
	}
	text.WriteString(d.Calls.End + d.Calls.Separator + d.Next)
	whole := text.String()
	for n := 2; n < 6; n++ {
		for i := 0; i+n <= len(whole); i += 3 {
			pieces = append(pieces, whole[i:i+n])
		}
	}
	slices.Sort(pieces)
	return slices.Compact(pieces)
}

// seeds adds answers of the common families to the corpus.
func seeds(f *testing.F) {
	f.Helper()
	for _, text := range []string{
		"", "Hello *you*.\n", "```sh\nls\n```\n", "<think>\nhm\n</think>\n\nYes.", "hm</think>ok",
		"Ok.\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Köln\"}}\n</tool_call>\n<tool_call>{\"name\":\"now\",\"arguments\":{}}</tool_call>",
		`{"name": "get_weather", "parameters": {"city": "Rome", "days": 2}}`,
		`{"tool_calls": [{"name": "now", "arguments": {}}, {"name": "get", "arguments": {"list": [1, 2.5]}}]}`,
		`[TOOL_CALLS][{"name": "now", "arguments": {}, "id": "abcDEF123"}]`,
		`Ok.[TOOL_CALLS]now[CALL_ID]abc123DEF[ARGS]{}[TOOL_CALLS]get_weather[CALL_ID]abc123DEF[ARGS]{"city": "é"}`,
		"<tool_call>\n<function=run>\n<parameter=command>\nls -l\n\n</para\n</parameter>\n<parameter=force>\ntrue\n</parameter>\n</function>\n</tool_call>",
		`<|tool_call_start|>[get_weather(city="a, \"b\" None", days=3), now()]<|tool_call_end|>`,
		`<|tool_call>call:get_weather{city:<|"|>a "b", {c}<|"|>,days:3}<tool_call|>`, "<|channel>thought\nhm<channel|>Hi",
		`<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city":"x"}`,
		`<|channel|>commentary<|message|>I look.<|end|><|start|>assistant to=functions.now<|channel|>commentary json<|message|>{}`,
		`Ok<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>`,
	} {
		for of := range 24 {
			f.Add(uint8(of*5), uint64(of), text)
		}
	}
}

// FuzzChunks checks that the parts of an answer do not depend on its division into tokens: the beginning of a text that
// the mask takes byte by byte is also taken in other tokens, and gives the same parts.
func FuzzChunks(f *testing.F) {
	all := compileAll(f)
	seeds(f)
	f.Fuzz(func(t *testing.T, of uint8, seed uint64, text string) {
		s := all[int(of)%len(all)]
		first, err := open(t, s.model, s.k)
		if err != nil {
			t.Fatal(err)
		}
		rest := first.follow(s.model.chunks(text, cuts["bytes"]), first.drain)
		text = strings.TrimSuffix(text, rest)
		mayEnd := first.answer.Position().MayEnd
		cut := first.parser.End()
		first.drain()
		r := rand.New(rand.NewPCG(seed, 1))
		for _, often := range []bool{true, false} {
			second, err := open(t, s.model, s.k)
			if err != nil {
				t.Fatal(err)
			}
			each := func() {}
			if often {
				each = second.drain
			}
			if rest := second.follow(s.model.chunks(text, s.model.randomly(r)), each); rest != "" {
				t.Fatalf("%s: %q is refused in other tokens, before %q", s.d.Name, text, rest)
			}
			if second.answer.Position().MayEnd != mayEnd || second.parser.End() != cut {
				t.Fatalf("%s: %q ends otherwise in other tokens", s.d.Name, text)
			}
			second.drain()
			if !slices.Equal(first.log, second.log) {
				t.Fatalf("%s: %q is\n%q, in other tokens\n%q", s.d.Name, text, first.log, second.log)
			}
		}
	})
}

// randomly returns a function that cuts a text into random pieces of the model, and bytes.
func (m model) randomly(r *rand.Rand) func(string) []string {
	return func(text string) (all []string) {
		for text != "" {
			var fit []string
			for _, p := range m.pieces {
				if strings.HasPrefix(text, p) {
					fit = append(fit, p)
				}
			}
			n := 1
			if len(fit) > 0 && r.IntN(3) > 0 {
				n = len(fit[r.IntN(len(fit))])
			}
			all = append(all, text[:n])
			text = text[n:]
		}
		return all
	}
}

// FuzzText checks that text without control tokens, whatever it spells, stays text, or thoughts that the prompt has
// opened, where calls and thoughts begin with control tokens, and that nothing of it is lost but white space around it.
func FuzzText(f *testing.F) {
	all := slices.DeleteFunc(compileAll(f), func(s compiled) bool {
		return len(s.model.markers) < 2 || s.d.Calls.Alone || s.d.Next != "" || strings.HasPrefix(s.d.Name, "qwen3-coder")
	})
	seeds(f)
	f.Fuzz(func(t *testing.T, of uint8, _ uint64, text string) {
		s := all[int(of)%len(all)]
		r, err := open(t, s.model, s.k)
		if err != nil {
			t.Fatal(err)
		}
		thinking := r.parser.Thinking()
		var bytes []int32
		for i := range len(text) {
			bytes = append(bytes, int32(text[i]))
		}
		if rest := r.follow(bytes, nil); rest != "" {
			t.Fatalf("%s: refused before %q", s.d.Name, rest)
		}
		if r.parser.Thinking() != thinking || r.parser.Calls != 0 || r.parser.End() {
			t.Fatalf("%s: %q is no text", s.d.Name, text)
		}
		r.drain()
		kind := "text "
		if thinking {
			kind = "thought "
		}
		got := strings.TrimPrefix(strings.Join(r.log, ""), kind)
		if len(r.log) > 1 || strings.Trim(got, " \t\r\n") != strings.Trim(text, " \t\r\n") {
			t.Fatalf("%s: %q became %q", s.d.Name, text, r.log)
		}
	})
}
