package chat_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/chat"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialecttest"
	"github.com/inferd-go/inferd/internal/infer"
)

// familyTemplates are short templates in the notations of the families.
var familyTemplates = dialecttest.Templates()

// The dialect read from a template has the details that the template writes: white space and markers around texts,
// thoughts and values, escapes and quotation marks of strings, and the white space in place of missing arguments.
func TestReadings(t *testing.T) {
	const question = `{% for m in messages %}{% if m.role == 'user' %}U:{{ m.content }}<|e|>{% elif m.role == 'tool' %}T:{{ m.content }}<|e|>{% endif %}`
	t.Run("lead", func(t *testing.T) {
		d := compile(t, question+`{% if m.role == 'assistant' %}A: {{ m.content }}<|e|>{% endif %}{% endfor %}{% if add_generation_prompt %}A:{% endif %}`).Dialect()
		if d.Text.Lead != " " || d.Text.Begins != nil {
			t.Errorf("got %+v", d.Text)
		}
		if d := compile(t, "").Dialect(); d.Text.Lead != " " {
			t.Errorf("of a transcript: got %+v", d.Text)
		}
	})
	t.Run("messages", func(t *testing.T) {
		d := compile(t, question+`{% if m.role == 'assistant' %}{% if m.reasoning_content %}<|s|>A to=self<|m|>{{ m.reasoning_content }}<|n|>{% endif %}<|s|>A to=user<|m|>{{ m.content }}<|e|>{% endif %}{% endfor %}`+
			`{% if add_generation_prompt %}<|s|>A{% endif %}`).Dialect()
		if got, want := d.Thinking, (dialect.Thinking{Begin: " to=self<|m|>", End: "<|n|><|s|>A", Closed: " to=self<|m|><|n|><|s|>A"}); !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
		if !slices.Equal(d.Text.Begins, []string{" to=user<|m|>"}) {
			t.Errorf("got %+v", d.Text)
		}
	})
	t.Run("letters", func(t *testing.T) {
		if got := compile(t, strings.ReplaceAll(familyTemplates["hermes"], "arguments | tojson", "arguments | tojson(ensure_ascii=true)")).Dialect().Calls.Space; !got.ASCII || !got.JSON {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("around a text", func(t *testing.T) {
		d := compile(t, `{% if thinking %}Write between <think></think> and <response></response>.{% endif %}`+question+`{% if m.role == 'assistant' %}A:{{ m.content }}<|e|>{% endif %}{% endfor %}{% if add_generation_prompt %}A:{% endif %}`).Dialect()
		if want := (dialect.Text{Begins: []string{"<response>"}, End: "</response>"}); !reflect.DeepEqual(d.Text, want) || d.Thinking.End != "</think>" {
			t.Errorf("got %+v, %+v", d.Text, d.Thinking)
		}
	})
	t.Run("a closed pair", func(t *testing.T) {
		for closed, want := range map[string][2]string{
			`<think></think>`:            {"<think>", "</think>"},
			`<think>\n</think>`:          {"<think>\n", "</think>"},
			`<think>\n\n</think>\n`:      {"<think>\n", "\n</think>\n"},
			`<think>\n\n</think>\n\n`:    {"<think>\n", "\n</think>\n\n"},
			`<think>\nnothing\n</think>`: {"<think>", "</think>"},
		} {
			d := compile(t, question+`{% if m.role == 'assistant' %}A:{{ m.content }}<|e|>{% endif %}{% endfor %}{% if add_generation_prompt %}A:{% if enable_thinking is false %}{{ "`+closed+`" }}{% endif %}{% endif %}`).Dialect()
			if d.Thinking.Begin != want[0] || d.Thinking.End != want[1] {
				t.Errorf("%s: got %+v", closed, d.Thinking)
			}
		}
	})
	t.Run("markers around values", func(t *testing.T) {
		const value = `{{ v if v is string else v | tojson }}`
		const wrapped = `{% set s = v if v is string else v | tojson %}{% if COND %}<![CDATA[{{ s }}]]>{% else %}{{ s }}{% endif %}`
		for cond, want := range map[string]dialect.Wrap{
			`v is string and ('<' in s or '&' in s)`: {Open: "<![CDATA[", Close: "]]>", Of: "<&"},
			`'<' in s or '\n' in s`:                  {Open: "<![CDATA[", Close: "]]>", Of: "<\n", JSON: true},
			`v is string and 'q' in s`:               {},
		} {
			d := compile(t, strings.ReplaceAll(familyTemplates["seed-oss"], value, strings.ReplaceAll(wrapped, "COND", cond))).Dialect()
			if d.Shape != dialect.Params || d.Calls.Param.Wrap != want {
				t.Errorf("%s: got %+v", cond, d)
			}
		}
	})
	t.Run("raw strings of Python", func(t *testing.T) {
		for value, want := range map[string]bool{
			`{{ "'" + v + "'" if v is string else v | tojson if v is mapping else v }}`:                       true,
			`{{ "'" + v + "'" if v is string else v | tojson }}`:                                              false,
			`{{ "'" + v + "'" if v is string else v }}`:                                                       false,
			`{{ "'" + v | replace('"', '') + "'" if v is string else v | tojson if v is mapping else v }}`:    false,
			`{{ "'" + v | replace("'", "\\'") + "'" if v is string else v | tojson if v is mapping else v }}`: false,
			`{{ v | tojson }}`: false,
		} {
			source := strings.ReplaceAll(familyTemplates["lfm2"], "{{ v | tojson }}", value)
			tmpl := compile(t, source)
			d := tmpl.Dialect()
			if d.Shape != dialect.Python || d.Calls.Param.Raw != want {
				t.Errorf("%s: got %+v", value, d)
			}
			if r := rand.New(rand.NewPCG(5, 6)); want {
				for range 200 {
					c := dialect.Call{ID: "tc-1", Name: word(r), Arguments: arguments(r)}
					fragments, err := d.Write([]dialect.Call{c})
					if err != nil {
						t.Fatal(err)
					}
					var spelt strings.Builder
					for _, f := range fragments {
						spelt.WriteString(f.Text)
					}
					got, err := text(tmpl.Prompt(&chat.Conversation{Messages: append(talk("q"), calls(&infer.CallPart{ID: c.ID, Name: c.Name, Input: []byte(c.Arguments)}))}))
					if err != nil || !strings.Contains(got, spelt.String()) {
						t.Fatalf("%s is not in %s: %v", spelt.String(), got, err)
					}
				}
			}
		}
	})
	t.Run("no arguments", func(t *testing.T) {
		const call = `{% for c in m.tool_calls %}<tool_call><function={{ c.function.name }}>` + "\n" + `{% for k, v in c.function.arguments.items() %}<parameter={{ k }}>{{ v if v is string else v | tojson }}</parameter>` + "\n" +
			`{% endfor %}{% if not c.function.arguments %}NONE{% endif %}</function></tool_call>{% endfor %}`
		for none, want := range map[string]string{"": "", "{{ '\\n' }}": "\n", "nothing": ""} { // only white space counts
			d := compile(t, `{% for t in tools %}{{ t | tojson }}{% endfor %}`+question+`{% if m.role == 'assistant' %}A:{{ m.content }}`+strings.ReplaceAll(call, "NONE", none)+
				`<|e|>{% endif %}{% endfor %}{% if add_generation_prompt %}A:{% endif %}`).Dialect()
			if d.Shape != dialect.Params || d.Calls.Param.None != want {
				t.Errorf("%q: got %q of shape %q", none, d.Calls.Param.None, d.Shape)
			}
		}
	})
}

// Reading a template gives the dialect of its family, to the byte.
func TestFamilies(t *testing.T) {
	fixtures := dialecttest.Fixtures()
	for name, source := range familyTemplates {
		t.Run(name, func(t *testing.T) {
			got := compile(t, source).Dialect()
			want := *fixtures[name]
			if name == "lfm2" { // the template shows details that the fixture leaves out
				want.Calls.Param.Quote, want.Thinking.Closed = `"`, "<think></think>"
			}
			want.Calls.Space = &dialect.Space{JSON: true, Comma: " ", Colon: " "}
			switch name {
			case "gemma4", "functiongemma":
				want.Calls.Space = &dialect.Space{Sorted: true}
			case "lfm2", "llama4-pythonic": // they write JSON's true, false and null in calls of Python
				want.Calls.Space = new(dialect.Space)
			}
			want.Stop = stopsOf[name]
			if !reflect.DeepEqual(*got, want) {
				t.Errorf("got  %+v\nwant %+v", *got, want)
			}
		})
	}
}

// stopsOf are the markers behind an answer in the templates of the families.
var stopsOf = map[string]string{
	"hermes": "<|im_end|>", "qwen3-coder": "<|im_end|>", "lfm2": "<|im_end|>", "llama3-json": "<|eot_id|>", "gemma4": "<turn|>", "gpt-oss": "<|end|>",
	"deepseek-v3.1": "<｜end▁of▁sentence｜>", "mistral-nemo": "</s>", "mistral-small-3.2": "</s>",
	"deepseek-r1": "<｜end▁of▁sentence｜>", "deepseek-v3.2": "<｜end▁of▁sentence｜>", "kimi-k2": "<|im_end|>", "glm": "<|user|>", "seed-oss": "<seed:eos>", "devstral": "</s>",
	"granite-3.3": "<|end_of_text|>", "command-r7b": "<|END_RESPONSE|>", "nemotron-nano-v2": "<SPECIAL_12>", "apertus": "<|assistant_end|>", "apriel": "<|end|>",
	"functiongemma": "<end_of_turn>", "llama4-pythonic": "<|eot|>", "phi4-mini": "<|end|>",
}

// Whatever its arguments, a call is written in the same way by a template and by the dialect read from it. So a
// parser of the dialect can read the calls in the history.
func TestCallsInHistory(t *testing.T) {
	for name, source := range familyTemplates {
		t.Run(name, func(t *testing.T) {
			tmpl := compile(t, source)
			r := rand.New(rand.NewPCG(1, 2))
			times := 200
			if testing.Short() {
				times = 20
			}
			for range times {
				many := 1
				if tmpl.Dialect().Calls.Several {
					many += r.IntN(10)
				}
				var m infer.Message
				m.Role = infer.Assistant
				var calls []dialect.Call
				for i := range many {
					c := dialect.Call{ID: fmt.Sprintf("tc-%d", i+1), Name: word(r), Arguments: arguments(r)}
					m.Content = append(m.Content, &infer.CallPart{ID: c.ID, Name: c.Name, Input: []byte(c.Arguments)})
					c.ID = fmt.Sprintf("tc%07d", i+1)
					calls = append(calls, c)
				}
				d := *tmpl.Dialect()
				if name == "gpt-oss" { // the template writes a spelling of calls that is not the usual one of the model
					d.Calls.Call = d.Calls.Others[0]
				}
				all, err := d.Write(calls)
				if err != nil {
					t.Fatal(err)
				}
				var want strings.Builder
				for _, f := range all {
					want.WriteString(f.Text)
				}
				got, err := text(tmpl.Prompt(&chat.Conversation{Messages: append(talk("q"), m)}))
				if err != nil || !strings.Contains(got, want.String()) {
					t.Fatalf("%v\n%q\nhas no\n%q", err, got, want.String())
				}
			}
		})
	}
}

func word(r *rand.Rand) string {
	return []string{"get", "a-b", "x_1", "wetter_über", "z.z"}[r.IntN(5)]
}

// arguments returns a JSON object as templates write it: sorted names, a space behind commas and colons.
func arguments(r *rand.Rand) string {
	var all []string
	for i := range r.IntN(5) {
		all = append(all, fmt.Sprintf("\"k%d\": %s", i, value(r)))
	}
	return "{" + strings.Join(all, ", ") + "}"
}

func value(r *rand.Rand) string {
	switch r.IntN(6) {
	case 0:
		return fmt.Sprint(r.IntN(1000) - 500)
	case 1:
		return fmt.Sprintf("%d.5", r.IntN(100))
	case 2:
		return `{"n": {"m": "tiefü"}}`
	case 3:
		return `{}`
	default:
		text, _ := json.Marshal([]string{"", "plain", "two\nlines ", "ünï ✓ 漢字", `"quoted" \ {brace}`, "don't"}[r.IntN(6)])
		return string(text)
	}
}

// If a call in the history has no arguments, or has them as text in a JSON string, every template renders them as an
// object. Any other input is rendered, or refused as invalid.
func TestArgumentsInHistory(t *testing.T) {
	for family, source := range familyTemplates {
		t.Run("Qwen3#1894 Qwen3-Coder#444 GLM-5#158 "+family, func(t *testing.T) {
			tmpl := compile(t, source)
			prompt := func(input string) string {
				got, err := text(tmpl.Prompt(&chat.Conversation{Messages: append(talk("q"), calls(call("tc-1", input)), results(result("tc-1", "R")))}))
				if err != nil {
					t.Errorf("%q: %v", input, err)
				}
				return got
			}
			for input, want := range map[string]string{
				"": "{}", " ": "{}", "null": "{}", `""`: "{}", `"{}"`: "{}", `"{\"a\": \"b\"}"`: `{"a": "b"}`, `" {\"a\": \"b\"}\n"`: `{"a": "b"}`,
			} {
				if got, want := prompt(input), prompt(want); got != want {
					t.Errorf("of %q\n%s\nwant\n%s", input, got, want)
				}
			}
			for _, odd := range []string{`"{"`, `"text"`, `[1]`, `4`} { // rendered, or refused as invalid
				_, err := tmpl.Prompt(&chat.Conversation{Messages: append(talk("q"), calls(call("tc-1", odd)), results(result("tc-1", "R")))})
				if err != nil && infer.CodeOf(err) != infer.Invalid {
					t.Errorf("%s: %v", odd, err)
				}
			}
		})
	}
}
