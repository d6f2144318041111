package speech

import (
	"strconv"
	"strings"

	"github.com/inferd-go/inferd/internal/automaton"
)

// keyword writes a marker of keyword arguments with raw strings. Before a further argument, such a string ends only at
// a quotation mark, a separator, a name that an argument may have, and an equals sign in a row; any shorter part of
// this sequence may stand in the string.
func (x *notationWriter) keyword(b *automaton.Builder, text string, mark automaton.Mark, next automaton.Node) automaton.Node {
	switch p := &x.Dialect.Calls.Param; text {
	case p.Middle:
		next = b.Mark(automaton.Commit|markEquals, next)
	case p.Separator:
		next = b.Mark(markKey, next)
	}
	return x.write(b, text, mark, next)
}

// fromRaw reads keyword arguments with raw strings. ends are the offsets behind equals signs and behind separators.
// Only the last separator in front of an equals sign ends a value; any other is part of a string.
func (s *Speech) fromRaw(text []automaton.Symbol, ends []valueEnd) []byte {
	p := &s.Dialect.Calls.Param
	var o object
	name, key, from := "", 0, -1
	for _, e := range ends {
		if e.marks&markEquals == 0 {
			key = e.at
			continue
		}
		if from >= 0 {
			o.set(name, fromValue(textOf(text[from:key-len(p.Separator)]), p.Quote))
		}
		name, from = textOf(text[key:e.at-len(p.Middle)]), e.at
	}
	if from >= 0 {
		o.set(name, fromValue(textOf(text[from:]), p.Quote))
	}
	return o.bytes()
}

// fromValue returns a value as JSON. The value is a raw string with quoteMark on both sides, a list as Python's repr
// writes it, a JSON object, a number, or None, True or False.
func fromValue(text, quoteMark string) string {
	switch {
	case strings.HasPrefix(text, quoteMark):
		return quote(strings.TrimSuffix(strings.TrimPrefix(text, quoteMark), quoteMark))
	case strings.HasPrefix(text, "{"):
		return text
	}
	return fromRepr(text)
}

// fromRepr translates a value from the notation of Python's repr into JSON.
func fromRepr(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); {
		switch c := text[i]; c {
		case '\'', '"':
			n := stringEnd(text[i:])
			b.WriteString(quote(unescaped(text[i+1 : i+n-1])))
			i += n
		case 'N', 'T', 'F':
			i += writeWord(&b, text[i:])
		default:
			b.WriteByte(c)
			i++
		}
	}
	return b.String()
}

// unescaped resolves the escapes in the inside of a string of Python.
func unescaped(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' || i+1 == len(text) {
			b.WriteByte(text[i])
			continue
		}
		i++
		switch c := text[i]; c {
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case 't':
			b.WriteByte('\t')
		case 'x', 'u', 'U':
			digits := text[i+1 : min(i+1+map[byte]int{'x': 2, 'u': 4, 'U': 8}[c], len(text))]
			code, _ := strconv.ParseUint(digits, 16, 31) // the grammar accepts only hexadecimal digits here
			b.WriteRune(rune(code))
			i += len(digits)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// writeWord writes null, true or false if a text begins with None, True or False, and returns the length of that word.
// If the text begins with none of them, it writes nothing and returns 1.
func writeWord(b *strings.Builder, text string) int {
	for python, js := range map[string]string{"None": "null", "True": "true", "False": "false"} {
		if strings.HasPrefix(text, python) {
			b.WriteString(js)
			return len(python)
		}
	}
	return 1
}

// fromPython reads keyword arguments with strings that are spelt as in JSON.
func (s *Speech) fromPython(text string) []byte {
	p := &s.Dialect.Calls.Param
	var o object
	for text != "" {
		name, rest, _ := strings.Cut(text, p.Middle)
		value, n := pythonValue(rest)
		o.set(name, value)
		text = strings.TrimPrefix(rest[n:], p.Separator)
	}
	return o.bytes()
}

// pythonValue returns the value that a text begins with, as JSON, and its length in the text: it ends before the first
// comma outside strings and brackets, or with the text.
func pythonValue(text string) (value string, length int) {
	var b strings.Builder
	depth := 0
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '"':
			n := stringEnd(text[i:])
			b.WriteString(text[i : i+n])
			i += n
			continue
		case c == ',' && depth == 0:
			return b.String(), i
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			depth--
		case c == 'N' || c == 'T' || c == 'F':
			i += writeWord(&b, text[i:])
			continue
		}
		b.WriteByte(text[i])
		i++
	}
	return b.String(), len(text)
}

// stringEnd returns the length, with its quotation marks, of the string that a text begins with, in JSON or as Python's
// repr writes it.
func stringEnd(text string) int {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case text[0]:
			return i + 1
		}
	}
	return len(text)
}
