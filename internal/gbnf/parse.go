package gbnf

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// parser parses a grammar. Positions are byte offsets in source.
type parser struct {
	source  string
	pos     int
	depth   int
	rules   map[string]*rule
	defined []*rule // in source order
}

func (p *parser) errorf(at int, format string, args ...any) error {
	before := p.source[:at]
	line := strings.Count(before, "\n") + 1
	return &Error{Line: line, Column: at - strings.LastIndexByte(before, '\n'), Problem: fmt.Sprintf(format, args...)}
}

// next returns the byte at pos, or 0 at the end.
func (p *parser) next() byte {
	if p.pos == len(p.source) {
		return 0
	}
	return p.source[p.pos]
}

// skip skips spaces and comments and, if newlines is set, line ends.
func (p *parser) skip(newlines bool) {
	for {
		switch b := p.next(); {
		case b == ' ', b == '\t', newlines && (b == '\r' || b == '\n'):
			p.pos++
		case b == '#':
			for b := p.next(); b != 0 && b != '\r' && b != '\n'; b = p.next() {
				p.pos++
			}
		default:
			return
		}
	}
}

func (p *parser) parse() error {
	if i := strings.IndexByte(p.source, 0); i >= 0 {
		return p.errorf(i, "a NUL")
	}
	for i, r := range p.source {
		if _, size := utf8.DecodeRuneInString(p.source[i:]); r == utf8.RuneError && size == 1 {
			return p.errorf(i, "invalid UTF-8")
		}
	}
	for p.skip(true); p.next() != 0; p.skip(true) {
		if err := p.rule(); err != nil {
			return err
		}
	}
	if r := p.rules["root"]; r == nil || !r.known {
		return p.errorf(len(p.source), `no rule is called "root"`)
	}
	first, missing := len(p.source), ""
	for name, r := range p.rules {
		if !r.known && r.at <= first {
			first, missing = r.at, name
		}
	}
	if missing != "" {
		return p.errorf(first, "no rule is called %q", missing)
	}
	return nil
}

func (p *parser) rule() error {
	at := p.pos
	name, err := p.name()
	if err != nil {
		return err
	}
	r := p.named(name, at)
	p.skip(false)
	if !strings.HasPrefix(p.source[p.pos:], "::=") {
		return p.errorf(p.pos, `"::=" is missing after the name of a rule`)
	}
	p.pos += len("::=")
	p.skip(true)
	body, err := p.alternatives(false)
	if err != nil {
		return err
	}
	if b := p.next(); b != 0 && b != '\r' && b != '\n' {
		return p.errorf(p.pos, "%q does not belong here", b)
	}
	if !r.known {
		p.defined = append(p.defined, r)
	}
	r.known, r.at, r.body = true, at, body
	return nil
}

func (p *parser) named(name string, at int) *rule {
	r := p.rules[name]
	if r == nil {
		r = &rule{at: at}
		p.rules[name] = r
	}
	return r
}

func isDigit(b byte) bool { return b >= '0' && b <= '9' }

func isName(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b == '-' || isDigit(b)
}

func (p *parser) name() (string, error) {
	begin := p.pos
	for isName(p.next()) {
		p.pos++
	}
	if p.pos == begin {
		return "", p.errorf(begin, "the name of a rule is missing: letters, digits and -")
	}
	return p.source[begin:p.pos], nil
}

func (p *parser) number() (int, error) {
	begin := p.pos
	for isDigit(p.next()) {
		p.pos++
	}
	n, err := strconv.Atoi(p.source[begin:p.pos])
	if err != nil {
		return 0, p.errorf(begin, "a number is missing, or too large")
	}
	return n, nil
}

func (p *parser) alternatives(nested bool) ([]sequence, error) {
	var all []sequence
	for {
		one, err := p.sequence(nested)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
		if p.next() != '|' {
			return all, nil
		}
		p.pos++
		p.skip(true)
	}
}

func (p *parser) sequence(nested bool) (sequence, error) {
	var s sequence
	repeatable := false // there is an element to repeat
	for {
		switch b := p.next(); {
		case b == '*' || b == '+' || b == '?' || b == '{':
			if !repeatable {
				return nil, p.repeatsNothing(nested)
			}
			if err := p.repeat(&s[len(s)-1], nested); err != nil {
				return nil, err
			}
			continue
		case b == '"' || b == '[' || b == '.' || b == '<' || b == '!' || b == '(' || isName(b):
		default:
			return s, nil
		}
		e, empty, err := p.element()
		if err != nil {
			return nil, err
		}
		p.skip(nested)
		if repeatable = !empty; repeatable {
			s = append(s, e)
		}
	}
}

