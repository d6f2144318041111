package chat

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/jinja"
)

// callsAsText turns calls into text, in the dialect's spelling, for templates without calls. If the template does not
// accept answers of tools either, they become user messages.
func (t *Template) callsAsText(turns []turn) (out []turn) {
	for _, next := range turns {
		if len(next.calls) > 0 {
			next.text = next.text.joined(spell(t.dialect, next.calls))
			next.calls = nil
		}
		if next.call != nil && !t.traits.Results {
			next.role = "user"
			next.text = slices.Concat(mixed{{"Result of the tool ", true}, {text: next.call.name}, {":\n", true}}, next.text)
			next.call = nil
		}
		out = append(out, next)
	}
	return out
}

// spell writes calls in a dialect, or in the generic dialect if one of the inputs cannot be written in d, such as an
// input that is no object.
func spell(d *dialect.Dialect, calls []call) (m mixed) {
	list := make([]dialect.Call, len(calls))
	for i, c := range calls {
		list[i] = dialect.Call{ID: c.id, Name: c.name, Arguments: string(c.input)}
	}
	all, err := d.Write(list)
	if err != nil {
		all, _ = dialect.Generic().Write(list) // it takes any JSON
	}
	for _, f := range all {
		m = append(m, fragment{f.Text, !f.Client})
	}
	return m
}

// quoted returns a text with the escapes of a JSON string, without the quotes around it.
func quoted(text string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(text) // a string can be encoded
	return strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(b.String()), `"`), `"`)
}

// describe returns the text of a system message that declares tools, for templates that ignore or refuse them.
func (t *Template) describe(tools []infer.Tool) (m mixed) {
	instruct := func(text string) { m = append(m, fragment{text, true}) }
	instruct("# Tools\n\nYou may call these tools. Each has a name, a description and the JSON Schema of its arguments:\n")
	for i := range tools {
		instruct("\n{\"name\": \"")
		m = append(m, fragment{text: quoted(tools[i].Name)})
		instruct("\", \"description\": \"")
		m = append(m, fragment{text: quoted(tools[i].Description)})
		instruct("\", \"parameters\": ")
		schema := bytes.TrimSpace(tools[i].Schema)
		var b bytes.Buffer
		if json.Compact(&b, schema) != nil {
			b.Reset()
			b.WriteString(`{"type":"object","properties":{}}`)
		}
		m = append(m, fragment{text: b.String()})
		instruct("}")
	}
	instruct("\n\nTo call tools, answer with nothing but this, one member of the list for each call:\n")
	m = append(m, spell(t.dialect, []call{{name: "NAME", input: []byte(`{"ARGUMENT": "VALUE"}`)}})...)
	instruct("\nThe results come back in a message of the user. Without a need for a tool, answer in plain text.")
	return m
}

// probeValues returns the template's variables for a probe. The texts of probes need no marks.
func (t *Template) probeValues(p *dialect.Probe) map[string]jinja.Value {
	unmarked := &Template{traits: p.Traits, bos: t.bos, eos: t.eos, specials: index(nil)}
	w := &writer{Template: unmarked, nonce: newNonce()}
	var turns []turn
	number := 0
	for _, m := range p.Messages {
		next := turn{role: m.Role, text: plain(m.Text), thoughts: m.Thoughts}
		for _, c := range m.Calls {
			next.calls = append(next.calls, call{id: c.ID, name: c.Name, input: []byte(c.Arguments), number: number})
			number++
		}
		if m.Role == "tool" {
			next.call = &call{id: m.ID, name: m.Name}
		}
		turns = append(turns, next)
	}
	var tools []infer.Tool
	for _, tool := range p.Tools {
		tools = append(tools, infer.Tool{Name: tool.Name, Description: tool.Description, Schema: []byte(tool.Schema)})
	}
	values, err := w.conversation(turns, tools)
	if err != nil { // a probe is well formed
		return nil
	}
	values["add_generation_prompt"] = jinja.NewBool(p.Answer)
	for name, v := range p.Variables {
		values[name] = jinja.FromGoValue(v)
	}
	return values
}
