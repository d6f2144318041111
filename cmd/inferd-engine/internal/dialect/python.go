package dialect

import (
	"encoding/json"
	"strings"

	"github.com/inferd-go/inferd/internal/jinja"
)

// callValues probes the spelling of strings, lists and mappings. Its texts have both quotation marks, a backslash, a newline
// and a letter beyond ASCII.
var callValues = Call{ID: "call_z1", Name: toolOne, Arguments: `{"ka": "Zé'\"\\\nz", "kb": ["Z'z", "Z\"\\z", true, {"kz": null}], "kd": {"kz": ["Z'z", false]}}`}

// readRaw reports whether a template writes the strings of Python calls raw, lists as Python's repr does, and mappings as
// JSON.
func readRaw(render Render, t *Traits, d *Dialect) bool {
	if d.Shape != Python || d.Calls.Param.Quote == "" || d.Calls.End == "" {
		return false
	}
	text, err := render(&Probe{
		Messages: []Message{user(userText), calling(withIDs(t.IDs, callValues)[0])}, Tools: tools(), Traits: *t,
	})
	raw := *d
	raw.Calls.Param.Raw = true
	all, writeErr := raw.Write(withIDs(t.IDs, callValues))
	var b strings.Builder
	for _, f := range all {
		b.WriteString(f.Text)
	}
	return err == nil && writeErr == nil && strings.Contains(text, b.String())
}

// raw writes a value in the notation of [Param].Raw. True, False, None and numbers are spelt as in Python.
func (w *writer) raw(value json.RawMessage) error {
	quote := w.dialect.Calls.Param.Quote
	var text string
	switch value[0] {
	case '"':
		if err := json.Unmarshal(value, &text); err != nil {
			return err
		}
		w.own(quote)
		w.client(text)
		w.own(quote)
	case '[':
		return w.repr(value, 0)
	case '{':
		w.client(pythonSpace.spell(string(value)))
	default:
		return w.python(value, 0)
	}
	return nil
}

// repr writes a value as Python's repr does.
func (w *writer) repr(value json.RawMessage, depth int) error {
	quoted := func(text string) { w.client(jinja.Repr(text)) }
	return w.nested(value, depth, quoted, func(name string) {
		quoted(name)
		w.own(": ")
	}, ", ", w.repr, pythonWords)
}
