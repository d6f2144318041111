package regex

import (
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// setLetters holds the letters of escapes for sets, each followed by the letter for the complement.
const setLetters = "dDwWsS"

var (
	digits = set{{'0', '9'}}
	words  = set{{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}
	spaces = set{{'\t', '\r'}, {' ', ' '}, {0xa0, 0xa0}, {0x1680, 0x1680}, {0x2000, 0x200a}, {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000}, {0xfeff, 0xfeff}}
)

// escape parses an escape for a character (single is true) or for a set of characters. inClass is set
// within brackets, where \b means a backspace.
func (p *parser) escape(inClass bool) (s set, single bool, err error) {
	at := p.at
	p.at++
	if p.at == len(p.src) {
		return nil, false, p.fail(at, "a backslash at the end")
	}
	c, size := utf8.DecodeRuneInString(p.src[p.at:])
	p.at += size
	one := func(r rune) (set, bool, error) { return set{{r, r}}, true, nil }
	if i := strings.IndexRune(setLetters, c); i >= 0 {
		s := [...]set{digits, words, spaces}[i/2]
		if i%2 == 1 {
			s = negate(s)
		}
		return s, false, nil
	}
	if i := strings.IndexRune("tnvfr", c); i >= 0 {
		return one(rune("\t\n\v\f\r"[i]))
	}
	switch c {
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
		return nil, false, p.fail(at, "a letter is missing after \\c")
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

// unicode parses the rest of \uXXXX, of a pair of surrogates, or of \u{X…}, after the u. at is the
// position of the backslash.
func (p *parser) unicode(at int) (s set, single bool, err error) {
	if p.take("{") {
		end := strings.IndexByte(p.src[p.at:], '}')
		if end < 0 {
			return nil, false, p.fail(at, "the escape has no end")
		}
		v, err := strconv.ParseUint(p.src[p.at:p.at+end], 16, 32)
		if err != nil || v > maxRune {
			return nil, false, p.fail(at, "the escape is not a code point")
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

// property parses the rest of \p{…}, after the p. at is the position of the backslash.
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

// longCategories maps the long names of general categories to the short ones.
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
	if name == "C" || name == "Other" { // it includes unassigned characters, which are in no table
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
