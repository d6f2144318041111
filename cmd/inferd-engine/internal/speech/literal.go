package speech

import (
	"strings"

	"github.com/inferd-go/inferd/internal/automaton"
)

// fromLiteral reads the arguments of shape Literal: members with bare names, and strings between quote markers.
func (s *Speech) fromLiteral(text []automaton.Symbol) []byte {
	p := &s.Dialect.Calls.Param
	l := literal{text: text, quoteMark: s.symbols(p.Quote), loose: p.Separator != strings.TrimSpace(p.Separator)}
	return l.members().bytes()
}

// A literal reads symbols that the grammar has accepted, so it need not check the separators between names and values.
type literal struct {
	text, quoteMark []automaton.Symbol
	loose           bool // white space may stand in front of names
}

// next takes the symbols in front of the first byte that occurs in until, and returns their text.
func (l *literal) next(until string) string {
	n := 0
	for n < len(l.text) && (l.text[n] >= 256 || !strings.ContainsRune(until, rune(l.text[n]))) {
		n++
	}
	word := textOf(l.text[:n])
	l.text = l.text[n:]
	return word
}

// take takes the symbol x if it is the next one, and reports whether it is.
func (l *literal) take(x automaton.Symbol) bool {
	ok := len(l.text) > 0 && l.text[0] == x
	if ok {
		l.text = l.text[1:]
	}
	return ok
}

// members reads members up to a closing brace, which it does not take, or up to the end.
func (l *literal) members() *object {
	o := new(object)
	for len(l.text) > 0 && l.text[0] != '}' {
		name := l.next(":")
		if l.loose {
			name = strings.TrimSpace(name)
		}
		l.take(':')
		o.set(name, l.value())
		l.take(',')
	}
	return o
}

// value reads a value, and returns it as JSON.
func (l *literal) value() string {
	switch {
	case hasPrefix(l.text, l.quoteMark):
		l.text = l.text[len(l.quoteMark):]
		n := 0
		for n < len(l.text) && !hasPrefix(l.text[n:], l.quoteMark) {
			n++
		}
		text := quote(textOf(l.text[:n]))
		l.text = l.text[min(len(l.text), n+len(l.quoteMark)):]
		return text
	case l.take('{'):
		o := l.members()
		l.take('}')
		return string(o.bytes())
	case l.take('['):
		var items []string
		for len(l.text) > 0 && l.text[0] != ']' {
			items = append(items, l.value())
			l.take(',')
		}
		l.take(']')
		return "[" + strings.Join(items, ", ") + "]"
	}
	return strings.TrimSpace(l.next(",}]"))
}

func hasPrefix(text, mark []automaton.Symbol) bool {
	if len(mark) == 0 || len(text) < len(mark) {
		return false
	}
	for i, x := range mark {
		if text[i] != x {
			return false
		}
	}
	return true
}
