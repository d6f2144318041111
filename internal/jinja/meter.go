// Package jinja renders the chat templates of models. Templates come from strangers, so each
// rendering has bounds on its steps, on the bytes that it allocates and on its depth, which the
// interpreter counts itself. A template cannot reach the meter, because it has no name.
//
// It is a copy of github.com/ardanlabs/jinja with these bounds added; README.md names the changes.
// It knows no models, and reads the clock only in strftime_now. Otherwise the same template and the
// same conversation give the same text or the same error on every machine.
package jinja

import (
	"fmt"
	"math"
	"runtime"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of one rendering. With most templates, a conversation of a thousand messages takes a tenth
// of them at most. A template that searches the whole conversation for each message exceeds the
// steps with a thousand messages.
const (
	maxSteps  = 5_000_000 // a step is a node of the template, or a unit of a longer operation: at most 0.4 µs of CPU
	maxBytes  = 64 << 20  // of all strings, lists and dicts that are allocated, including garbage
	maxDepth  = 200       // of nested calls, of nested values and scopes, and of nesting in the source of a template
	maxYields = 200       // a yield lets other goroutines run; there is one every maxSteps/maxYields steps
	maxFrames = 5_000     // of nested expressions and statements, across all calls: 15 MiB of Go's stack
)

// Bounds of the source of a template.
const (
	maxSource = 1 << 20 // bytes
	maxChain  = 1_000   // operators, filters or subscripts in a row; they nest to the left
	maxName   = 256     // bytes
	maxShown  = 256     // bytes of a value in an error
)

// Bytes that a value takes in addition to its text. The numbers are those of Go 1.26, rounded up.
const (
	valueBytes   = 24  // an item of a list
	itemBytes    = 40  // an item with a number or the header of a string
	listBytes    = 64  // an empty list
	dictBytes    = 448 // a dict of up to eight entries
	entryBytes   = 64  // of a dict
	scopeBytes   = 256
	closureBytes = 96
)

// A bound is the error of a template that has exceeded a bound. It is raised as a panic, so no part
// of the interpreter can continue after it.
type bound string

func (b bound) Error() string { return string(b) }

// catch turns a bound that was raised as a panic into an error.
func catch(err *error) {
	switch r := recover().(type) { //nolint:revive // its callers defer it
	case nil:
	case bound:
		*err = r
	default:
		panic(r)
	}
}

func tooDeep() bound { return bound(fmt.Sprintf("it nests deeper than %d levels", maxDepth)) }

// A meter counts the work of one rendering, and ends the rendering at a bound.
type meter struct {
	steps  int
	most   int // steps
	yield  int // the number of steps at which the next yield is due
	bytes  int
	calls  int // nested calls of macros
	frames int // nested nodes
}

// step counts n steps, and lets other goroutines run when that is due.
func (m *meter) step(n int) {
	m.steps += n
	if m.steps >= m.yield {
		m.rest()
	}
}

func (m *meter) rest() {
	if m.steps > m.most {
		panic(bound(fmt.Sprintf("it takes more than %d steps", m.most)))
	}
	m.yield = min(m.steps+maxSteps/maxYields, m.most+1)
	runtime.Gosched()
}

// scan counts the steps of a pass over n bytes, such as a comparison or a search.
func (m *meter) scan(n int) { m.step(n >> 6) }

// walk counts the steps of a pass over n bytes that looks at each character.
func (m *meter) walk(n int) { m.step(n >> 4) }

// grow counts n bytes that are about to be allocated.
func (m *meter) grow(n int) {
	if m.bytes += n; n < 0 || m.bytes > maxBytes {
		panic(bound(fmt.Sprintf("it makes more than %d bytes", maxBytes)))
	}
}

// times returns n*size, or a number beyond all bounds if the product is too large.
func times(n, size int) int {
	if n > 0 && size > math.MaxInt32/n {
		return math.MaxInt32
	}
	return max(n, 0) * size
}

// call counts a call that is about to begin. At the end of the call, the caller must decrement
// m.calls.
func (m *meter) call() {
	if m.calls++; m.calls > maxDepth {
		panic(tooDeep())
	}
	m.step(4)
}

// enter counts a node that is about to be evaluated. Afterwards the caller must decrement m.frames.
func (m *meter) enter() {
	if m.frames++; m.frames > maxFrames {
		panic(tooDeep())
	}
	m.step(1)
}

// level fails if values are nested too deep. A value that contains itself would be nested without
// end.
func (m *meter) level(depth int) {
	if depth > maxDepth {
		panic(tooDeep())
	}
	m.step(1)
}

// items returns an empty list with room for n new items.
func (m *meter) items(n int) []Value {
	m.grow(times(n, itemBytes) + listBytes)
	m.step(n >> 2)
	return make([]Value, 0, n)
}

// copies returns an empty list with room for n items of another list.
func (m *meter) copies(n int) []Value {
	m.grow(times(n, valueBytes) + listBytes)
	m.step(n >> 2)
	return make([]Value, 0, n)
}

// pairs returns a list of the entries of a dict, in the order of keys.
func (m *meter) pairs(d *Dict, keys []string) Value {
	items := m.items(len(keys))
	for _, key := range keys {
		pair := append(m.items(2), NewString(key), d.Data[key])
		items = append(items, NewList(pair))
	}
	return NewList(items)
}

// strings returns a list of strings.
func (m *meter) strings(texts []string) Value {
	items := m.items(len(texts))
	for _, text := range texts {
		items = append(items, NewString(text))
	}
	return NewList(items)
}

// letters returns a list of the characters of s.
func (m *meter) letters(s string) []Value {
	m.walk(len(s))
	items := m.items(utf8.RuneCountInString(s))
	for _, r := range s {
		items = append(items, NewString(string(r)))
	}
	return items
}

// dict returns an empty dict.
func (m *meter) dict() Value {
	m.grow(dictBytes)
	return NewDict()
}

// set sets an entry of a dict.
func (m *meter) set(d *Dict, key string, v Value) {
	m.scan(len(key))
	if !d.Has(key) {
		m.grow(entryBytes)
	}
	d.Set(key, v)
}

// get returns an entry of a dict.
func (m *meter) get(d *Dict, key string) (Value, bool) {
	m.scan(len(key))
	return d.Get(key)
}

// append appends to a list.
func (m *meter) append(l *List, v Value) {
	m.grow(itemBytes)
	l.Append(v)
}

// closure returns a callable that has state.
func (m *meter) closure(name string, fn builtin) Value {
	m.grow(closureBytes)
	return newCallable(name, fn)
}

// scope returns a scope inside another one.
func (m *meter) scope(parent *scope) *scope {
	m.grow(scopeBytes)
	s := newScope(parent)
	m.level(s.depth)
	return s
}

// lookup returns the value of a name.
func (m *meter) lookup(s *scope, name string) (Value, bool) {
	n := 0
	for ; s != nil; s = s.parent {
		if v, ok := s.vars[name]; ok {
			m.step(n >> 3)
			return v, true
		}
		n++
	}
	m.step(n >> 3)
	return Undefined(), false
}

// bind sets the value of a name in a scope.
func (m *meter) bind(s *scope, name string, v Value) {
	if _, ok := s.vars[name]; !ok {
		m.grow(entryBytes)
	}
	s.set(name, v)
}

// arguments counts n names or values that are passed to a call.
func (m *meter) arguments(n int) {
	m.step(n)
	m.grow(times(n, entryBytes))
}

// search counts the steps of a search for a text in s. Go searches for a long text by hashes, and a
// template can choose texts whose hashes are all equal.
func (m *meter) search(s, text string) {
	m.walk(len(s))
	if n := len(text) >> 6; n > 0 {
		m.step(times(n, len(s)>>6))
	}
}

// runes returns the characters of s.
func (m *meter) runes(s string) []rune {
	m.walk(len(s))
	m.grow(times(len(s), 4))
	return []rune(s)
}

// fromRunes returns a string that consists of the characters.
func (m *meter) fromRunes(runes []rune) Value {
	m.step(len(runes) >> 4)
	n := 0
	for _, r := range runes {
		n += max(utf8.RuneLen(r), 1)
	}
	m.grow(n)
	return NewString(string(runes))
}

// mapped counts the work of mapping the characters of s to others, and returns s. Text that is not
// ASCII may grow by half; text that is not UTF-8 may grow threefold.
func (m *meter) mapped(s string) string {
	m.walk(len(s))
	if isASCII(s) {
		m.grow(len(s))
	} else {
		m.step(len(s) >> 3)
		m.grow(times(len(s), 3))
	}
	return s
}

func (m *meter) upper(s string) string { return strings.ToUpper(m.mapped(s)) }

func (m *meter) lower(s string) string { return strings.ToLower(m.mapped(s)) }

// concat returns a and b as one string.
func (m *meter) concat(a, b string) string {
	if len(a) > 0 && len(b) > 0 {
		m.grow(len(a) + len(b))
	}
	return a + b
}

// repeat returns n copies of s.
func (m *meter) repeat(s string, n int64) string {
	if n <= 0 || s == "" {
		return ""
	}
	m.grow(times(int(min(n, math.MaxInt32)), len(s)))
	return strings.Repeat(s, int(n))
}

// replace is strings.Replace, and counts its work.
func (m *meter) replace(s, old, with string, count int) string {
	m.search(s, old)
	n := strings.Count(s, old)
	if count >= 0 {
		n = min(n, count)
	}
	if n > 0 {
		m.step(n >> 2)
		m.grow(len(s) + times(n, max(len(with)-len(old), 0)))
	}
	return strings.Replace(s, old, with, count)
}

// escape returns s escaped for HTML.
func (m *meter) escape(s string) string {
	m.walk(len(s))
	n := 0
	for i := range len(s) {
		switch s[i] {
		case '&', '<', '>', '"', '\'':
			n++
		}
	}
	if n == 0 {
		return s
	}
	m.step(n >> 2)
	m.grow(len(s) + times(n, 5))
	return escaper.Replace(s)
}

var escaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&#39;")

// split is strings.Split, and counts its work.
func (m *meter) split(s, sep string) []string {
	m.search(s, sep)
	var n int
	if sep == "" {
		n = utf8.RuneCountInString(s)
	} else {
		n = strings.Count(s, sep) + 1
	}
	m.step(n >> 2)
	m.grow(times(n, 16))
	return strings.Split(s, sep)
}

// fields is strings.Fields, and counts its work.
func (m *meter) fields(s string) []string {
	m.walk(len(s))
	n := 0
	for range strings.FieldsSeq(s) {
		n++
	}
	m.step(n >> 2)
	m.grow(times(n, 16))
	return strings.Fields(s)
}

// inSet returns a function that reports whether a character is in set. The cost of a call does not
// depend on the size of the set.
func (m *meter) inSet(set string) func(rune) bool {
	m.walk(len(set))
	if len(set) <= 16 {
		return func(r rune) bool { m.step(1); return strings.ContainsRune(set, r) }
	}
	m.grow(times(len(set), 16))
	m.step(len(set))
	all := make(map[rune]struct{})
	for _, r := range set {
		all[r] = struct{}{}
	}
	return func(r rune) bool { m.step(1); _, ok := all[r]; return ok }
}

// trimmed counts the work of trimming s, and returns the result as a value.
func (m *meter) trimmed(s, trimmed string) Value {
	m.step((len(s) - len(trimmed)) >> 2)
	return NewString(trimmed)
}

// sort counts the work of one comparison in a sort, including the move of values.
func (m *meter) sort() { m.step(2) }

// text returns a value as {{ }} prints it. Unlike repr, it does not put quotes around a string.
func (m *meter) text(v Value) string {
	switch v.kind {
	case KindString:
		return v.AsString()
	case KindBool:
		if v.AsBool() {
			return "True"
		}
		return "False"
	case KindInt:
		return strconv.FormatInt(v.AsInt(), 10)
	case KindFloat:
		m.step(1)
		return pythonFloat(v.AsFloat())
	case KindNone:
		return "None"
	case KindList, KindDict:
		var b strings.Builder
		m.repr(&b, v, 1)
		return b.String()
	default:
		return ""
	}
}

// write appends text to b, and counts its bytes.
func (m *meter) write(b *strings.Builder, text string) {
	m.grow(len(text))
	b.WriteString(text)
}

// repr writes a value as Python's repr does.
func (m *meter) repr(b *strings.Builder, v Value, depth int) {
	m.level(depth)
	switch v.kind {
	case KindUndefined:
		m.write(b, "Undefined")
	case KindNone:
		m.write(b, "None")
	case KindString:
		m.write(b, Repr(v.AsString()))
	case KindList:
		m.write(b, "[")
		for i, item := range v.AsList().Items {
			if i > 0 {
				m.write(b, ", ")
			}
			m.repr(b, item, depth+1)
		}
		m.write(b, "]")
	case KindDict:
		m.write(b, "{")
		d := v.AsDict()
		for i, key := range d.Keys {
			if i > 0 {
				m.write(b, ", ")
			}
			m.write(b, Repr(key))
			m.write(b, ": ")
			value, _ := m.get(d, key)
			m.repr(b, value, depth+1)
		}
		m.write(b, "}")
	case KindCallable:
		m.write(b, "<callable "+v.AsCallable().Name+">")
	default:
		m.write(b, m.text(v))
	}
}

// shown returns the beginning of a text, for use in an error.
func shown(text string) string {
	if len(text) <= maxShown {
		return text
	}
	return strings.ToValidUTF8(text[:maxShown], "") + "…"
}

// equals reports whether a and b hold the same value.
func (m *meter) equals(a, b Value, depth int) bool {
	m.level(depth)
	if a.kind != b.kind {
		return false
	}
	switch a.kind {
	case KindUndefined, KindNone:
		return true
	case KindBool:
		return a.AsBool() == b.AsBool()
	case KindInt:
		return a.AsInt() == b.AsInt()
	case KindFloat:
		return a.AsFloat() == b.AsFloat()
	case KindString:
		return m.same(a.AsString(), b.AsString())
	case KindList:
		x, y := a.AsList().Items, b.AsList().Items
		if len(x) != len(y) {
			return false
		}
		for i := range x {
			if !m.equals(x[i], y[i], depth+1) {
				return false
			}
		}
		return true
	case KindDict:
		x, y := a.AsDict(), b.AsDict()
		if x.Len() != y.Len() {
			return false
		}
		for _, key := range x.Keys {
			v, ok := m.get(y, key)
			if !ok || !m.equals(x.Data[key], v, depth+1) {
				return false
			}
		}
		return true
	default:
		return false
	}
}

// same reports whether two strings are equal.
func (m *meter) same(a, b string) bool {
	if len(a) == len(b) {
		m.scan(len(a))
	}
	return a == b
}

// number returns the number at the beginning of s, as fmt.Sscanf reads it with a verb for integers
// or floating-point numbers. characters holds all characters that such numbers may contain.
func (m *meter) number(s, characters string) string {
	m.step(1)
	space := 0
	for i, r := range s {
		if r == '\n' || !unicode.IsSpace(r) {
			space = i
			break
		}
		space = i + utf8.RuneLen(r)
	}
	m.step(space >> 2)
	s = s[space:]
	end := 0
	for end < len(s) && strings.IndexByte(characters, s[end]) >= 0 {
		end++
	}
	if end > 0 {
		m.step(4 + end>>2)
	}
	return s[:end]
}

func (m *meter) toInt64(v Value) int64 {
	switch v.kind {
	case KindInt:
		return v.AsInt()
	case KindFloat:
		return int64(v.AsFloat())
	case KindBool:
		if v.AsBool() {
			return 1
		}
	case KindString:
		var n int64
		if s := m.number(v.AsString(), "+-0123456789"); s != "" {
			_, _ = fmt.Sscanf(s, "%d", &n) // no number: 0
		}
		return n
	default:
	}
	return 0
}

func (m *meter) toFloat64(v Value) float64 {
	switch v.kind {
	case KindFloat:
		return v.AsFloat()
	case KindInt:
		return float64(v.AsInt())
	case KindBool:
		if v.AsBool() {
			return 1
		}
	case KindString:
		var f float64
		if s := m.number(v.AsString(), "+-._0123456789abcdefABCDEFxXpPiInN"); s != "" {
			_, _ = fmt.Sscanf(s, "%f", &f) // no number: 0
		}
		return f
	default:
	}
	return 0
}
