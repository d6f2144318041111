package regex

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of a pattern.
const (
	maxNodes  = 1 << 17 // of the nondeterministic automaton
	maxGroups = 500     // in each other
	maxRepeat = 1 << 16 // written-out repetitions
)

// An Error is an error in a pattern, with its place.
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

// A set is a sorted list of ranges of characters.
type set [][2]rune

type op uint8

const (
	opSet    op = iota
	opSeq       // all parts in order
	opAlt       // one of the parts
	opRepeat    // least to most times the one part
	opBegin     // ^
	opEnd       // $
)

// A tree is a pattern as parsed.
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

// quantified wraps a part into the quantifier behind it.
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
	p.take("?") // lazy: the same language
	switch {
	case part.op == opBegin || part.op == opEnd:
		return nil, p.fail(begin, "an assertion is repeated")
	case p.at < len(p.src) && strings.IndexByte("*+?", p.src[p.at]) >= 0:
		return nil, p.fail(p.at, "nothing to repeat")
	case most >= 0 && least > most:
		return nil, p.fail(at, "at least %d and at most %d repetitions", least, most)
	case least > maxRepeat || most > maxRepeat:
		return nil, p.fail(at, "more than %d repetitions", maxRepeat)
	}
	return &tree{op: opRepeat, parts: []*tree{part}, least: least, most: most}, nil
}

// braces parses {n}, {n,} and {n,m}. Any other brace stands for itself.
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
		return nil, p.fail(at, "more than %d groups in each other", maxGroups)
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

// member parses a character or an escape of a class. Single says that it is one character.
func (p *parser) member() (s set, single bool, err error) {
	if p.peek() == '\\' {
		return p.escape(true)
	}
	r, size := utf8.DecodeRuneInString(p.src[p.at:])
	p.at += size
	return set{{r, r}}, true, nil
}

