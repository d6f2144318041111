package regex

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits of a pattern.
const (
	maxNodes  = 1 << 17 // of the nondeterministic automaton
	maxGroups = 500     // nested groups
	maxRepeat = 1 << 16 // the largest bound in braces
)

// An Error is an error in a pattern, with its position.
type Error struct {
	Pattern string
	At      int // byte offset
	Problem string
}

func (e *Error) Error() string {
	return fmt.Sprintf("pattern %s, byte %d: %s", strconv.Quote(brief(e.Pattern)), e.At+1, e.Problem)
}

func brief(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:80], "") + "…"
	}
	return s
}

type op uint8

const (
	opSet    op = iota
	opSeq       // all parts in order
	opAlt       // one of the parts
	opRepeat    // least to most times the one part
	opBegin     // ^
	opEnd       // $
)

// A tree is a parsed pattern.
type tree struct {
	op          op
	set         set
	parts       []*tree
	least, most int // most < 0: no maximum
}

type parser struct {
	src   string
	at    int
	depth int
}

func (p *parser) fail(at int, format string, args ...any) error {
	return &Error{Pattern: p.src, At: at, Problem: fmt.Sprintf(format, args...)}
}

// parse returns the tree of a pattern.
func parse(src string) (*tree, error) {
	p := &parser{src: src}
	t, err := p.alternatives()
	if err == nil && p.at < len(src) {
		err = p.fail(p.at, "a closing parenthesis without an opening one")
	}
	return t, err
}

func (p *parser) peek() byte {
	if p.at < len(p.src) {
		return p.src[p.at]
	}
	return 0
}

func (p *parser) take(s string) bool {
	if strings.HasPrefix(p.src[p.at:], s) {
		p.at += len(s)
		return true
	}
	return false
}

func (p *parser) alternatives() (*tree, error) {
	t := &tree{op: opAlt}
	for {
		s, err := p.sequence()
		if err != nil {
			return nil, err
		}
		t.parts = append(t.parts, s)
		if !p.take("|") {
			break
		}
	}
	if len(t.parts) == 1 {
		return t.parts[0], nil
	}
	return t, nil
}

func (p *parser) sequence() (*tree, error) {
	t := &tree{op: opSeq}
	for p.at < len(p.src) && p.peek() != '|' && p.peek() != ')' {
		begin := p.at
		part, err := p.atom()
		if err != nil {
			return nil, err
		}
		if part, err = p.quantified(part, begin); err != nil {
			return nil, err
		}
		t.parts = append(t.parts, part)
	}
	return t, nil
}

// quantified returns part with the quantifier that follows it, if there is one. begin is the offset
// of part.
func (p *parser) quantified(part *tree, begin int) (*tree, error) {
	at := p.at
	least, most := 0, -1
	switch {
	case p.take("*"):
	case p.take("+"):
		least = 1
	case p.take("?"):
		most = 1
	default:
		var ok bool
		if least, most, ok = p.braces(); !ok {
			return part, nil
		}
	}
	p.take("?") // a lazy quantifier gives the same language
	switch {
	case part.op == opBegin || part.op == opEnd:
		return nil, p.fail(begin, "an assertion is repeated")
	case p.at < len(p.src) && strings.IndexByte("*+?", p.src[p.at]) >= 0:
		return nil, p.fail(p.at, "nothing to repeat")
	case most >= 0 && least > most:
		return nil, p.fail(at, "the bounds contradict each other: at least %d and at most %d repetitions", least, most)
	case least > maxRepeat || most > maxRepeat:
		return nil, p.fail(at, "more than %d repetitions", maxRepeat)
	}
	return &tree{op: opRepeat, parts: []*tree{part}, least: least, most: most}, nil
}

