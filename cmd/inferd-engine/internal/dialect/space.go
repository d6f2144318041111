package dialect

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf16"
)

// A Space is a template's white space, order and escapes in the arguments of calls. Answers must keep to it: then the next
// prompt, in which the template writes the call, has the same tokens as the answer.
type Space struct {
	// JSON reports that each value has one spelling: the only white space is Comma behind a comma and Colon behind a
	// colon, and numbers have no redundant zeros.
	JSON         bool
	Comma, Colon string
	// ASCII reports that strings of JSON spell letters beyond ASCII as \uXXXX.
	ASCII bool
	// Sorted reports that members are sorted by name, without regard to case.
	Sorted bool
}

// pythonSpace is the white space that Python writes in JSON by default.
var pythonSpace = Space{JSON: true, Comma: " ", Colon: " "}

// callThree probes white space, the order of members, and the words for true and null. Its members are not sorted.
var callThree = Call{ID: "call_z1", Name: toolOne, Arguments: `{"kb": true, "ka": {"kz": [51, 52], "kd": null}}`}

// readSpace returns a template's white space and order of members. If the template does not write values as JSON in
// shape Params, readSpace tries strings with their JSON instead, and records in t.TextValues whether these work.
func readSpace(render Render, t *Traits, d *Dialect) *Space {
	s, ok := trySpace(render, t, d.Shape)
	if ok || d.Shape != Params || d.Calls.Param.MiddleJSON != "" {
		return s
	}
	t.TextValues = true
	again, ok := trySpace(render, t, d.Shape)
	if t.TextValues = ok; ok {
		return again
	}
	return s
}

// escapes reports whether a template writes letters beyond ASCII as \uXXXX in arguments that are JSON.
func escapes(render Render, t *Traits, d *Dialect) bool {
	if d.Shape != Object && d.Shape != Array && d.Shape != Named {
		return false
	}
	text, err := render(&Probe{
		Messages: []Message{user(userText), calling(withIDs(t.IDs, Call{ID: callOne.ID, Name: toolOne, Arguments: `{"ka": "é"}`})[0])},
		Tools:    tools(), Traits: *t,
	})
	return err == nil && strings.Contains(text, `\u00e9`)
}

// trySpace is readSpace without a change of the traits. ok is false if the white space of JSON cannot be determined;
// s.Sorted may be valid even then.
func trySpace(render Render, t *Traits, shape Shape) (s *Space, ok bool) {
	s = new(Space)
	text, err := render(&Probe{
		Messages: []Message{user(userText), calling(withIDs(t.IDs, callThree)[0])}, Tools: tools(), Traits: *t,
	})
	at := strings.LastIndex(text, toolOne)
	if err != nil || at < 0 {
		return s, false
	}
	text = text[at:]
	outer := strings.Index(text, "ka") < strings.Index(text, "kb")
	s.Sorted = outer && strings.Index(text, "kd") < strings.Index(text, "kz")
	if outer != s.Sorted {
		return s, false
	}
	for _, comma := range []string{" ", ""} {
		for _, colon := range []string{" ", ""} {
			s.Comma, s.Colon = comma, colon
			if s.JSON = inOrder(text, s.parts(shape)...); s.JSON {
				return s, true
			}
		}
	}
	s.Comma, s.Colon = "", ""
	return s, false
}

// parts returns the values of callThree as a template with this white space writes them, in order.
func (s *Space) parts(shape Shape) []string {
	null, yes := "null", "true"
	if shape == Python {
		null, yes = "None", "True"
	}
	first, second := `"kz"`+s.colon()+"[51,"+s.Comma+"52]", `"kd"`+s.colon()+null
	if s.Sorted {
		first, second = second, first
	}
	nested := "{" + first + "," + s.Comma + second + "}"
	if shape != Object && shape != Array && shape != Named {
		if s.Sorted {
			return []string{nested, yes}
		}
		return []string{yes, nested}
	}
	first, second = `"kb"`+s.colon()+yes, `"ka"`+s.colon()+nested
	if s.Sorted {
		first, second = second, first
	}
	return []string{"{" + first + "," + s.Comma + second + "}"}
}

// colon returns a colon with the white space behind it.
func (s *Space) colon() string { return ":" + s.Colon }

// Spaced writes JSON with the white space that Python writes by default. Texts and numbers stay as they are; anything but
// JSON is returned unchanged.
func Spaced(source string) string { return pythonSpace.spell(source) }

// spell is like [Spaced], but with the white space and the escapes of s.
func (s *Space) spell(source string) string {
	var compact bytes.Buffer
	if json.Compact(&compact, []byte(source)) != nil {
		return source
	}
	var b strings.Builder
	text, escaped := false, false // within a text; behind a backslash
	for _, c := range compact.String() {
		if s.ASCII && c >= 0x7f {
			for _, half := range utf16.AppendRune(nil, c) {
				fmt.Fprintf(&b, `\u%04x`, half)
			}
			continue
		}
		b.WriteRune(c)
		switch {
		case escaped:
			escaped = false
		case text && c == '\\':
			escaped = true
		case c == '"':
			text = !text
		case !text && c == ',':
			b.WriteString(s.Comma)
		case !text && c == ':':
			b.WriteString(s.Colon)
		}
	}
	return b.String()
}

// TextValues returns the JSON object source, with every value that is not a string replaced by a string with its JSON.
// It fails if source is not a JSON object.
func TextValues(source string) (string, error) {
	all, err := members(source)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for i, m := range all {
		if i > 0 {
			b.WriteString(", ")
		}
		value := string(m.value)
		if value[0] != '"' {
			value = `"` + jsonText(Spaced(value)) + `"`
		}
		fmt.Fprintf(&b, `"%s": %s`, jsonText(m.name), value)
	}
	return "{" + b.String() + "}", nil
}
