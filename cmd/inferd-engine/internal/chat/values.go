package chat

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/jinja"
)

// A writer converts a conversation to values for a template. It marks every text that a client has written.
type writer struct {
	*Template
	nonce     nonce
	collision bool // a text already contains a mark of the nonce
}

// guard marks the spellings of special tokens in a client's text.
func (w *writer) guard(text string) string {
	w.collision = w.collision || w.nonce.occursIn(text)
	return w.specials.guard(text, w.nonce)
}

func (w *writer) string(text string) jinja.Value { return jinja.NewString(w.guard(text)) }

// mixed joins the fragments of a text, and marks those of the client.
func (w *writer) mixed(m mixed) string {
	var b strings.Builder
	for _, f := range m {
		if f.trusted {
			b.WriteString(f.text)
		} else {
			b.WriteString(w.guard(f.text))
		}
	}
	return b.String()
}

// dict returns an ordered mapping; members alternates names and values.
func dict(members ...any) jinja.Value {
	d := jinja.NewDict()
	for i := 0; i+1 < len(members); i += 2 {
		name, _ := members[i].(string)
		v, _ := members[i+1].(jinja.Value)
		d.AsDict().Set(name, v)
	}
	return d
}

// conversation returns the variables of the template for a conversation.
func (w *writer) conversation(turns []turn, tools []infer.Tool) (map[string]jinja.Value, error) {
	list := make([]jinja.Value, len(turns))
	for i := range turns {
		v, err := w.message(&turns[i])
		if err != nil {
			return nil, err
		}
		list[i] = v
	}
	values := w.variables(list, true)
	if len(tools) == 0 {
		return values, nil
	}
	declared := make([]jinja.Value, len(tools))
	for i := range tools {
		v, err := w.tool(&tools[i])
		if err != nil {
			return nil, err
		}
		declared[i] = v
	}
	values["tools"] = jinja.NewList(declared)
	return values, nil
}

// variables returns the variables that every conversation has.
func (t *Template) variables(messages []jinja.Value, answer bool) map[string]jinja.Value {
	return map[string]jinja.Value{
		"messages":              jinja.NewList(messages),
		"add_generation_prompt": jinja.NewBool(answer),
		"bos_token":             jinja.NewString(t.bos),
		"eos_token":             jinja.NewString(t.eos),
	}
}

// message returns a turn as the template's value of a message.
func (w *writer) message(t *turn) (jinja.Value, error) {
	m := dict("role", jinja.NewString(t.role), "content", jinja.NewString(w.mixed(t.text)))
	if t.call != nil {
		m.AsDict().Set("name", w.string(t.call.name))
		m.AsDict().Set("tool_call_id", jinja.NewString(w.id(t.call)))
	}
	if t.thoughts != "" {
		w.putThoughts(m.AsDict(), w.traits.Thoughts, w.guard(t.thoughts), len(t.calls) > 0)
	}
	if len(t.calls) == 0 {
		return m, nil
	}
	if w.traits.NoContent && t.text.empty() {
		m.AsDict().Set("content", jinja.None())
	}
	calls := make([]jinja.Value, len(t.calls))
	for i := range t.calls {
		c := &t.calls[i]
		arguments, err := w.arguments(c)
		if err != nil {
			return m, err
		}
		function := dict("name", w.string(c.name), "arguments", arguments)
		calls[i] = dict("id", jinja.NewString(w.id(c)), "type", jinja.NewString("function"), "function", function)
	}
	m.AsDict().Set("tool_calls", jinja.NewList(calls))
	return m, nil
}

// putThoughts adds thoughts to a message at the given place. calls reports whether the message has calls.
func (t *Template) putThoughts(m *jinja.Dict, place dialect.Thoughts, thoughts string, calls bool) {
	switch place {
	case dialect.ReasoningContent:
		m.Set("reasoning_content", jinja.NewString(thoughts))
	case dialect.ThinkingMember:
		text, _ := m.Get("content")
		if !calls || !text.IsTruthy() || t.traits.ThoughtsBesideCalls {
			m.Set("thinking", jinja.NewString(thoughts))
		}
	case dialect.ThinkingBlock:
		text, _ := m.Get("content")
		blocks := []jinja.Value{dict("type", jinja.NewString("thinking"), "thinking", jinja.NewString(thoughts))}
		if text.IsTruthy() {
			blocks = append(blocks, dict("type", jinja.NewString("text"), "text", text))
		}
		m.Set("content", jinja.NewList(blocks))
	case dialect.ThinkingText, dialect.ThinkingWritten: // they are in the text
	}
}

