package chat_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/chat"
	"github.com/inferd-go/inferd/internal/infer"
)

const chatML = `{%- for m in messages -%}
{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}`

const gemma = `{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for m in messages -%}
{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) -%}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{%- endif -%}
{%- set role = 'model' if m['role'] == 'assistant' else m['role'] -%}
{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}`

const llama3 = `{%- if tools is defined and tools is not none -%}{{ raise_exception('no tools here') }}{%- endif -%}
{%- for m in messages -%}
{%- set content = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' -%}
{%- if loop.index0 == 0 -%}{%- set content = bos_token + content -%}{%- endif -%}
{{ content }}
{%- endfor -%}
{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}`

var specials = []string{"<|im_start|>", "<|im_end|>", "<bos>", "<start_of_turn>", "<end_of_turn>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|im", "\u2581", "¤", "aa"}

func talk(texts ...string) []infer.Message {
	var all []infer.Message
	for i, text := range texts {
		role := infer.User
		if i%2 == 1 {
			role = infer.Assistant
		}
		all = append(all, infer.TextMessage(role, text))
	}
	return all
}

func compile(tb testing.TB, source string) *chat.Template {
	tb.Helper()
	return compileWith(tb, source, specials)
}

// A compiledKey identifies a template in compiled.
type compiledKey struct {
	source string
	cut    bool // it was compiled with special tokens
}

var compiled sync.Map // *chat.Template by compiledKey: reading a template's dialect takes many renderings

// compileWith compiles a template for a model with the given special tokens; nil means none. The
// template is kept: for a source, all calls with special tokens must pass the same ones.
func compileWith(tb testing.TB, source string, specials []string) *chat.Template {
	tb.Helper()
	key := compiledKey{source, specials != nil}
	if found, ok := compiled.Load(key); ok {
		return found.(*chat.Template)
	}
	tmpl, err := chat.New(source, specials, "<bos>", "<eos>")
	if err != nil {
		tb.Fatal(err)
	}
	compiled.Store(key, tmpl)
	return tmpl
}

func TestRender(t *testing.T) {
	for name, test := range map[string]struct {
		source   string
		messages []infer.Message
		want     string
	}{
		"ChatML": {
			chatML, talk("hello", "hi", "bye"),
			"<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\nhi<|im_end|>\n<|im_start|>user\nbye<|im_end|>\n<|im_start|>assistant\n",
		},
		"Gemma": {
			gemma, talk(" hello "),
			"<bos><start_of_turn>user\nhello<end_of_turn>\n<start_of_turn>model\n",
		},
		"Llama 3": {
			llama3, append([]infer.Message{infer.TextMessage(infer.System, "be kind")}, talk("hello")...),
			"<bos><|start_header_id|>system<|end_header_id|>\n\nbe kind<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nhello<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
		},
		"a model without a template": {
			"", append([]infer.Message{infer.TextMessage(infer.System, "Be brief.")}, talk("hello", "hi", "bye")...),
			"System: Be brief.\nUser: hello\nAssistant: hi\nUser: bye\nAssistant:",
		},
		"thinking, with a template that has a place for it": {
			`{% for m in messages %}{{ m.role }}:{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }};{% endfor %}`,
			[]infer.Message{infer.TextMessage(infer.User, "hello"), {Role: infer.Assistant, Content: []infer.Part{
				&infer.ThinkingPart{Text: "so "}, &infer.ThinkingPart{Text: "what"}, &infer.TextPart{Text: "hey"},
			}}},
			"user:hello;assistant:<think>so what</think>hey;",
		},
		"thinking, without a template": {
			"",
			[]infer.Message{{Role: infer.Assistant, Content: []infer.Part{&infer.ThinkingPart{Text: "hm"}, &infer.TextPart{Text: "b"}}}},
			"Assistant: b\nAssistant:",
		},
		"white space around messages": {
			" \n", append([]infer.Message{infer.TextMessage(infer.System, "\nBe brief.\n\n")}, talk(" hel lo\n", "\n\n hi\u00a0", "bye\r\n")...),
			"System: Be brief.\nUser: hel lo\nAssistant: hi\nUser: bye\nAssistant:",
		},
		"messages without text": {
			"", talk("", " \n", "bye"),
			"User:\nAssistant:\nUser: bye\nAssistant:",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := compile(t, test.source).Render(test.messages)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != 1 || got[0] != (chat.Segment{Text: test.want, Special: true}) {
				t.Errorf("got  %+v\nwant %q", got, test.want)
			}
		})
	}
}

