package dialect

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A Fragment is a part of the text of calls. Text of a client may spell markers, which must not become control tokens.
type Fragment struct {
	Text   string
	Client bool
}

// Write returns calls in the spelling of the dialect. Ids are unchanged, and calls are numbered from 0. It fails if the
// shape spells each argument, and the arguments are not a JSON object or nest too deeply.
func (d *Dialect) Write(calls []Call) (all []Fragment, err error) {
	w := writer{dialect: d}
	w.own(d.Calls.Begin)
	for i := range calls {
		if i > 0 {
			w.own(d.Calls.Separator)
		}
		if err := w.call(&calls[i], i); err != nil {
			return nil, err
		}
	}
	w.own(d.Calls.End)
	return w.all, nil
}

type writer struct {
	dialect *Dialect
	all     []Fragment
}

func (w *writer) own(text string)    { w.add(text, false) }
func (w *writer) client(text string) { w.add(text, true) }

func (w *writer) add(text string, client bool) {
	if text != "" {
		w.all = append(w.all, Fragment{text, client})
	}
}

func (w *writer) call(c *Call, i int) error {
	for _, p := range w.dialect.Calls.Call {
		switch p.Kind {
		case Fixed:
			w.own(p.Text)
		case Name:
			if w.dialect.Shape == Object || w.dialect.Shape == Array {
				w.client(jsonText(c.Name))
			} else {
				w.client(c.Name)
			}
		case ID:
			w.client(c.ID)
		case NumberInConversation, NumberInAnswer:
			w.own(strconv.Itoa(i))
		case Arguments:
			if err := w.arguments(c.Arguments); err != nil {
				return err
			}
		}
	}
	return nil
}

// arguments writes a JSON object in the notation of the shape.
func (w *writer) arguments(source string) error {
	source = strings.TrimSpace(source)
	if source == "" {
		source = "{}"
	}
	switch w.dialect.Shape {
	case Params, Python, Literal:
	case Object, Array, Named, NoCalls:
		w.client(w.spaced(source))
		return nil
	}
	members, err := w.members(source)
	if err != nil {
		return err
	}
	p := &w.dialect.Calls.Param
	if len(members) == 0 {
		w.own(p.None)
	}
	for i, m := range members {
		if i > 0 {
			w.own(p.Separator)
		}
		w.own(p.Open)
		w.client(m.name)
		if err := w.value(m.value); err != nil {
			return err
		}
		w.own(p.Close)
	}
	return nil
}

// spaced returns JSON with the white space of the dialect.
func (w *writer) spaced(source string) string {
	if space := w.dialect.Calls.Space; space != nil && space.JSON {
		return space.spell(source)
	}
	return source
}

// value writes the marker between the name and the value of an argument, and then the value.
func (w *writer) value(value json.RawMessage) error {
	p := &w.dialect.Calls.Param
	var text string
	isText := len(value) > 0 && value[0] == '"' && json.Unmarshal(value, &text) == nil
	switch {
	case w.dialect.Shape == Params && isText:
		w.own(p.Middle)
		w.wrapped(text, p.Wrap.has(text))
	case w.dialect.Shape == Params:
		if p.MiddleJSON != "" {
			w.own(p.MiddleJSON)
		} else {
			w.own(p.Middle)
		}
		text = w.spaced(string(value))
		w.wrapped(text, p.Wrap.JSON && p.Wrap.has(text))
	case w.dialect.Shape == Literal:
		w.own(p.Middle)
		return w.literal(value, 0)
	case p.Raw:
		w.own(p.Middle)
		return w.raw(value)
	default:
		w.own(p.Middle)
		return w.python(value, 0)
	}
	return nil
}

// wrapped writes a value, between the markers of [Wrap] if on is set.
func (w *writer) wrapped(text string, on bool) {
	if wrap := &w.dialect.Calls.Param.Wrap; on {
		w.own(wrap.Open)
		defer w.own(wrap.Close)
	}
	w.client(text)
}

