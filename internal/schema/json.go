package schema

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth bounds the nesting of a schema.
const maxDepth = 512

// A SyntaxError means that the source is not valid JSON, or is JSON but not a schema.
type SyntaxError struct {
	At      int // byte offset
	Problem string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("byte %d: %s", e.At+1, e.Problem) }

type jsonKind uint8

const (
	jsonNull jsonKind = iota
	jsonBool
	jsonNumber
	jsonString
	jsonArray
	jsonObject
)

// A value is a JSON value. It keeps the order of members, and numbers as they are written.
type value struct {
	kind   jsonKind
	truth  bool
	text   string // of a string, or of a number as written
	items  []*value
	names  []string // of the items of an object
	parent *value
	index  int // among the parent's items
}

// member returns a member of an object, or nil.
func (v *value) member(name string) *value {
	if v.kind != jsonObject {
		return nil
	}
	for i, n := range v.names {
		if n == name {
			return v.items[i]
		}
	}
	return nil
}

// toPointer escapes a member name for a JSON pointer, and fromPointer undoes that.
var (
	toPointer   = strings.NewReplacer("~", "~0", "/", "~1")
	fromPointer = strings.NewReplacer("~1", "/", "~0", "~")
)

// pointer returns the JSON pointer of the value.
func (v *value) pointer() string {
	if v.parent == nil {
		return ""
	}
	step := strconv.Itoa(v.index)
	if v.parent.kind == jsonObject {
		step = toPointer.Replace(v.parent.names[v.index])
	}
	return v.parent.pointer() + "/" + step
}

// A reader parses JSON strictly: no duplicate members, no invalid UTF-8, no lone surrogates.
type reader struct {
	src   string
	at    int
	depth int
}

func parseJSON(src []byte) (*value, error) {
	r := &reader{src: string(src)}
	if !utf8.ValidString(r.src) {
		return nil, r.fail("invalid UTF-8")
	}
	r.space()
	v, err := r.value()
	if err != nil {
		return nil, err
	}
	if r.space(); r.at < len(r.src) {
		return nil, r.fail("text after the end of the value")
	}
	return v, nil
}

func (r *reader) fail(problem string) error { return &SyntaxError{At: r.at, Problem: problem} }

func (r *reader) space() {
	for r.at < len(r.src) && strings.IndexByte(" \t\r\n", r.src[r.at]) >= 0 {
		r.at++
	}
}

func (r *reader) take(s string) bool {
	if strings.HasPrefix(r.src[r.at:], s) {
		r.at += len(s)
		return true
	}
	return false
}

func (r *reader) value() (*value, error) {
	if r.depth++; r.depth > maxDepth {
		return nil, r.fail(fmt.Sprintf("nested more than %d deep", maxDepth))
	}
	defer func() { r.depth-- }()
	switch {
	case r.take("null"):
		return &value{}, nil
	case r.take("true"):
		return &value{kind: jsonBool, truth: true}, nil
	case r.take("false"):
		return &value{kind: jsonBool}, nil
	case r.take("["):
		return r.list(&value{kind: jsonArray}, ']')
	case r.take("{"):
		return r.list(&value{kind: jsonObject}, '}')
	case r.at < len(r.src) && r.src[r.at] == '"':
		s, err := r.string()
		return &value{kind: jsonString, text: s}, err
	}
	return r.number()
}

// list parses the rest of an array or object into v, up to end.
func (r *reader) list(v *value, end byte) (*value, error) {
	seen := make(map[string]bool)
	if r.space(); r.take(string(end)) {
		return v, nil
	}
	for {
		r.space()
		if v.kind == jsonObject {
			at := r.at
			name, err := r.string()
			if err != nil {
				return nil, err
			}
			if seen[name] {
				r.at = at
				return nil, r.fail(fmt.Sprintf("the member %q occurs twice", name))
			}
			seen[name] = true
			v.names = append(v.names, name)
			if r.space(); !r.take(":") {
				return nil, r.fail("a colon is missing")
			}
			r.space()
		}
		item, err := r.value()
		if err != nil {
			return nil, err
		}
		item.parent, item.index = v, len(v.items)
		v.items = append(v.items, item)
		switch r.space(); {
		case r.take(","):
		case r.take(string(end)):
			return v, nil
		default:
			return nil, r.fail(fmt.Sprintf("a comma or %q is missing", end))
		}
	}
}

func (r *reader) number() (*value, error) {
	begin := r.at
	r.take("-")
	digits := func() bool {
		from := r.at
		for r.at < len(r.src) && r.src[r.at] >= '0' && r.src[r.at] <= '9' {
			r.at++
		}
		return r.at > from
	}
	if !r.take("0") && !digits() {
		r.at = begin
		return nil, r.fail("a value is missing")
	}
	if r.take(".") && !digits() {
		return nil, r.fail("a digit is missing")
	}
	if r.take("e") || r.take("E") {
		if !r.take("+") {
			r.take("-")
		}
		if !digits() {
			return nil, r.fail("a digit is missing")
		}
	}
	return &value{kind: jsonNumber, text: r.src[begin:r.at]}, nil
}

func (r *reader) string() (string, error) {
	if !r.take(`"`) {
		return "", r.fail("a string is missing")
	}
	var s strings.Builder
	for {
		if r.at == len(r.src) {
			return "", r.fail("the string has no end")
		}
		switch c := r.src[r.at]; {
		case c == '"':
			r.at++
			return s.String(), nil
		case c < 0x20:
			return "", r.fail("a control character in a string")
		case c == '\\':
			ch, err := r.escape()
			if err != nil {
				return "", err
			}
			s.WriteRune(ch)
		default:
			s.WriteByte(c)
			r.at++
		}
	}
}

func (r *reader) escape() (rune, error) {
	r.at++
	if r.at == len(r.src) {
		return 0, r.fail("the string has no end")
	}
	c := r.src[r.at]
	if i := strings.IndexByte(`"\/bfnrt`, c); i >= 0 {
		r.at++
		return rune("\"\\/\b\f\n\r\t"[i]), nil
	}
	ch, ok := r.hex()
	if ok && utf16.IsSurrogate(ch) {
		var low rune
		if low, ok = rune(0), r.take(`\`); ok {
			low, ok = r.hex()
		}
		ch = utf16.DecodeRune(ch, low)
		ok = ok && ch != utf8.RuneError
	}
	if !ok {
		return 0, r.fail("unknown escape: JSON has \\\", \\\\, \\/, \\b, \\f, \\n, \\r, \\t and \\u")
	}
	return ch, nil
}

// hex parses the part uXXXX of an escape. It reports false if that is not there.
func (r *reader) hex() (rune, bool) {
	if len(r.src)-r.at < 5 || r.src[r.at] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(r.src[r.at+1:r.at+5], 16, 16)
	r.at += 5
	return rune(n), err == nil
}