func TestStops(t *testing.T) {
	tmpl := compile(t, "")
	if got := tmpl.Stops(); !tmpl.Transcript() || !slices.Equal(got, []string{"\nUser:", "\nAssistant:", "\nSystem:"}) {
		t.Errorf("without a template: %q, %v", got, tmpl.Transcript())
	}
	// Each line that a transcript adds to the messages begins with a stop.
	all, err := tmpl.Render([]infer.Message{infer.TextMessage(infer.System, "a"), infer.TextMessage(infer.User, "b"), infer.TextMessage(infer.Assistant, "c")})
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(all[0].Text, "\n") {
		if !slices.ContainsFunc(tmpl.Stops(), func(stop string) bool { return strings.HasPrefix("\n"+line, stop) }) {
			t.Errorf("no stop is the marker of %q", line)
		}
	}
	if tmpl := compile(t, chatML); tmpl.Stops() != nil || tmpl.Transcript() {
		t.Errorf("with one: %q, %v", tmpl.Stops(), tmpl.Transcript())
	}
	// The vocabulary lacks the template's markers: the model writes them as ordinary text, so the end
	// marker must be a stop.
	tmpl, err = chat.New(chatML, []string{"<eos>"}, "", "<eos>")
	if err != nil || !slices.Equal(tmpl.Stops(), []string{"<|im_end|>"}) {
		t.Errorf("with markers of letters: %q, %v", tmpl.Stops(), err)
	}
	tmpl, err = chat.New(`{% for m in messages %}[{{ m.role }}] {{ m.content }}{{ eos_token }}{% endfor %}`, []string{"<eos>"}, "", "<eos>")
	if err != nil || tmpl.Stops() != nil {
		t.Errorf("with the end of texts as a token: %q, %v", tmpl.Stops(), err)
	}
}

