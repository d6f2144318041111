package chat_test

import (
	"strings"
	"testing"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/chat"
	"github.com/inferd-go/inferd/internal/infer"
)

// strict takes neither a system message nor two messages of one role in a row.
const strict = `{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}` +
	`[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}`

// leading takes one system message, at the beginning, and drops later ones.
const leading = `{% for m in messages %}{% if m.role != 'system' or loop.first %}[{{ m.role }}]{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}`

func message(role infer.Role, text string) infer.Message { return infer.TextMessage(role, text) }

func calls(parts ...infer.Part) infer.Message {
	return infer.Message{Role: infer.Assistant, Content: parts}
}

func call(id, input string) *infer.CallPart {
	return &infer.CallPart{ID: id, Name: "f" + id, Input: []byte(input)}
}

func result(id, text string) *infer.ResultPart {
	return &infer.ResultPart{ID: id, Content: []infer.Part{&infer.TextPart{Text: text}}}
}

func results(parts ...infer.Part) infer.Message {
	return infer.Message{Role: infer.User, Content: parts}
}

// Messages that the template refuses or drops are folded into messages that it accepts; all others stay as they are.
func TestFolds(t *testing.T) {
	for name, test := range map[string]struct {
		source   string
		messages []infer.Message
		want     string
	}{
		"a system message without a place": {strict, []infer.Message{message("system", "S"), message("user", "U")}, "[user]S\n\nU[assistant]"},
		"two users in a row":               {strict, []infer.Message{message("user", "U"), message("user", "V")}, "[user]U\n\nV[assistant]"},
		"two answers in a row":             {strict, []infer.Message{message("user", "U"), message("assistant", "A"), message("assistant", "B"), message("user", "V")}, "[user]U[assistant]A\n\nB[user]V[assistant]"},
		"a late system message":            {leading, []infer.Message{message("user", "U"), message("assistant", "A"), message("system", "S"), message("user", "V")}, "[user]U[assistant]A[user]S\n\nV[assistant]"},
		"a last system message":            {leading, []infer.Message{message("user", "U"), message("assistant", "A"), message("system", "S")}, "[user]U[assistant]A[user]S[assistant]"},
		"a last one, strict":               {strict, []infer.Message{message("user", "U"), message("system", "S")}, "[user]U\n\nS[assistant]"},
		"two system messages":              {leading, []infer.Message{message("system", "S"), message("system", "T"), message("user", "U")}, "[system]S\n\nT[user]U[assistant]"},
		"what it takes":                    {leading, []infer.Message{message("system", "S"), message("user", "U"), message("user", "V")}, "[system]S[user]U[user]V[assistant]"},
		"a call without a place": {
			strict,
			[]infer.Message{message("user", "U"), calls(&infer.TextPart{Text: "T"}, call("1", `{"a": 1}`)), results(result("1", "R"))},
			"[user]U[assistant]T\n\n{\"tool_calls\": [{\"name\": \"f1\", \"arguments\": {\"a\": 1}}]}[user]Result of the tool f1:\nR[assistant]",
		},
		"a result and a text": {
			strict,
			[]infer.Message{message("user", "U"), calls(call("1", `{}`)), results(&infer.TextPart{Text: "V"}, result("1", "R"))},
			"[user]U[assistant]{\"tool_calls\": [{\"name\": \"f1\", \"arguments\": {}}]}[user]Result of the tool f1:\nR\n\nV[assistant]",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := text(compile(t, test.source).Prompt(&chat.Conversation{Messages: test.messages}))
			if err != nil || got != test.want {
				t.Errorf("got  %q, %v\nwant %q", got, err, test.want)
			}
		})
	}
}