// maxNested is the maximum depth of a value.
const maxNested = 128

var errNested = fmt.Errorf("the arguments of a call nest deeper than %d levels", maxNested)

// literal writes a JSON value in shape Literal: bare names, and quote markers around strings.
func (w *writer) literal(value json.RawMessage, depth int) error {
	quote := w.dialect.Calls.Param.Quote
	return w.nested(value, depth, func(text string) {
		w.own(quote)
		w.client(text)
		w.own(quote)
	}, func(name string) {
		w.client(name)
		w.own(":")
	}, ",", w.literal, nil)
}

// pythonWords has Python's spelling of the literals of JSON.
var pythonWords = map[string]string{"true": "True", "false": "False", "null": "None"}

// python writes a JSON value in the notation of Python.
func (w *writer) python(value json.RawMessage, depth int) error {
	quoted := func(text string) {
		quote := `"`
		if depth == 0 && value[0] == '"' && w.dialect.Calls.Param.Quote == "'" {
			quote = "'"
			text = strings.ReplaceAll(strings.ReplaceAll(jsonText(text), `\"`, `"`), "'", `\'`)
		} else {
			text = jsonText(text)
		}
		w.own(quote)
		w.client(text)
		w.own(quote)
	}
	return w.nested(value, depth, quoted, func(name string) {
		quoted(name)
		w.own(": ")
	}, ", ", w.python, pythonWords)
}

// nested writes a JSON value: text writes the strings, name the names of members, and inner the items of lists and the
// values of members. A literal of JSON that is a key of words is replaced by the word there.
func (w *writer) nested(value json.RawMessage, depth int, text, name func(string),
	separator string, inner func(json.RawMessage, int) error, words map[string]string,
) error {
	if depth > maxNested {
		return errNested
	}
	switch first := value[0]; first {
	case '"':
		var s string
		if err := json.Unmarshal(value, &s); err != nil {
			return err
		}
		text(s)
		return nil
	case '{':
		all, err := w.members(string(value))
		if err != nil {
			return err
		}
		w.own("{")
		for i, m := range all {
			if i > 0 {
				w.own(separator)
			}
			name(m.name)
			if err := inner(m.value, depth+1); err != nil {
				return err
			}
		}
		w.own("}")
		return nil
	case '[':
		var items []json.RawMessage
		if err := json.Unmarshal(value, &items); err != nil {
			return err
		}
		w.own("[")
		for i, item := range items {
			if i > 0 {
				w.own(separator)
			}
			if err := inner(item, depth+1); err != nil {
				return err
			}
		}
		w.own("]")
		return nil
	}
	if word, ok := words[string(value)]; ok {
		w.own(word)
	} else {
		w.client(string(value))
	}
	return nil
}

// members returns the members of a JSON object in the order of the dialect.
func (w *writer) members(source string) ([]member, error) {
	all, err := members(source)
	if space := w.dialect.Calls.Space; space != nil && space.Sorted {
		slices.SortStableFunc(all, func(x, y member) int { return strings.Compare(strings.ToLower(x.name), strings.ToLower(y.name)) })
	}
	return all, err
}

// A member is a member of a JSON object.
type member struct {
	name  string
	value json.RawMessage
}

// members returns the members of a JSON object in their order. It fails if source is not a JSON object.
func members(source string) (all []member, err error) {
	d := json.NewDecoder(strings.NewReader(source))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("the arguments of a call are not a JSON object")
	}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		m := member{}
		m.name, _ = t.(string)
		if err := d.Decode(&m.value); err != nil {
			return nil, err
		}
		m.value = bytes.TrimSpace(m.value)
		all = append(all, m)
	}
	_, err = d.Token()
	return all, err
}

// jsonText returns a text in the escapes of a JSON string, without quotes.
func jsonText(text string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(text) // a string can be encoded
	whole := strings.TrimSpace(b.String())
	return whole[1 : len(whole)-1]
}