var (
	digits = set{{'0', '9'}}
	words  = set{{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}
	spaces = set{{'\t', '\r'}, {' ', ' '}, {0xa0, 0xa0}, {0x1680, 0x1680}, {0x2000, 0x200a}, {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000}, {0xfeff, 0xfeff}}
)

// escape parses an escape: a character or a class of characters.
func (p *parser) escape(inClass bool) (s set, single bool, err error) {
	at := p.at
	p.at++
	if p.at == len(p.src) {
		return nil, false, p.fail(at, "a backslash at the end")
	}
	c, size := utf8.DecodeRuneInString(p.src[p.at:])
	p.at += size
	one := func(r rune) (set, bool, error) { return set{{r, r}}, true, nil }
	switch c {
	case 'd':
		return digits, false, nil
	case 'D':
		return negate(digits), false, nil
	case 'w':
		return words, false, nil
	case 'W':
		return negate(words), false, nil
	case 's':
		return spaces, false, nil
	case 'S':
		return negate(spaces), false, nil
	case 't':
		return one('\t')
	case 'n':
		return one('\n')
	case 'v':
		return one('\v')
	case 'f':
		return one('\f')
	case 'r':
		return one('\r')
	case 'b', 'B':
		if inClass && c == 'b' {
			return one('\b')
		}
		return nil, false, p.fail(at, "word boundaries are not supported")
	case 'c':
		if l := p.peek(); l >= 'a' && l <= 'z' || l >= 'A' && l <= 'Z' {
			p.at++
			return one(rune(l) % 32)
		}
		return nil, false, p.fail(at, "a letter is missing behind \\c")
	case 'x':
		r, ok := p.hex(2)
		if !ok {
			return nil, false, p.fail(at, "two hexadecimal digits are missing")
		}
		return one(r)
	case 'u':
		return p.unicode(at)
	case 'p', 'P':
		s, err := p.property(at)
		if err == nil && c == 'P' {
			s = negate(s)
		}
		return s, false, err
	case 'k':
		return nil, false, p.fail(at, "back-references are not supported")
	case '0':
		if d := p.peek(); d < '0' || d > '9' {
			return one(0)
		}
	}
	if c >= '0' && c <= '9' {
		return nil, false, p.fail(at, "back-references are not supported")
	}
	if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= utf8.RuneSelf {
		return nil, false, p.fail(at, "an unknown escape")
	}
	return one(c)
}

func (p *parser) hex(n int) (rune, bool) {
	if len(p.src)-p.at < n {
		return 0, false
	}
	v, err := strconv.ParseUint(p.src[p.at:p.at+n], 16, 32)
	if err != nil {
		return 0, false
	}
	p.at += n
	return rune(v), true
}

// unicode parses the rest of \uXXXX, a pair of surrogates, or \u{X…}.
func (p *parser) unicode(at int) (s set, single bool, err error) {
	if p.take("{") {
		end := strings.IndexByte(p.src[p.at:], '}')
		if end < 0 {
			return nil, false, p.fail(at, "the escape has no end")
		}
		v, err := strconv.ParseUint(p.src[p.at:p.at+end], 16, 32)
		if err != nil || v > maxRune {
			return nil, false, p.fail(at, "not a code point")
		}
		p.at += end + 1
		return set{{rune(v), rune(v)}}, true, nil
	}
	r, ok := p.hex(4)
	if !ok {
		return nil, false, p.fail(at, "four hexadecimal digits are missing")
	}
	if r >= 0xd800 && r < 0xdc00 && strings.HasPrefix(p.src[p.at:], `\u`) {
		before := p.at
		p.at += 2
		if low, ok := p.hex(4); ok && low >= 0xdc00 && low < 0xe000 {
			r = 0x10000 + (r-0xd800)<<10 + (low - 0xdc00)
		} else {
			p.at = before
		}
	}
	return set{{r, r}}, true, nil
}

// property parses the rest of \p{…}.
func (p *parser) property(at int) (set, error) {
	body, _, ok := strings.Cut(p.src[p.at:], "}")
	if !ok || !p.take("{") {
		return nil, p.fail(at, "the name of a property is missing")
	}
	body = body[1:]
	p.at += len(body) + 1
	name, value, both := strings.Cut(body, "=")
	var table *unicode.RangeTable
	switch {
	case both && slices.Contains([]string{"Script", "sc", "Script_Extensions", "scx"}, name):
		table = unicode.Scripts[value]
	case both && (name == "General_Category" || name == "gc"):
		table = category(value)
	case both:
	case name == "Any":
		return set{{0, maxRune}}, nil
	case name == "ASCII":
		return set{{0, 0x7f}}, nil
	case name == "Alphabetic" || name == "Alpha":
		return union(tableSet(unicode.L), tableSet(unicode.Nl), tableSet(unicode.Other_Alphabetic)), nil
	case name == "Uppercase" || name == "Upper":
		return union(tableSet(unicode.Lu), tableSet(unicode.Other_Uppercase)), nil
	case name == "Lowercase" || name == "Lower":
		return union(tableSet(unicode.Ll), tableSet(unicode.Other_Lowercase)), nil
	default:
		if table = category(name); table == nil {
			table = unicode.Properties[name]
		}
	}
	if table == nil {
		return nil, p.fail(at, "an unknown property %q", body)
	}
	return tableSet(table), nil
}

// longCategories has the long names of general categories.
var longCategories = map[string]string{
	"Letter": "L", "Cased_Letter": "LC", "Uppercase_Letter": "Lu", "Lowercase_Letter": "Ll", "Titlecase_Letter": "Lt", "Modifier_Letter": "Lm", "Other_Letter": "Lo",
	"Mark": "M", "Combining_Mark": "M", "Nonspacing_Mark": "Mn", "Spacing_Mark": "Mc", "Enclosing_Mark": "Me",
	"Number": "N", "Decimal_Number": "Nd", "digit": "Nd", "Letter_Number": "Nl", "Other_Number": "No",
	"Punctuation": "P", "punct": "P", "Connector_Punctuation": "Pc", "Dash_Punctuation": "Pd", "Open_Punctuation": "Ps", "Close_Punctuation": "Pe",
	"Initial_Punctuation": "Pi", "Final_Punctuation": "Pf", "Other_Punctuation": "Po",
	"Symbol": "S", "Math_Symbol": "Sm", "Currency_Symbol": "Sc", "Modifier_Symbol": "Sk", "Other_Symbol": "So",
	"Separator": "Z", "Space_Separator": "Zs", "Line_Separator": "Zl", "Paragraph_Separator": "Zp",
	"Control": "Cc", "cntrl": "Cc", "Format": "Cf", "Private_Use": "Co",
}

func category(name string) *unicode.RangeTable {
	if short, ok := longCategories[name]; ok {
		name = short
	}
	if name == "C" || name == "Other" { // which has unassigned characters, too: no table has those
		return nil
	}
	return unicode.Categories[name]
}

func tableSet(t *unicode.RangeTable) set {
	var s set
	add := func(lo, hi, stride rune) {
		if stride == 1 {
			s = append(s, [2]rune{lo, hi})
			return
		}
		for r := lo; r <= hi; r += stride {
			s = append(s, [2]rune{r, r})
		}
	}
	for _, r := range t.R16 {
		add(rune(r.Lo), rune(r.Hi), rune(r.Stride))
	}
	for _, r := range t.R32 {
		add(rune(r.Lo), rune(r.Hi), rune(r.Stride))
	}
	return normal(s)
}

func union(sets ...set) set { return normal(slices.Concat(sets...)) }

// normal sorts ranges and merges them.
func normal(s set) set {
	s = slices.Clone(s)
	slices.SortFunc(s, func(a, b [2]rune) int { return int(a[0] - b[0]) })
	out := s[:0]
	for _, r := range s {
		if n := len(out); n > 0 && r[0] <= out[n-1][1]+1 {
			out[n-1][1] = max(out[n-1][1], r[1])
			continue
		}
		out = append(out, r)
	}
	return out
}

// negate returns all other characters.
func negate(s set) set {
	var out set
	next := rune(0)
	for _, r := range s {
		if r[0] > next {
			out = append(out, [2]rune{next, r[0] - 1})
		}
		next = r[1] + 1
	}
	if next <= maxRune {
		out = append(out, [2]rune{next, maxRune})
	}
	return out
}