// repeatsNothing returns the error for a repetition operator without an element before it.
func (p *parser) repeatsNothing(nested bool) error {
	at, operator := p.pos, p.next()
	if _, _, err := p.repetition(nested); err != nil {
		return err
	}
	return p.errorf(at, "there is nothing before %q to be repeated", operator)
}

// repeat parses a repetition operator, and applies it to the element before it.
func (p *parser) repeat(e *element, nested bool) error {
	at, operator := p.pos, p.next()
	least, most, err := p.repetition(nested)
	switch {
	case err != nil:
		return err
	case e.optional && most == math.MaxInt:
		return p.errorf(at, "%q repeats without a maximum what may be empty", operator)
	}
	e.repeats = append(e.repeats, repetition{at, least, most})
	e.optional = e.optional || least == 0
	return nil
}

// repetition parses a repetition operator and returns its minimum and maximum. A maximum of
// math.MaxInt means that there is none.
func (p *parser) repetition(nested bool) (least, most int, err error) {
	kind, at := p.next(), p.pos
	p.pos++
	p.skip(nested)
	switch kind {
	case '*':
		return 0, math.MaxInt, nil
	case '+':
		return 1, math.MaxInt, nil
	case '?':
		return 0, 1, nil
	}
	if least, err = p.number(); err != nil {
		return 0, 0, err
	}
	most = least
	if p.skip(nested); p.next() == ',' {
		p.pos++
		p.skip(nested)
		if most = math.MaxInt; isDigit(p.next()) {
			if most, err = p.number(); err != nil {
				return 0, 0, err
			}
			p.skip(nested)
		}
	}
	switch {
	case p.next() != '}':
		return 0, 0, p.errorf(p.pos, `"}" is missing`)
	case least > MaxRepetitions || most > MaxRepetitions && most != math.MaxInt:
		return 0, 0, p.errorf(at, "more than %d repetitions", MaxRepetitions)
	case least > most:
		return 0, 0, p.errorf(at, "the bounds contradict each other: at least %d and at most %d repetitions", least, most)
	}
	p.pos++
	p.skip(nested)
	return least, most, nil
}

// element parses an element. empty reports that the element matches only the empty text.
func (p *parser) element() (e element, empty bool, err error) {
	e.at = p.pos
	b := p.next()
	p.pos++
	switch b {
	case '"':
		e.literal, err = p.characters('"')
		empty = len(e.literal) == 0
	case '[':
		if p.next() == '^' {
			p.pos++
			e.negated = true
		}
		e.class, err = p.class()
		empty = len(e.class) == 0
	case '.':
		e.negated = true
	case '<', '!':
		e.token, err = p.token(e.at)
		e.negated = b == '!'
	case '(':
		e.group, err = p.group(e.at)
	default:
		p.pos--
		e.rule, err = p.name()
		p.named(e.rule, e.at)
	}
	return e, empty, err
}

// token parses the rest of a token of the model, <…> or !<…>, which begins at position at.
func (p *parser) token(at int) (name string, err error) {
	if p.source[at] == '!' {
		if p.next() != '<' {
			return "", p.errorf(p.pos, `"<" is missing after "!"`)
		}
		p.pos++
	}
	end := strings.IndexByte(p.source[p.pos:], '>')
	if end < 0 {
		return "", p.errorf(at, `">" is missing`)
	}
	name = p.source[at : p.pos+end+1]
	p.pos += end + 1
	return strings.TrimPrefix(name, "!"), nil
}

// group parses the rest of a group in parentheses, which begins at position at.
func (p *parser) group(at int) ([]sequence, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, p.errorf(at, "parentheses nested more than %d deep", maxDepth)
	}
	p.skip(true)
	body, err := p.alternatives(true)
	if err != nil {
		return nil, err
	}
	if p.next() != ')' {
		return nil, p.errorf(p.pos, `")" is missing`)
	}
	p.pos++
	p.depth--
	return body, nil
}