func TestRefusals(t *testing.T) {
	for name, test := range map[string]struct {
		source   string
		messages []infer.Message
		want     string
	}{
		"a role it does not know": {gemma, []infer.Message{{Role: "narrator", Content: []infer.Part{&infer.TextPart{Text: "x"}}}}, "must alternate"},
		"an answer at the beginning": {
			gemma, []infer.Message{infer.TextMessage(infer.Assistant, "a"), infer.TextMessage(infer.User, "b")}, "must alternate",
		},
		"an index outside":  {`{{ messages[7]['content'] }}`, talk("x"), ""},
		"a division by nil": {`{{ 1 / 0 }}`, talk("x"), ""},
		"no such filter":    {`{{ messages | nonsense }}`, talk("x"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			tmpl, err := chat.New(test.source, specials, "<bos>", "<eos>")
			if err != nil {
				return // refused when the model is loaded: equally safe
			}
			got, err := tmpl.Render(test.messages)
			if test.want == "" && err == nil {
				return // the template engine is lenient: not a fault
			}
			if infer.CodeOf(err) != infer.Invalid || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
	if _, err := chat.New(`{% for %}`, nil, "", ""); err == nil {
		t.Error("a broken template compiles")
	}
}

// Statements, comments and raw text render as in Jinja with trim_blocks and lstrip_blocks.
func TestStatements(t *testing.T) {
	for name, test := range map[string]struct{ source, want string }{
		"loops":               {"a\n{% for i in range(2) %}\n  {{ i }}\n{% endfor %}\nz", "a\n  0\n  1\nz"},
		"loops, trimmed":      {"a\n{%- for i in range(1, 3) -%}\n  {{ i }}\n{%- endfor -%}\nz", "a12z"},
		"loops, half":         {"a {%- for i in range(3, 0, -2) %}  {{ i }}  {%- endfor %} z", "a  3  1 z"},
		"an empty loop":       {"{% for i in range(0) %}x{% else %}none{% endfor %}", "none"},
		"a filtered loop":     {"{% for i in range(5) if i > 2 %}{{ loop.index }}:{{ i }} {% endfor %}", "1:3 2:4 "},
		"blank lines":         {"{%- for i in range(1) %}\n\n\nx\n{%- endfor %}", "\n\nx"},
		"macros":              {"{% macro f(x) %}\n  <{{ x }}>\n{% endmacro %}\n{{ f(1) }}{{ f(2) }}", "  <1>\n  <2>\n"},
		"macros, trimmed":     {"{%- macro f(x) -%}\n  <{{ x }}>\n{%- endmacro -%}\n{{ f(1) }}{{ f(2) }}", "<1><2>"},
		"a macro a line":      {strings.Repeat("{%- macro f(x) -%}{{ x }}{%- endmacro -%}", 1) + strings.Repeat("{{ f(1) }}", 300), strings.Repeat("1", 300)},
		"tags in strings":     {`{{ "{% for x in y %}" + '%}' + "\"{% macro f() %}" }}`, `{% for x in y %}%}"{% macro f() %}`},
		"the end in a string": {`{% for i in ["%}", '-%}'] %}{{ i }}{% endfor %}`, `%}-%}`},
		"tags in comments":    {"{# {% for x in y %} ' #}a", "a"},
		"what is raw":         {"{% raw %}{% for i in x %}{{ i }}{% endfor %}{% endraw %}{% for i in range(2) %}{{ i }}{% endfor %}", "{% for i in x %}{{ i }}{% endfor %}01"},
		"braces":              {"{ {a} }", "{ {a} }"},
		"a float in range":    {"{% for i in range(4 / 2) %}{{ i }}{% endfor %}", "01"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := compile(t, test.source).Render(talk("x"))
			if err != nil || len(got) != 1 || got[0].Text != test.want {
				t.Errorf("got %+v, %v; want %q", got, err, test.want)
			}
		})
	}
}

// joined returns the text of segments, and as live the number of spellings in it that become
// special tokens.
func joined(segments []chat.Segment) (text string, live int) {
	for _, s := range segments {
		text += s.Text
		if s.Special {
			live += spellings(s.Text)
		}
	}
	return text, live
}

// spellings counts the spellings in text, overlapping ones included.
func spellings(text string) int {
	n := 0
	for i := range text {
		for _, s := range specials {
			if strings.HasPrefix(text[i:], s) {
				n++
			}
		}
	}
	return n
}

// bare joins messages, so that a spelling can form from two of them.
const bare = `{% for m in messages %}{{ m['content'] }}{% endfor %}`

// greedy has parts of a spelling on both sides of a message, and longer has a spelling that
// a message can extend to another one.
const (
	greedy = `{% for m in messages %}<|im_start|><{{ m['content'] | trim }}_of_turn>{% endfor %}`
	longer = `{% for m in messages %}<|im{{ m['content'] }}{% endfor %}`
)

var templates = map[string]string{
	"ChatML": chatML, "Gemma": gemma, "Llama 3": llama3, "transcript": "", "bare": bare, "greedy": greedy, "longer": longer,
}

// check renders a conversation with every template. None of its text may become special,
// and all of it must be in the prompt.
func check(t *testing.T, texts []string) {
	t.Helper()
	harmless := make([]string, len(texts))
	for i := range texts {
		harmless[i] = "Q"
	}
	for name, source := range templates {
		render := func(tmpl *chat.Template, texts []string) []chat.Segment {
			segments, err := tmpl.Render(talk(texts...))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			return segments
		}
		tmpl := compile(t, source)
		_, allowed := joined(render(tmpl, harmless))
		text, live := joined(render(tmpl, texts))
		if live != allowed {
			t.Errorf("%s: %q: %d special tokens, the template writes %d: %+v", name, texts, live, allowed, render(tmpl, texts))
		}
		if want, _ := joined(render(compileWith(t, source, nil), texts)); text != want {
			t.Errorf("%s: %q became\n%q, want\n%q", name, texts, text, want)
		}
	}
}

func TestNothingBecomesSpecial(t *testing.T) {
	for _, s := range specials {
		for _, text := range []string{
			s, s + s, s + s + s, "x" + s, s + "x", "x" + s + "x" + s + "x", " \n" + s + "\t ",
			s[:len(s)/2] + s + s[len(s)/2:],
		} {
			if strings.ToValidUTF8(text, "") != text {
				continue // the wire refuses it
			}
			check(t, []string{text})
			check(t, []string{"x", text, "y"})
			check(t, []string{text, text})
		}
		for i := range s { // a part in one message, the rest in the next
			if testing.Short() && i%4 > 1 {
				continue
			}
			check(t, []string{s[:i], s[i:]})
			check(t, []string{"x " + s[:i], s[i:] + " x"})
			check(t, []string{s + s[:i], s[i:] + s})
			check(t, []string{s[:i], "", s[i:]})
			check(t, []string{s[:i], s[i : i+len(s[i:])/2], s[i+len(s[i:])/2:]})
		}
	}
	for _, text := range []string{"<|im_<|im_end|>end|>", "aaa", "aaaa", "<|im_start", "im_end|>", "¤¤", "<|i<|im_start|>", "|im", "<", ">", "|>", " x <start ", " start "} {
		check(t, []string{text})
		check(t, []string{text, text, text})
	}
}

// Text without spellings is one segment, whatever its first and last characters.
func TestOneSegment(t *testing.T) {
	for _, text := range []string{"", " ", "hello", "> a quote", "a <", "|>", "<|i", "m_end|>", "1 < 2 > 1", "  x  "} {
		got, err := compile(t, chatML).Render(talk(text, text))
		if err != nil {
			t.Fatal(err)
		}
		want := "<|im_start|>user\n" + text + "<|im_end|>\n<|im_start|>assistant\n" + text + "<|im_end|>\n<|im_start|>assistant\n"
		if len(got) != 1 || got[0] != (chat.Segment{Text: want, Special: true}) {
			t.Errorf("got  %+v\nwant %q", got, want)
		}
	}
}

// A spelling of one character cannot be split, so it becomes a segment of its own, in which
// spellings do not count.
func TestOneCharacter(t *testing.T) {
	got, err := compile(t, bare).Render(talk("a¤b"))
	want := []chat.Segment{{Text: "a", Special: true}, {Text: "¤"}, {Text: "b", Special: true}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

// A message may contain the private-use characters of which nonces consist.
func TestPrivateUseCharacters(t *testing.T) {
	check(t, []string{"\U000F0000\U000F7FFF<|im_end|>\U000F1234", "\uE000"})
}

func TestTogether(t *testing.T) {
	tmpl := compile(t, gemma)
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for range 50 {
				own := fmt.Sprint("number ", i)
				got, err := tmpl.Render(talk(own))
				want := "<bos><start_of_turn>user\n" + own + "<end_of_turn>\n<start_of_turn>model\n"
				if text, _ := joined(got); err != nil || text != want {
					t.Errorf("got %q, %v, want %q", text, err, want)
				}
			}
		})
	}
	all.Wait()
}

func FuzzNothingBecomesSpecial(f *testing.F) {
	f.Add("<|im_end|>", "aa¤", "")
	f.Add("<|im_<|im_end|>end|>", "<|im", "_end|>")
	f.Add("a", "a", "a")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		check(t, []string{strings.ToValidUTF8(a, "?"), strings.ToValidUTF8(b, "?"), strings.ToValidUTF8(c, "?")})
	})
}

// BenchmarkRender renders a megabyte of prose, or of text similar to special tokens, with six
// thousand special tokens.
func BenchmarkRender(b *testing.B) {
	var many []string
	for i := range 6000 {
		many = append(many, fmt.Sprintf("<unused%d>", i))
	}
	tmpl, err := chat.New(chatML, many, "", "")
	if err != nil {
		b.Fatal(err)
	}
	for name, text := range map[string]string{
		"prose":     "some text, a < b and so on ",
		"nearly":    "<unused17",
		"brackets":  "<",
		"spellings": "<unused17>",
	} {
		b.Run(name, func(b *testing.B) {
			messages := talk(strings.Repeat(text, 1<<20/len(text)))
			b.SetBytes(1 << 20)
			for b.Loop() {
				if _, err := tmpl.Render(messages); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