// arguments returns the arguments of a call: an ordered mapping, or text for templates that take no mapping.
func (w *writer) arguments(c *call) (jinja.Value, error) {
	v, err := w.json(c.input, nil)
	if err == nil && w.traits.TextValues {
		var text string
		if text, err = dialect.TextValues(string(c.input)); err == nil {
			v, err = w.json([]byte(text), nil)
		}
	}
	if err != nil {
		return v, fmt.Errorf("the input of tool_use %.128q: %w", c.id, err)
	}
	if !w.traits.TextArguments {
		return v, nil
	}
	return w.string(dialect.Spaced(string(c.input))), nil
}

// id returns the id of a call in the notation that the template accepts, marked. An id of an engine, tc-N, has the
// same spelling in every conversation.
func (w *writer) id(c *call) string {
	switch w.traits.IDs {
	case dialect.FunctionID:
		return w.guard("functions." + c.name + ":" + strconv.Itoa(c.number))
	case dialect.NineID:
		return w.nineID(c.id)
	case dialect.AnyID:
	}
	return w.guard(c.id)
}

// nineID returns an id of nine letters and digits. tc-N, with N below 2^23, becomes tc and N in seven
// digits; an id that already has nine letters and digits stays. Any other id, or one that would need
// marks, which make it longer, is replaced by a hash of it.
func (w *writer) nineID(id string) string {
	nine := id
	if n, ok := strings.CutPrefix(id, "tc-"); ok {
		if n, err := strconv.ParseUint(n, 10, 23); err == nil {
			nine = fmt.Sprintf("tc%07d", n)
		}
	}
	for i := range 16 {
		if len(nine) == 9 && strings.Trim(nine, alphanumeric) == "" && w.guard(nine) == nine {
			break
		}
		sum := sha256.Sum256(append([]byte(id), byte(i)))
		var b [9]byte
		for j := range b {
			b[j] = alphanumeric[int(sum[j])%len(alphanumeric)]
		}
		nine = string(b[:])
	}
	return w.guard(nine)
}

const alphanumeric = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// tool returns the declaration of a tool as the template's value of it, with the client's texts marked.
func (w *writer) tool(t *infer.Tool) (jinja.Value, error) {
	parameters, err := w.schema(t)
	if err != nil {
		return parameters, err
	}
	function := dict("name", w.string(t.Name), "description", w.string(t.Description), "parameters", parameters)
	return dict("type", jinja.NewString("function"), "function", function), nil
}

// schema returns the schema of a tool's input as a value, with the client's texts marked. A tool without a schema gets
// the schema of an object without properties.
func (w *writer) schema(t *infer.Tool) (jinja.Value, error) {
	source := t.Schema
	if len(bytes.TrimSpace(source)) == 0 {
		source = []byte(`{"type":"object","properties":{}}`)
	}
	v, err := w.json(source, vocabulary)
	if err != nil {
		return v, fmt.Errorf("tools: %.64q: input_schema: %w", t.Name, err)
	}
	return v, nil
}

// maxLevels is the maximum depth of JSON in a conversation: less than a template's own bound.
const maxLevels = 128

var errDepth = fmt.Errorf("it nests deeper than %d levels", maxLevels)

// json returns JSON as values, with members in their order. plain are the texts that get no marks, because the
// template compares them; nil means none.
func (w *writer) json(source []byte, plain *keywords) (jinja.Value, error) {
	d := json.NewDecoder(bytes.NewReader(source))
	d.UseNumber()
	v, err := w.value(d, plain, 0)
	if err == nil && d.More() {
		err = errors.New("text follows the JSON value")
	}
	return v, err
}

func (w *writer) value(d *json.Decoder, plain *keywords, depth int) (jinja.Value, error) {
	token, err := d.Token()
	if err != nil {
		return jinja.None(), errors.New("it is not JSON")
	}
	if depth > maxLevels {
		return jinja.None(), errDepth
	}
	switch token := token.(type) {
	case json.Delim:
		if token == '[' {
			return w.list(d, plain, depth)
		}
		return w.object(d, plain, depth)
	case string:
		if plain.has(token) {
			return jinja.NewString(token), nil
		}
		return w.string(token), nil
	case json.Number:
		return jinja.FromGoValue(token), nil
	case bool:
		return jinja.NewBool(token), nil
	}
	return jinja.None(), nil
}

func (w *writer) list(d *json.Decoder, plain *keywords, depth int) (jinja.Value, error) {
	var items []jinja.Value
	for d.More() {
		v, err := w.value(d, plain, depth+1)
		if err != nil {
			return v, err
		}
		items = append(items, v)
	}
	_, err := d.Token()
	return jinja.NewList(items), err
}

func (w *writer) object(d *json.Decoder, plain *keywords, depth int) (jinja.Value, error) {
	object := jinja.NewDict()
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return object, errors.New("it is not JSON")
		}
		name, _ := token.(string)
		v, err := w.value(d, plain.forMember(name), depth+1)
		if err != nil {
			return object, err
		}
		if !plain.has(name) {
			name = w.guard(name)
		}
		object.AsDict().Set(name, v)
	}
	_, err := d.Token()
	return object, err
}
