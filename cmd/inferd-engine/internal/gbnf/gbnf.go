// Package gbnf validates grammars in llama.cpp's notation before llama.cpp parses them.
// llama.cpp reports errors to standard error only, with the whole grammar; some grammars
// crash its process, and others take minutes of CPU time per token. This package reports the
// place of an error and refuses grammars that are too large or too ambiguous. It does not
// know vocabularies, and it does not compile grammars.
package gbnf

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits of a grammar.
const (
	maxDepth       = 100     // of nested parentheses
	maxRepetitions = 2000    // llama.cpp treats larger numbers as no limit
	maxRules       = 2000    // from the expansion of one repetition: llama.cpp's own limit
	maxElements    = 1 << 17 // after the expansion of repetitions
	maxWays        = 4096    // alternatives for the next character at any place
	maxWork        = 1 << 14 // alternatives after the next character, over all of those
	maxOpen        = 128     // alternatives that are open at once in nested rules
)

// An Error is an error in a grammar, with its place.
type Error struct {
	Line, Column int // from 1; in bytes
	Problem      string
}

func (e *Error) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Problem)
}

// Check reports the first error in a grammar with the start symbol root. The error is an
// [*Error].
func Check(source string) error {
	p := &parser{source: source, rules: make(map[string]*rule)}
	if err := p.parse(); err != nil {
		return err
	}
	return p.weigh()
}

// A rule is the definition of a name.
type rule struct {
	at    int // position of its last definition, or of its first use
	known bool
	body  []sequence

	state state
	beginning
	weighed bool
	weight
	open float64 // alternatives that stay open at its end
}

type sequence []element

// An element is a part of a sequence, with the repetitions in its last three fields.
type element struct {
	at    int
	chars int        // number of characters that a literal or class consumes
	rule  string     // name of the rule that it refers to
	group []sequence // in parentheses

	optional bool // repeated, with a minimum of 0
	several  bool // repeated, with a maximum of more than 1
	never    bool // repeated 0 times
}

// parser parses a grammar. Positions are byte offsets in source.
type parser struct {
	source   string
	pos      int
	depth    int
	elements int
	symbols  int // rules in llama.cpp's form: of names, groups and repetitions
	rules    map[string]*rule
	defined  []*rule // in source order
}

func (p *parser) errorf(at int, format string, args ...any) error {
	before := p.source[:at]
	line := strings.Count(before, "\n") + 1
	return &Error{Line: line, Column: at - strings.LastIndexByte(before, '\n'), Problem: fmt.Sprintf(format, args...)}
}

// next returns the byte at pos; 0 at the end.
func (p *parser) next() byte {
	if p.pos == len(p.source) {
		return 0
	}
	return p.source[p.pos]
}

// skip passes over spaces and comments.
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
			return p.errorf(i, "no UTF-8")
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
		return p.errorf(p.pos, `"::=" is missing behind the name of a rule`)
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
		p.symbols++
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
	size := 0  // expanded elements of the last element
	rules := 1 // expanded rules of the last element
	for {
		at := p.pos
		b := p.next()
		switch {
		case b == '*' || b == '+' || b == '?' || b == '{':
			least, most, err := p.repetition(nested)
			switch {
			case err != nil:
				return nil, err
			case size == 0:
				return nil, p.errorf(at, "there is nothing before %q to be repeated", b)
			}
			last := &s[len(s)-1]
			if last.optional && most == math.MaxInt {
				return nil, p.errorf(at, "%q repeats without end what may be empty", b)
			}
			if rules *= repeats(least, most); rules > maxRules {
				return nil, p.errorf(at, "repetitions of repetitions make more than %d rules", maxRules)
			}
			last.optional = last.optional || least == 0
			last.several = last.several || most > 1
			last.never = last.never || most == 0
			optional := most - least
			if most == math.MaxInt {
				optional = 1
			}
			p.symbols += optional
			p.elements += size*max(least-1, 0) + (size+2)*optional
			if size = size * least; optional > 0 {
				size++
			}
			size = max(size, 1)
			if p.elements > maxElements {
				return nil, p.errorf(at, "the grammar is too large once its repetitions are written out")
			}
			continue
		case b == '"' || b == '[' || b == '.' || b == '<' || b == '!' || b == '(' || isName(b):
		default:
			return s, nil
		}
		before := p.symbols
		e, n, err := p.element()
		if err != nil {
			return nil, err
		}
		if rules = 1; e.group != nil {
			rules = p.symbols - before
		}
		p.skip(nested)
		size = n
		p.elements += n
		if n > 0 {
			s = append(s, e)
		}
	}
}