// Every result is rendered: failed, nested and empty ones, and those of calls in a message of their own or with a
// repeated id. The input of a call is rendered as an object, with its members in order.
func TestResults(t *testing.T) {
	failed := result("1", "no file")
	failed.Failed = true
	said1 := result("1", "error: no file")
	said1.Failed = true
	nested := &infer.ResultPart{ID: "1", Content: []infer.Part{&infer.TextPart{Text: "a"}, call("y", "{}"), result("y", "b"), result("1", "c")}}
	for name, test := range map[string]struct {
		messages []infer.Message
		want     string // a part of the prompt
	}{
		"a failure":              {[]infer.Message{calls(call("1", "{}")), results(failed)}, "<tool_response>\nError: no file\n</tool_response>"},
		"a failure that says so": {[]infer.Message{calls(call("1", "{}")), results(said1)}, "<tool_response>\nerror: no file\n</tool_response>"},
		"several parts":          {[]infer.Message{calls(call("1", "{}")), results(nested)}, "<tool_response>\na\nfy {}\nb\nc\n</tool_response>"},
		"nothing":                {[]infer.Message{calls(call("1", "{}")), results(&infer.ResultPart{ID: "1"})}, "<tool_response>\n\n</tool_response>"},
		"an answer in two messages": {
			[]infer.Message{message("assistant", "T"), calls(call("1", "{}")), results(result("1", "R"))},
			"T\n<tool_call>\n{\"name\": \"f1\", \"arguments\": {}}\n</tool_call><|im_end|>",
		},
		"an id that comes again": {
			[]infer.Message{calls(call("1", "{}")), results(result("1", "R")), calls(call("1", "{}")), results(result("1", "S"))},
			"<tool_response>\nS\n</tool_response>",
		},
		"members in their order": {[]infer.Message{calls(call("1", `{"z":1,"a":{"y":"<&é>","b":2.50}}`))}, `"arguments": {"z": 1, "a": {"y": "<&é>", "b": 2.5}}`},
		"no input":               {[]infer.Message{calls(call("1", ""))}, `"arguments": {}`},
	} {
		t.Run(name, func(t *testing.T) {
			tmpl := compile(t, familyTemplates["hermes"])
			got, err := text(tmpl.Prompt(&chat.Conversation{Messages: append(talk("q"), test.messages...)}))
			if err != nil || !strings.Contains(got, test.want) {
				t.Errorf("got  %q, %v\nwant %q", got, err, test.want)
			}
		})
	}
}

