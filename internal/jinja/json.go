package jinja

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// jsonStyle holds the parameters of Python's json.dumps.
type jsonStyle struct {
	item, key string // the separators between items, and between key and value
	pad       string // the indentation of one level; used only if indented is set
	indented  bool
	ascii     bool // escape all characters beyond ASCII
	sorted    bool
}

// newStyle returns the style for the arguments of tojson. The filter has the same arguments as in
// Hugging Face's libraries.
func (m *meter) newStyle(args []Value, kwargs map[string]Value) jsonStyle {
	s := jsonStyle{item: ", ", key: ": "}
	for i, name := range []string{"ensure_ascii", "indent", "separators", "sort_keys"} {
		v, ok := kwargs[name]
		if !ok && i < len(args) {
			v, ok = args[i], true
		}
		if !ok || v.IsNone() || v.IsUndefined() {
			continue
		}
		switch name {
		case "ensure_ascii":
			s.ascii = v.IsTruthy()
		case "indent":
			s.indented, s.item = true, ","
			if v.IsString() {
				s.pad = v.AsString()
			} else {
				s.pad = m.repeat(" ", m.toInt64(v))
			}
		case "separators":
			if v.IsList() && v.AsList().Len() == 2 {
				s.item, s.key = m.text(v.AsList().Get(0)), m.text(v.AsList().Get(1))
			}
		case "sort_keys":
			s.sorted = v.IsTruthy()
		}
	}
	return s
}

func filterTojson(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) == 0 {
		return NewString(""), nil
	}
	w := jsonWriter{meter: m, style: m.newStyle(args[1:], kwargs)}
	w.value(args[0], 1)
	return NewString(w.b.String()), nil
}

// A jsonWriter writes values as JSON. It counts bytes on the meter before it writes them.
type jsonWriter struct {
	*meter
	style jsonStyle
	b     strings.Builder
}

func (w *jsonWriter) value(v Value, depth int) {
	w.level(depth)
	w.grow(8) // for brackets and short values
	switch v.kind {
	case KindUndefined, KindNone, KindCallable:
		w.b.WriteString("null")
	case KindBool:
		w.b.WriteString(strconv.FormatBool(v.AsBool()))
	case KindInt:
		w.grow(20)
		w.b.WriteString(strconv.FormatInt(v.AsInt(), 10))
	case KindFloat:
		w.grow(24)
		w.b.WriteString(jsonFloat(v.AsFloat()))
	case KindString:
		w.string(v.AsString())
	case KindList:
		w.b.WriteByte('[')
		for i, item := range v.AsList().Items {
			w.next(i, depth)
			w.value(item, depth+1)
		}
		w.end(v.AsList().Len(), depth)
		w.b.WriteByte(']')
	case KindDict:
		d := v.AsDict()
		keys := d.Keys
		if w.style.sorted {
			w.step(4 * len(keys))
			w.grow(times(len(keys), 16))
			keys = slices.Sorted(slices.Values(keys))
		}
		w.b.WriteByte('{')
		for i, key := range keys {
			w.next(i, depth)
			w.string(key)
			w.grow(len(w.style.key))
			w.b.WriteString(w.style.key)
			item, _ := w.get(d, key)
			w.value(item, depth+1)
		}
		w.end(len(keys), depth)
		w.b.WriteByte('}')
	}
}

// next writes the separator and the white space before item i.
func (w *jsonWriter) next(i, depth int) {
	if i > 0 {
		w.grow(len(w.style.item))
		w.b.WriteString(w.style.item)
	}
	w.line(depth)
}

// end writes the white space before the bracket that closes a list or mapping of n items.
func (w *jsonWriter) end(n, depth int) {
	if n > 0 {
		w.line(depth - 1)
	}
}

func (w *jsonWriter) line(depth int) {
	if !w.style.indented {
		return
	}
	w.grow(1 + times(depth, len(w.style.pad)))
	w.step(1 + depth>>2)
	w.b.WriteByte('\n')
	for range depth {
		w.b.WriteString(w.style.pad)
	}
}