// repeats is the factor by which llama.cpp counts the rules of a repeated element.
func repeats(least, most int) int {
	if most == math.MaxInt {
		most = least
	}
	return max(most, 1)
}

// repetition parses a repetition operator into its minimum and maximum; math.MaxInt is no
// limit.
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
	case least > maxRepetitions || most > maxRepetitions && most != math.MaxInt:
		return 0, 0, p.errorf(at, "more than %d repetitions", maxRepetitions)
	case least > most:
		return 0, 0, p.errorf(at, "at least %d and at most %d repetitions", least, most)
	}
	p.pos++
	p.skip(nested)
	return least, most, nil
}

// element parses an element; size is the number of llama.cpp's elements for it.
func (p *parser) element() (e element, size int, err error) {
	e.at = p.pos
	b := p.next()
	p.pos++
	switch b {
	case '"':
		size, err = p.characters('"')
		e.chars = size
	case '[':
		if p.next() == '^' {
			p.pos++
		}
		size, err = p.class()
		e.chars = 1
	case '.':
		e.chars, size = 1, 1
	case '<', '!':
		if b == '!' {
			if p.next() != '<' {
				return e, 0, p.errorf(p.pos, `"<" is missing behind "!"`)
			}
			p.pos++
		}
		end := strings.IndexByte(p.source[p.pos:], '>')
		if end < 0 {
			return e, 0, p.errorf(e.at, `">" is missing`)
		}
		p.pos += end + 1
		e.chars, size = 1, 1
	case '(':
		if p.depth++; p.depth > maxDepth {
			return e, 0, p.errorf(e.at, "more than %d parentheses in each other", maxDepth)
		}
		p.skip(true)
		p.symbols++
		if e.group, err = p.alternatives(true); err != nil {
			return e, 0, err
		}
		if p.next() != ')' {
			return e, 0, p.errorf(p.pos, `")" is missing`)
		}
		p.pos++
		p.depth--
		size = 1
	default:
		p.pos--
		e.rule, err = p.name()
		p.named(e.rule, e.at)
		size = 1
	}
	return e, size, err
}

// characters parses the rest of a literal, up to end, and counts its characters.
func (p *parser) characters(end byte) (n int, err error) {
	begin := p.pos - 1
	for ; p.next() != end; n++ {
		if _, err := p.character(begin); err != nil {
			return 0, err
		}
	}
	p.pos++
	return n, nil
}

// class parses the characters and ranges of a class. A range counts as two.
func (p *parser) class() (n int, err error) {
	begin := p.pos - 1
	for ; p.next() != ']'; n++ {
		at := p.pos
		least, err := p.character(begin)
		if err != nil {
			return 0, err
		}
		if p.next() != '-' || strings.HasPrefix(p.source[p.pos:], "-]") {
			continue
		}
		p.pos++
		n++
		most, err := p.character(begin)
		switch {
		case err != nil:
			return 0, err
		case most < least:
			return 0, p.errorf(at, "the range %q is empty: its first character comes after its last", p.source[at:p.pos])
		}
	}
	p.pos++
	return n, nil
}

// escapes has the number of hexadecimal digits after each escape letter.
var escapes = map[byte]int{'x': 2, 'u': 4, 'U': 8, 't': 0, 'r': 0, 'n': 0, '\\': 0, '"': 0, '[': 0, ']': 0, '-': 0}

// controls has the escapes for control characters.
var controls = map[byte]uint64{'t': '\t', 'r': '\r', 'n': '\n'}

// character parses a character and returns its code point.
func (p *parser) character(begin int) (uint64, error) {
	b := p.next()
	switch {
	case b == 0:
		return 0, p.errorf(begin, "%q has no end", p.source[begin])
	case b != '\\':
		r, size := utf8.DecodeRuneInString(p.source[p.pos:])
		p.pos += size
		return uint64(r), nil
	}
	at := p.pos
	p.pos++
	b = p.next()
	digits, ok := escapes[b]
	if !ok {
		return 0, p.errorf(at, "an unknown escape")
	}
	p.pos++
	if code, ok := controls[b]; ok {
		return code, nil
	}
	if digits == 0 {
		return uint64(b), nil
	}
	end := min(p.pos+digits, len(p.source))
	code, err := strconv.ParseUint(p.source[p.pos:end], 16, 64)
	if err != nil || end < p.pos+digits {
		return 0, p.errorf(at, "%d hexadecimal digits are missing", digits)
	}
	p.pos = end
	return code, nil
}