// braces parses {n}, {n,} and {n,m}. For any other brace, which stands for itself, ok is false.
func (p *parser) braces() (least, most int, ok bool) {
	if p.peek() != '{' {
		return 0, 0, false
	}
	body, _, found := strings.Cut(p.src[p.at+1:], "}")
	first, second, comma := strings.Cut(body, ",")
	isNumber := func(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
	if !found || !isNumber(first) || second != "" && !isNumber(second) {
		return 0, 0, false
	}
	number := func(s string) int {
		n, err := strconv.Atoi(s)
		if err != nil || n > maxRepeat {
			n = maxRepeat + 1
		}
		return n
	}
	p.at += len(body) + 2
	least = number(first)
	switch {
	case !comma:
		most = least
	case second == "":
		most = -1
	default:
		most = number(second)
	}
	return least, most, true
}

func (p *parser) atom() (*tree, error) {
	at := p.at
	switch c := p.peek(); c {
	case '(':
		return p.group()
	case '[':
		return p.class()
	case '^':
		p.at++
		return &tree{op: opBegin}, nil
	case '$':
		p.at++
		return &tree{op: opEnd}, nil
	case '.':
		p.at++
		return &tree{set: negate(set{{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}})}, nil
	case '*', '+', '?':
		return nil, p.fail(at, "nothing to repeat")
	case '{':
		if _, _, ok := p.braces(); ok {
			return nil, p.fail(at, "nothing to repeat")
		}
	case '\\':
		s, _, err := p.escape(false)
		return &tree{set: s}, err
	}
	r, size := utf8.DecodeRuneInString(p.src[p.at:])
	p.at += size
	return &tree{set: set{{r, r}}}, nil
}

func (p *parser) group() (*tree, error) {
	at := p.at
	p.at++
	if p.depth++; p.depth > maxGroups {
		return nil, p.fail(at, "groups nested more than %d deep", maxGroups)
	}
	switch {
	case p.take("?:"):
	case p.take("?="), p.take("?!"), p.take("?<="), p.take("?<!"):
		return nil, p.fail(at, "look-around is not supported")
	case p.take("?<"):
		end := strings.IndexByte(p.src[p.at:], '>')
		if end <= 0 {
			return nil, p.fail(at, "the name of the group is missing")
		}
		p.at += end + 1
	case p.peek() == '?':
		return nil, p.fail(at, "an unknown kind of group")
	}
	t, err := p.alternatives()
	if err != nil {
		return nil, err
	}
	if !p.take(")") {
		return nil, p.fail(at, "the group has no end")
	}
	p.depth--
	return t, nil
}

// class parses a class in brackets.
func (p *parser) class() (*tree, error) {
	at := p.at
	p.at++
	not := p.take("^")
	var s set
	for {
		if p.at == len(p.src) {
			return nil, p.fail(at, "the class has no end")
		}
		if p.take("]") {
			break
		}
		begin := p.at
		low, single, err := p.member()
		if err != nil {
			return nil, err
		}
		if p.peek() != '-' || strings.HasPrefix(p.src[p.at:], "-]") {
			s = append(s, low...)
			continue
		}
		p.at++
		if p.at == len(p.src) {
			return nil, p.fail(at, "the class has no end")
		}
		high, alsoSingle, err := p.member()
		switch {
		case err != nil:
			return nil, err
		case !single || !alsoSingle: // as in [\w-.]: the hyphen stands for itself
			s = append(append(append(s, low...), [2]rune{'-', '-'}), high...)
		case low[0][0] > high[0][0]:
			return nil, p.fail(begin, "the range %q is empty", p.src[begin:p.at])
		default:
			s = append(s, [2]rune{low[0][0], high[0][0]})
		}
	}
	s = normal(s)
	if not {
		s = negate(s)
	}
	return &tree{set: s}, nil
}

// member parses a character or an escape of a class. single is true if it is one character.
func (p *parser) member() (s set, single bool, err error) {
	if p.peek() == '\\' {
		return p.escape(true)
	}
	r, size := utf8.DecodeRuneInString(p.src[p.at:])
	p.at += size
	return set{{r, r}}, true, nil
}