// string writes a string. Like Python, it escapes only quotes, backslashes and control characters
// and, if ascii is set, all characters beyond ASCII.
func (w *jsonWriter) string(s string) {
	w.step(2 + len(s)>>4)
	w.grow(w.length(s))
	w.b.WriteByte('"')
	done := 0
	for i, r := range s {
		var escape string
		switch {
		case r == '"' || r == '\\':
			escape = "\\" + string(r)
		case r < ' ':
			escape = control(byte(r))
		case w.style.ascii && r > '~' && r != 0x7f:
			escape = unicodeEscape(r)
		default:
			continue
		}
		w.b.WriteString(s[done:i])
		w.b.WriteString(escape)
		_, size := utf8.DecodeRuneInString(s[i:])
		done = i + size
	}
	w.b.WriteString(s[done:])
	w.b.WriteByte('"')
}

// length returns an upper bound of the length of s as a JSON string, in bytes.
func (w *jsonWriter) length(s string) int {
	n := len(s) + 2
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || w.style.ascii && c >= utf8.RuneSelf {
			n += 5
		}
	}
	return n
}

// control returns the escape of a control character in JSON.
func control(c byte) string {
	switch c {
	case '\n':
		return `\n`
	case '\r':
		return `\r`
	case '\t':
		return `\t`
	case '\b':
		return `\b`
	case '\f':
		return `\f`
	}
	return fmt.Sprintf(`\u%04x`, c)
}

// unicodeEscape returns a character as one or two \u escapes.
func unicodeEscape(r rune) string {
	if r > 0xffff {
		r -= 0x10000
		return fmt.Sprintf(`\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
	}
	return fmt.Sprintf(`\u%04x`, r)
}

// jsonFloat returns a number as Python's json.dumps writes it.
func jsonFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	return pythonFloat(f)
}

// pythonFloat returns a number as Python prints it: as short as possible, with a point or an
// exponent.
func pythonFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	}
	text := strconv.FormatFloat(f, 'e', -1, 64)
	_, exponent, _ := strings.Cut(text, "e")
	if e, err := strconv.Atoi(exponent); err == nil && e >= -4 && e < 16 {
		text = strconv.FormatFloat(f, 'f', -1, 64)
		if !strings.Contains(text, ".") {
			text += ".0"
		}
	}
	return text
}

func filterFromjson(m *meter, args []Value, _ map[string]Value) (Value, error) {
	if len(args) == 0 || !args[0].IsString() {
		return Undefined(), nil
	}
	m.measureGo(args[0].AsString())
	d := json.NewDecoder(strings.NewReader(args[0].AsString()))
	d.UseNumber()
	v, err := m.decode(d, 1)
	if err == nil && d.More() {
		err = errors.New("text after the end of the value")
	}
	if err != nil {
		return Undefined(), fmt.Errorf("fromjson: %w", err)
	}
	return v, nil
}

// decode reads the next value. It keeps the order of members.
func (m *meter) decode(d *json.Decoder, depth int) (Value, error) {
	m.level(depth)
	token, err := d.Token()
	if err != nil {
		return Undefined(), err
	}
	open, ok := token.(json.Delim)
	if !ok {
		return FromGoValue(token), nil
	}
	list, dict := NewList(nil), NewDict()
	for d.More() {
		key := ""
		if open == '{' {
			token, err := d.Token()
			if err != nil {
				return Undefined(), err
			}
			key, _ = token.(string)
		}
		v, err := m.decode(d, depth+1)
		if err != nil {
			return Undefined(), err
		}
		if open == '{' {
			dict.AsDict().Set(key, v)
		} else {
			list.AsList().Append(v)
		}
	}
	if _, err := d.Token(); err != nil {
		return Undefined(), err
	}
	if open == '{' {
		return dict, nil
	}
	return list, nil
}