func TestUnpaired(t *testing.T) {
	inner := &infer.ResultPart{ID: "1", Content: []infer.Part{result("x", "b")}}
	outer := &infer.ResultPart{ID: "1", Content: []infer.Part{&infer.TextPart{Text: "a"}, inner}}
	for name, test := range map[string]struct {
		messages []infer.Message
		want     string
	}{
		"no call":           {[]infer.Message{results(result("call-9", "R"))}, `render: messages[0].content[0]: tool_result references tool_call_id "call-9", which matches no tool_use in this request`},
		"a call behind it":  {[]infer.Message{message("user", "U"), results(&infer.TextPart{Text: "x"}, result("1", "R")), calls(call("1", "{}"))}, `messages[1].content[1]: tool_result references tool_call_id "1"`},
		"a call in a text":  {[]infer.Message{message("assistant", `<tool_call>{"name": "f", "id": "1"}</tool_call>`), results(result("1", "R"))}, "matches no tool_use"},
		"within a result":   {[]infer.Message{calls(call("1", "{}")), results(outer)}, `messages[1].content[0].content[1].content[0]: tool_result references tool_call_id "x"`},
		"input of no JSON":  {[]infer.Message{calls(call("1", "{"))}, `messages[0].content[0]: the input of tool_use "1" is not JSON`},
		"a schema as a key": {nil, `"f": input_schema: it is not JSON`},
	} {
		t.Run(name, func(t *testing.T) {
			c := &chat.Conversation{Messages: test.messages}
			if test.messages == nil {
				c = &chat.Conversation{Messages: talk("q"), Tools: []infer.Tool{{Name: "f", Schema: []byte(`{"type": `)}}}
			}
			_, err := compile(t, familyTemplates["hermes"]).Prompt(c)
			if infer.CodeOf(err) != infer.Invalid || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// Thinking is switched by the variable of the template, by a word in a system message, or by a closed pair behind the
// prompt.
func TestThink(t *testing.T) {
	yes, no := true, false
	const always = `{% for m in messages %}{{ m.role }}:{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }};{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}`
	const byWord = `{% set ns = namespace(on=true) %}{% for m in messages %}{% if '/no_think' in m.content %}{% set ns.on = false %}{% endif %}{% endfor %}` +
		`{% for m in messages %}{% if m.content != '/no_think' %}{{ m.role }}:{{ m.content }};{% endif %}{% endfor %}` +
		`{% if add_generation_prompt %}assistant:{% if ns.on %}<think>
{% else %}<think></think>{% endif %}{% endif %}`
	for name, test := range map[string]struct {
		source string
		think  *bool
		want   string // the end
	}{
		"its own way":   {familyTemplates["hermes"], nil, "assistant\n"},
		"on":            {familyTemplates["hermes"], &yes, "assistant\n"},
		"off":           {familyTemplates["hermes"], &no, "assistant\n<think>\n\n</think>\n\n"},
		"no variable":   {always, &no, "assistant:<think></think>"},
		"none to close": {familyTemplates["generic"], &no, "user: q\n"},
		"by a word":     {byWord, &no, "user:q;assistant:<think></think>"},
		"without it":    {byWord, &yes, "user:q;assistant:<think>\n"},
		"the lowest":    {familyTemplates["gpt-oss"], &no, "<|start|>user<|message|>q<|end|><|start|>assistant"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := text(compile(t, test.source).Prompt(&chat.Conversation{Messages: talk("q"), Think: test.think}))
			if err != nil || !strings.HasSuffix(got, test.want) {
				t.Errorf("got %q, %v", got, err)
			}
			if name == "the lowest" && !strings.Contains(got, "Reasoning: low") {
				t.Errorf("got %q", got)
			}
		})
	}
}

// If a template writes the content of messages unchanged, the content has the thoughts of answers behind the last user
// message, but no earlier ones, and none if a variable switches thinking off.
func TestThoughtsInContent(t *testing.T) {
	off := false
	plain := calls(&infer.ThinkingPart{Text: "T</think>"}, &infer.TextPart{Text: "<think>no thought</think>"}, call("1", "{}"))
	conversation := append(talk("q"), plain, results(result("1", "R")))
	const bare = `{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}`
	const switched = `{% if enable_thinking %}<think>{% endif %}{% if enable_thinking is defined %}{{ enable_thinking }}{% endif %}` + bare
	for name, test := range map[string]struct {
		source string
		c      chat.Conversation
		want   string // of the thoughts and the text
	}{
		"current":     {"{# </think> #}{{ '</think>'[:0] }}" + bare, chat.Conversation{Messages: conversation}, "[assistant]<think>T</think></think><think>no"},
		"old":         {"{{ '</think>'[:0] }}" + bare, chat.Conversation{Messages: append(conversation[:3:3], talk("n")...)}, "[assistant]<think>no"},
		"off":         {switched + "{{ '</think>'[:0] }}", chat.Conversation{Messages: conversation, Think: &off}, "[assistant]<think>no"},
		"no thoughts": {bare, chat.Conversation{Messages: conversation}, "[assistant]<think>no"},
		"around a text": {
			"{{ '<think></think><response></response>'[:0] }}" + bare,
			chat.Conversation{Messages: conversation},
			"[assistant]<think>T</think></think><response><think>no thought</think></response>",
		},
	} {
		segments, err := compileWith(t, test.source, []string{"<think>", "</think>", "<response>", "</response>"}).Prompt(&test.c)
		got, err := text(segments, err)
		if err != nil || !strings.Contains(got, test.want) {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
		for _, s := range segments { // markers of the client are text
			if s.Special && (strings.Contains(s.Text, "<think>no") || strings.Count(s.Text, "</think>") > 1) {
				t.Errorf("%s: %q is special", name, s.Text)
			}
		}
	}
}

// Thoughts of earlier answers are rendered where the template has a place for them.
func TestThoughtsInHistory(t *testing.T) {
	m := calls(&infer.ThinkingPart{Text: "THOUGHT"}, call("1", "{}"))
	for name, want := range map[string]string{
		"hermes": "", "gemma4": "<|channel>thought\nTHOUGHT<channel|>", "gpt-oss": "<|channel|>analysis<|message|>THOUGHT<|end|>", "lfm2": "<think>THOUGHT</think>",
	} {
		got, err := text(compile(t, familyTemplates[name]).Prompt(&chat.Conversation{Messages: append(talk("q"), m, results(result("1", "R")))}))
		if err != nil || !strings.Contains(got, want) || want == "" && strings.Contains(got, "THOUGHT") {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
	// They are rendered in the content, if the template has markers of thoughts but no other place for them.
	const within = `{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'assistant' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}` +
		`{% for m in messages %}[{{ m.role }}]{{ m.content if loop.index0 == ns.last or KEEP else m.content.split('</think>')[-1] }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}`
	for keep, want := range map[string]string{"false": "[assistant]<think>THOUGHT</think>", "true": "[assistant]<think>THOUGHT</think>"} {
		got, err := text(compile(t, strings.Replace(within, "KEEP", keep, 1)).Prompt(&chat.Conversation{Messages: append(talk("q"), m, results(result("1", "R")))}))
		if err != nil || !strings.Contains(got, want) {
			t.Errorf("%s: got %q, %v", keep, got, err)
		}
	}
	// Beside both a text and calls, they are rendered only if the template takes the three together.
	m.Content = append([]infer.Part{m.Content[0], &infer.TextPart{Text: "TEXT"}}, m.Content[1:]...)
	const refusing = `{% for m in messages %}{% if m.thinking and m.content and m.tool_calls %}{{ raise_exception('both') }}{% endif %}{% endfor %}`
	for source, want := range map[string][2]bool{
		familyTemplates["lfm2"]:               {true, true},
		refusing + familyTemplates["lfm2"]:    {true, false},
		familyTemplates["gpt-oss"]:            {false, true}, // it leaves out a text beside calls
		refusing + familyTemplates["gpt-oss"]: {false, false},
	} {
		got, err := text(compile(t, source).Prompt(&chat.Conversation{Messages: append(talk("q"), m, results(result("1", "R")))}))
		if err != nil || strings.Contains(got, "TEXT") != want[0] || strings.Contains(got, "THOUGHT") != want[1] {
			t.Errorf("got %q, %v", got, err)
		}
	}
}

// Tools are declared by the template, or described in a system message where it ignores or refuses them.
func TestDeclarations(t *testing.T) {
	tool := infer.Tool{Name: "look", Description: `Looks "up" & <down>`, Schema: []byte(`{"type":"object","properties":{"b":{"type":"string"},"a":{}}}`)}
	refusing := `{% if tools %}{% for t in tools %}{% if t.function.name == 'look' %}{{ raise_exception('no looking') }}{% endif %}{% endfor %}{% endif %}` + familyTemplates["hermes"]
	for name, test := range map[string]struct{ source, want string }{
		"the template's": {familyTemplates["hermes"], `{"type": "function", "function": {"name": "look", "description": "Looks \"up\" & <down>", "parameters": {"type": "object", "properties": {"b": {"type": "string"}, "a": {}}}}}`},
		"described":      {familyTemplates["generic"], "\n" + `{"name": "look", "description": "Looks \"up\" & <down>", "parameters": {"type":"object","properties":{"b":{"type":"string"},"a":{}}}}` + "\n"},
		"the example":    {familyTemplates["generic"], `{"tool_calls": [{"name": "NAME", "arguments": {"ARGUMENT": "VALUE"}}]}`},
		"refused":        {refusing, "<tool_call>\n{\"name\": \"NAME\", \"arguments\": {\"ARGUMENT\": \"VALUE\"}}\n</tool_call>"},
		"a transcript":   {"", "System: # Tools\n\nYou may call these tools."},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := text(compile(t, test.source).Prompt(&chat.Conversation{Messages: talk("q"), Tools: []infer.Tool{tool}}))
			if err != nil || !strings.Contains(got, test.want) {
				t.Errorf("got  %q, %v\nwant %q", got, err, test.want)
			}
		})
	}
}

// An id of the engine has the same spelling in every conversation, in the notation that the template accepts. An id of
// a client is kept if it has that notation, or else replaced.
func TestIDs(t *testing.T) {
	tmpl := compile(t, familyTemplates["mistral-nemo"])
	for id, want := range map[string]string{"tc-1": "tc0000001", "tc-123": "tc0000123", "xbcDEF12x": "xbcDEF12x"} {
		got, err := text(tmpl.Prompt(&chat.Conversation{Messages: append(talk("q"), calls(call(id, "{}")))}))
		if err != nil || !strings.Contains(got, `"id": "`+want+`"`) {
			t.Errorf("%s: got %q, %v", id, got, err)
		}
	}
	got, err := text(tmpl.Prompt(&chat.Conversation{Messages: append(talk("q"), calls(call("toolu_01ABCDEFGHIJ", "{}")))}))
	if err != nil || strings.Contains(got, `"id": "toolu`) {
		t.Errorf("got %q, %v", got, err)
	}
}
