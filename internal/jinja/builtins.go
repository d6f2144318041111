// Copied from github.com/ardanlabs/jinja v1.5.0 and changed; README.md names the changes.

package jinja

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// cachedBuiltins is a read-only scope populated once with all built-in
// globals and filters. It is shared across every render — no code path
// writes to the builtins scope (only chained reads through parent
// links and lookupFilter), so a single shared instance is safe and
// avoids ~20 allocations per render.
var cachedBuiltins = func() *scope {
	s := newScope(nil)
	registerGlobals(s)
	registerFilters(s)
	return s
}()

// =============================================================================
// Global functions
// =============================================================================

func registerGlobals(s *scope) {
	s.set("namespace", newCallable("namespace", builtinNamespace))
	s.set("raise_exception", newCallable("raise_exception", builtinRaiseException))
	s.set("range", newCallable("range", builtinRange))
	s.set("joiner", newCallable("joiner", builtinJoiner))
	s.set("dict", newCallable("dict", builtinDict))
	s.set("cycler", newCallable("cycler", builtinCycler))
	s.set("strftime_now", newCallable("strftime_now", builtinStrftimeNow))
}

func builtinNamespace(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	d := m.dict()
	dict := d.AsDict()
	dict.namespace = true
	for k, v := range kwargs {
		m.set(dict, k, v)
	}
	return d, nil
}

func builtinRaiseException(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) == 0 {
		return Undefined(), fmt.Errorf("raise_exception: missing message")
	}
	return Undefined(), fmt.Errorf("%s", shown(m.text(args[0])))
}

func builtinRange(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	var start, stop, step int64
	switch len(args) {
	case 1:
		start = 0
		stop = m.toInt64(args[0])
		step = 1
	case 2:
		start = m.toInt64(args[0])
		stop = m.toInt64(args[1])
		step = 1
	case 3:
		start = m.toInt64(args[0])
		stop = m.toInt64(args[1])
		step = m.toInt64(args[2])
	default:
		return Undefined(), fmt.Errorf("range: expected 1-3 arguments, got %d", len(args))
	}

	if step == 0 {
		return Undefined(), fmt.Errorf("range: step must not be zero")
	}

	// The distance is unsigned: it may exceed the largest integer.
	var count uint64
	if step > 0 && start < stop {
		count = (uint64(stop)-uint64(start)-1)/uint64(step) + 1
	} else if step < 0 && start > stop {
		count = (uint64(start)-uint64(stop)-1)/-uint64(step) + 1
	}
	n := int(min(count, maxBytes))
	items := m.items(n)
	for i := range n {
		items = append(items, NewInt(start+int64(i)*step))
	}

	return NewList(items), nil
}

func builtinJoiner(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	sep := ""
	if len(args) > 0 {
		sep = m.text(args[0])
	}

	first := true
	return m.closure("joiner", func(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
		if first {
			first = false
			return NewString(""), nil
		}
		return NewString(sep), nil
	}), nil
}

func builtinDict(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	d := m.dict()
	dict := d.AsDict()
	for k, v := range kwargs {
		m.set(dict, k, v)
	}
	return d, nil
}

func builtinStrftimeNow(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	format := "%Y-%m-%d"
	if len(args) > 0 {
		format = m.text(args[0])
	}

	// Convert Python strftime format to Go time format.
	now := time.Now()
	m.step(8 + len(format)>>2)
	m.grow(times(len(format), 8))
	goFmt := strftimeToGo(format)
	return NewString(now.Format(goFmt)), nil
}

// strftimeToGo converts a Python strftime format string to a Go time format.
func strftimeToGo(format string) string {
	return strftime.Replace(format)
}

var strftime = strings.NewReplacer(
	"%Y", "2006",
	"%m", "01",
	"%d", "02",
	"%H", "15",
	"%M", "04",
	"%S", "05",
	"%B", "January",
	"%b", "Jan",
	"%A", "Monday",
	"%a", "Mon",
	"%p", "PM",
	"%I", "03",
	"%Z", "MST",
	"%%", "%",
)

func builtinCycler(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) == 0 {
		return Undefined(), fmt.Errorf("cycler: expected at least one argument")
	}

	idx := 0
	items := append(m.copies(len(args)), args...)

	d := m.dict()
	dict := d.AsDict()
	dict.Set("current", items[0])
	dict.Set("next", m.closure("cycler.next", func(m *meter, a []Value, kw map[string]Value) (Value, error) {
		v := items[idx]
		idx = (idx + 1) % len(items)
		dict.Set("current", items[idx])
		return v, nil
	}))
	dict.Set("reset", m.closure("cycler.reset", func(m *meter, a []Value, kw map[string]Value) (Value, error) {
		idx = 0
		dict.Set("current", items[0])
		return None(), nil
	}))

	return d, nil
}

// =============================================================================
// Filter functions
// =============================================================================

func registerFilters(s *scope) {
	filters := map[string]builtin{
		"tojson":     filterTojson,
		"from_json":  filterFromjson,
		"fromjson":   filterFromjson,
		"items":      filterItems,
		"join":       filterJoin,
		"default":    filterDefault,
		"d":          filterDefault,
		"trim":       filterTrim,
		"lower":      filterLower,
		"upper":      filterUpper,
		"title":      filterTitle,
		"capitalize": filterCapitalize,
		"first":      filterFirst,
		"last":       filterLast,
		"length":     filterLength,
		"count":      filterLength,
		"reverse":    filterReverse,
		"sort":       filterSort,
		"unique":     filterUnique,
		"list":       filterList,
		"int":        filterInt,
		"float":      filterFloatConv,
		"string":     filterString,
		"safe":       filterSafe,
		"replace":    filterReplace,
		"round":      filterRound,
		"abs":        filterAbs,
		"map":        filterMap,
		"select":     filterSelect,
		"reject":     filterReject,
		"selectattr": filterSelectattr,
		"rejectattr": filterRejectattr,
		"indent":     filterIndent,
		"wordcount":  filterWordcount,
		"escape":     filterEscape,
		"e":          filterEscape,
		"dictsort":   filterDictsort,
		"max":        filterMax,
		"min":        filterMin,
		"sum":        filterSum,
		"batch":      filterBatch,
	}

	for name, fn := range filters {
		s.set("__filter_"+name, newCallable(name, fn))
	}
}

// lookupFilter retrieves a filter callable from the scope of builtins.
func lookupFilter(s *scope, name string) (Value, bool) {
	v, ok := s.vars["__filter_"+name]
	return v, ok
}

// =============================================================================
// Test evaluation
// =============================================================================

func (m *meter) evalTest(name string, val Value, args []Value) (bool, error) {
	switch name {
	case "defined":
		return !val.IsUndefined(), nil
	case "undefined":
		return val.IsUndefined(), nil
	case "none":
		return val.IsNone(), nil
	case "boolean":
		return val.IsBool(), nil
	case "integer":
		return val.IsInt(), nil
	case "float":
		return val.IsFloat(), nil
	case "number":
		return val.IsNumber(), nil
	case "string":
		return val.IsString(), nil
	case "mapping":
		return val.IsDict(), nil
	case "iterable":
		return val.IsList() || val.IsDict() || val.IsString() || val.IsUndefined(), nil
	case "sequence":
		return val.IsList(), nil
	case "callable":
		return val.IsCallable(), nil
	case "true":
		return val.IsBool() && val.AsBool(), nil
	case "false":
		return val.IsBool() && !val.AsBool(), nil
	case "eq", "equalto", "==":
		if len(args) < 1 {
			return false, fmt.Errorf("test %q requires an argument", name)
		}
		return m.equals(val, args[0], 1), nil
	case "ne", "!=":
		if len(args) < 1 {
			return false, fmt.Errorf("test %q requires an argument", name)
		}
		return !m.equals(val, args[0], 1), nil
	case "gt", "greaterthan", ">":
		if len(args) < 1 {
			return false, nil
		}
		return m.compareValues(val, args[0]) > 0, nil
	case "ge", ">=":
		if len(args) < 1 {
			return false, nil
		}
		return m.compareValues(val, args[0]) >= 0, nil
	case "lt", "lessthan", "<":
		if len(args) < 1 {
			return false, nil
		}
		return m.compareValues(val, args[0]) < 0, nil
	case "le", "<=":
		if len(args) < 1 {
			return false, nil
		}
		return m.compareValues(val, args[0]) <= 0, nil
	case "in":
		if len(args) < 1 {
			return false, nil
		}
		return m.containsValue(args[0], val), nil
	case "odd":
		if val.IsInt() {
			return val.AsInt()%2 != 0, nil
		}
		return false, nil
	case "even":
		if val.IsInt() {
			return val.AsInt()%2 == 0, nil
		}
		return false, nil
	case "upper":
		if val.IsString() {
			s := val.AsString()
			return m.same(s, m.upper(s)), nil
		}
		return false, nil
	case "lower":
		if val.IsString() {
			s := val.AsString()
			return m.same(s, m.lower(s)), nil
		}
		return false, nil
	case "sameas":
		if len(args) < 1 {
			return false, nil
		}
		return m.equals(val, args[0], 1), nil
	}

	return false, fmt.Errorf("unknown test %q", shown(name))
}

// =============================================================================
// Filter implementations
// =============================================================================

// measureGo counts the bytes that decoding a JSON text will take, estimated from its punctuation.
// It counts two copies of the value, because the decoder makes its own copy.
func (m *meter) measureGo(text string) {
	m.walk(len(text))
	m.step(4)
	size := 3 * len(text)
	for i := range len(text) {
		switch text[i] {
		case '{':
			size += 2 * dictBytes
		case '[':
			size += 2 * listBytes
		case ',':
			size += 2 * itemBytes
		case ':':
			size += 2 * entryBytes
		case '"':
			m.step(1)
		}
	}
	m.step(size >> 6)
	m.grow(size)
}

func filterItems(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) == 0 || args[0].IsUndefined() {
		return NewList(nil), nil
	}

	// Python jinja2's |items filter raises TemplateError when applied to
	// anything that isn't a mapping, and several chat templates rely on
	// that error to bail out of an unsupported branch (e.g. when a
	// tool_call's `arguments` is a JSON string instead of an object).
	// Silently returning an empty list here let those templates render
	// invalid prompts. The wording deliberately matches Python jinja2 so
	// templates that surface this string get an identical message.
	if !args[0].IsDict() {
		//lint:ignore ST1005 message text mirrors Python jinja2 verbatim
		return Undefined(), fmt.Errorf("Can only get item pairs from a mapping.")
	}

	d := args[0].AsDict()
	return m.pairs(d, d.Keys), nil
}

func filterJoin(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) == 0 {
		return NewString(""), nil
	}

	if !args[0].IsList() {
		return NewString(m.text(args[0])), nil
	}

	sep := ""
	if len(args) > 1 {
		sep = m.text(args[1])
	}
	if s, ok := kwargs["d"]; ok {
		sep = m.text(s)
	}

	attr := ""
	if a, ok := kwargs["attribute"]; ok {
		attr = m.text(a)
	}

	list := args[0].AsList()
	m.grow(times(list.Len(), 16))
	parts := make([]string, list.Len())
	size := times(max(list.Len()-1, 0), len(sep))
	for i, item := range list.Items {
		m.step(1)
		if attr != "" && item.IsDict() {
			v, ok := m.get(item.AsDict(), attr)
			if ok {
				item = v
			}
		}
		parts[i] = m.text(item)
		size += len(parts[i])
	}
	m.grow(size)

	return NewString(strings.Join(parts, sep)), nil
}

func filterDefault(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) == 0 {
		return Undefined(), nil
	}

	val := args[0]
	defVal := NewString("")
	if len(args) > 1 {
		defVal = args[1]
	}

	boolean := false
	if b, ok := kwargs["boolean"]; ok && b.IsBool() {
		boolean = b.AsBool()
	}

	if val.IsUndefined() {
		return defVal, nil
	}

	if boolean && !val.IsTruthy() {
		return defVal, nil
	}

	return val, nil
}

func filterTrim(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) == 0 {
		return NewString(""), nil
	}
	s := m.text(args[0])
	if len(args) > 1 {
		return m.trimmed(s, strings.TrimFunc(s, m.inSet(m.text(args[1])))), nil
	}
	return m.trimmed(s, strings.TrimSpace(s)), nil
}

func filterLower(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) == 0 {
		return NewString(""), nil
	}
	return NewString(m.lower(m.text(args[0]))), nil
}

func filterUpper(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) == 0 {
		return NewString(""), nil
	}
	return NewString(m.upper(m.text(args[0]))), nil
}

func filterTitle(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) == 0 {
		return NewString(""), nil
	}

	s := m.text(args[0])
	runes := m.runes(s)
	m.step(len(runes) >> 3)
	inWord := false
	for i, r := range runes {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			if !inWord {
				runes[i] = unicode.ToUpper(r)
				inWord = true
			} else {
				runes[i] = unicode.ToLower(r)
			}
		} else {
			inWord = false
		}
	}
	return m.fromRunes(runes), nil
}

func filterCapitalize(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) == 0 {
		return NewString(""), nil
	}
	s := m.text(args[0])
	if len(s) == 0 {
		return NewString(""), nil
	}
	runes := m.runes(s)
	m.step(len(runes) >> 3)
	runes[0] = unicode.ToUpper(runes[0])
	for i := 1; i < len(runes); i++ {
		runes[i] = unicode.ToLower(runes[i])
	}
	return m.fromRunes(runes), nil
}

func filterFirst(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) == 0 || !args[0].IsList() {
		return Undefined(), nil
	}
	l := args[0].AsList()
	if l.Len() == 0 {
		return Undefined(), nil
	}
	return l.Get(0), nil
}

func filterLast(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) == 0 || !args[0].IsList() {
		return Undefined(), nil
	}
	l := args[0].AsList()
	if l.Len() == 0 {
		return Undefined(), nil
	}
	return l.Get(l.Len() - 1), nil
}

func filterLength(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) == 0 {
		return NewInt(0), nil
	}

	v := args[0]
	switch {
	case v.IsList():
		return NewInt(int64(v.AsList().Len())), nil
	case v.IsDict():
		return NewInt(int64(v.AsDict().Len())), nil
	case v.IsString():
		m.walk(len(v.AsString()))
		return NewInt(int64(utf8.RuneCountInString(v.AsString()))), nil
	}

	return NewInt(0), nil
}

func filterReverse(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) == 0 {
		return NewList(nil), nil
	}

	v := args[0]
	if v.IsString() {
		runes := m.runes(v.AsString())
		for i, j := 0, len(runes)-1; i < j; i, j = i+1, j-1 {
			runes[i], runes[j] = runes[j], runes[i]
		}
		return m.fromRunes(runes), nil
	}

	if v.IsList() {
		src := v.AsList().Items
		items := m.copies(len(src))[:len(src)]
		for i, item := range src {
			items[len(src)-1-i] = item
		}
		return NewList(items), nil
	}

	return v, nil
}

func filterSort(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) == 0 || !args[0].IsList() {
		return NewList(nil), nil
	}

	src := args[0].AsList().Items
	items := append(m.copies(len(src)), src...)

	reverse := false
	if r, ok := kwargs["reverse"]; ok && r.IsBool() {
		reverse = r.AsBool()
	}

	sort.SliceStable(items, func(i, j int) bool {
		m.sort()
		cmp := m.compareValues(items[i], items[j])
		if reverse {
			return cmp > 0
		}
		return cmp < 0
	})

	return NewList(items), nil
}

func filterUnique(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) == 0 || !args[0].IsList() {
		return NewList(nil), nil
	}

	src := args[0].AsList().Items
	seen := make(map[string]bool)
	items := m.items(0)
	for _, item := range src {
		key := m.text(item)
		m.step(2)
		m.scan(len(key))
		if !seen[key] {
			m.grow(itemBytes + entryBytes)
			seen[key] = true
			items = append(items, item)
		}
	}

	return NewList(items), nil
}

func filterList(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) == 0 {
		return NewList(nil), nil
	}

	v := args[0]
	if v.IsList() {
		return v, nil
	}
	if v.IsString() {
		return NewList(m.letters(v.AsString())), nil
	}

	return NewList([]Value{v}), nil
}

func filterInt(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) == 0 {
		return NewInt(0), nil
	}
	return NewInt(m.toInt64(args[0])), nil
}

func filterFloatConv(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) == 0 {
		return NewFloat(0), nil
	}
	return NewFloat(m.toFloat64(args[0])), nil
}

func filterString(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) == 0 {
		return NewString(""), nil
	}
	return NewString(m.text(args[0])), nil
}

func filterSafe(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) == 0 {
		return NewString(""), nil
	}
	return args[0], nil
}

func filterReplace(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) < 3 {
		return NewString(""), fmt.Errorf("replace: expected at least 3 arguments")
	}
	s := m.text(args[0])
	old := m.text(args[1])
	newStr := m.text(args[2])

	count := -1
	if len(args) > 3 {
		count = int(m.toInt64(args[3]))
	}
	if c, ok := kwargs["count"]; ok {
		count = int(m.toInt64(c))
	}

	return NewString(m.replace(s, old, newStr, count)), nil
}

func filterRound(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) == 0 {
		return NewFloat(0), nil
	}

	precision := int64(0)
	if len(args) > 1 {
		precision = m.toInt64(args[1])
	}
	if p, ok := kwargs["precision"]; ok {
		precision = m.toInt64(p)
	}

	f := m.toFloat64(args[0])
	pow := math.Pow(10, float64(precision))
	rounded := math.Round(f*pow) / pow

	if precision == 0 {
		return NewFloat(rounded), nil
	}
	return NewFloat(rounded), nil
}

func filterAbs(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) == 0 {
		return NewInt(0), nil
	}

	v := args[0]
	if v.IsInt() {
		n := v.AsInt()
		if n < 0 {
			n = -n
		}
		return NewInt(n), nil
	}
	if v.IsFloat() {
		return NewFloat(math.Abs(v.AsFloat())), nil
	}

	return NewInt(0), nil
}

func filterMap(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) == 0 || !args[0].IsList() {
		return NewList(nil), nil
	}

	list := args[0].AsList()

	// map(attribute="name") form
	if attr, ok := kwargs["attribute"]; ok {
		attrName := m.text(attr)
		defVal := Undefined()
		if d, ok := kwargs["default"]; ok {
			defVal = d
		}

		items := m.copies(list.Len())[:list.Len()]
		for i, item := range list.Items {
			m.step(1)
			if item.IsDict() {
				v, found := m.get(item.AsDict(), attrName)
				if found {
					items[i] = v
				} else {
					items[i] = defVal
				}
			} else {
				items[i] = defVal
			}
		}
		return NewList(items), nil
	}

	return NewList(list.Items), nil
}

func filterSelect(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) == 0 || !args[0].IsList() {
		return NewList(nil), nil
	}

	list := args[0].AsList()
	testName := ""
	if len(args) > 1 && args[1].IsString() {
		testName = args[1].AsString()
	}

	testArgs := args[min(2, len(args)):]

	items := m.copies(list.Len())
	for _, item := range list.Items {
		m.step(1)
		if testName == "" {
			if item.IsTruthy() {
				items = append(items, item)
			}
		} else {
			result, err := m.evalTest(testName, item, testArgs)
			if err != nil {
				return Undefined(), err
			}
			if result {
				items = append(items, item)
			}
		}
	}

	return NewList(items), nil
}

func filterReject(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) == 0 || !args[0].IsList() {
		return NewList(nil), nil
	}

	list := args[0].AsList()
	testName := ""
	if len(args) > 1 && args[1].IsString() {
		testName = args[1].AsString()
	}

	testArgs := args[min(2, len(args)):]

	items := m.copies(list.Len())
	for _, item := range list.Items {
		m.step(1)
		if testName == "" {
			if !item.IsTruthy() {
				items = append(items, item)
			}
		} else {
			result, err := m.evalTest(testName, item, testArgs)
			if err != nil {
				return Undefined(), err
			}
			if !result {
				items = append(items, item)
			}
		}
	}

	return NewList(items), nil
}

func filterSelectattr(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) < 2 || !args[0].IsList() {
		return NewList(nil), nil
	}

	list := args[0].AsList()
	attrName := m.text(args[1])
	testName := "truthy"
	if len(args) > 2 {
		testName = m.text(args[2])
	}

	testArgs := args[min(3, len(args)):]

	items := m.copies(list.Len())
	for _, item := range list.Items {
		m.step(1)
		attrVal := Undefined()
		if item.IsDict() {
			if v, ok := m.get(item.AsDict(), attrName); ok {
				attrVal = v
			}
		}

		if testName == "truthy" {
			if attrVal.IsTruthy() {
				items = append(items, item)
			}
		} else {
			result, err := m.evalTest(testName, attrVal, testArgs)
			if err != nil {
				return Undefined(), err
			}
			if result {
				items = append(items, item)
			}
		}
	}

	return NewList(items), nil
}

func filterRejectattr(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) < 2 || !args[0].IsList() {
		return NewList(nil), nil
	}

	list := args[0].AsList()
	attrName := m.text(args[1])
	testName := "truthy"
	if len(args) > 2 {
		testName = m.text(args[2])
	}

	testArgs := args[min(3, len(args)):]

	items := m.copies(list.Len())
	for _, item := range list.Items {
		m.step(1)
		attrVal := Undefined()
		if item.IsDict() {
			if v, ok := m.get(item.AsDict(), attrName); ok {
				attrVal = v
			}
		}

		if testName == "truthy" {
			if !attrVal.IsTruthy() {
				items = append(items, item)
			}
		} else {
			result, err := m.evalTest(testName, attrVal, testArgs)
			if err != nil {
				return Undefined(), err
			}
			if !result {
				items = append(items, item)
			}
		}
	}

	return NewList(items), nil
}

func filterIndent(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) == 0 {
		return NewString(""), nil
	}

	s := m.text(args[0])
	width := int64(4)
	if len(args) > 1 {
		width = m.toInt64(args[1])
	}
	if w, ok := kwargs["width"]; ok {
		width = m.toInt64(w)
	}

	indentFirst := false
	if len(args) > 2 {
		indentFirst = args[2].IsTruthy()
	}
	if f, ok := kwargs["first"]; ok {
		indentFirst = f.IsTruthy()
	}

	pad := m.repeat(" ", width)
	lines := m.split(s, "\n")
	m.grow(2 * (len(s) + times(len(lines), len(pad))))
	for i, line := range lines {
		if i == 0 && !indentFirst {
			continue
		}
		if line != "" {
			lines[i] = pad + line
		}
	}

	return NewString(strings.Join(lines, "\n")), nil
}

func filterWordcount(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) == 0 {
		return NewInt(0), nil
	}
	words := m.fields(m.text(args[0]))
	return NewInt(int64(len(words))), nil
}

func filterEscape(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) == 0 {
		return NewString(""), nil
	}
	s := m.text(args[0])
	return NewString(m.escape(s)), nil
}

func filterDictsort(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) == 0 || !args[0].IsDict() {
		return NewList(nil), nil
	}

	d := args[0].AsDict()
	reverse := false
	if r, ok := kwargs["reverse"]; ok && r.IsBool() {
		reverse = r.AsBool()
	}

	m.grow(times(len(d.Keys), 16))
	keys := slices.Clone(d.Keys)

	sort.SliceStable(keys, func(i, j int) bool {
		m.sort()
		m.scan(min(len(keys[i]), len(keys[j])))
		if reverse {
			return keys[i] > keys[j]
		}
		return keys[i] < keys[j]
	})

	return m.pairs(d, keys), nil
}

func filterMax(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) == 0 || !args[0].IsList() {
		return Undefined(), nil
	}

	list := args[0].AsList()
	if list.Len() == 0 {
		return Undefined(), nil
	}

	maxVal := list.Items[0]
	for _, item := range list.Items[1:] {
		if m.compareValues(item, maxVal) > 0 {
			maxVal = item
		}
	}

	return maxVal, nil
}

func filterMin(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) == 0 || !args[0].IsList() {
		return Undefined(), nil
	}

	list := args[0].AsList()
	if list.Len() == 0 {
		return Undefined(), nil
	}

	minVal := list.Items[0]
	for _, item := range list.Items[1:] {
		if m.compareValues(item, minVal) < 0 {
			minVal = item
		}
	}

	return minVal, nil
}

func filterSum(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) == 0 || !args[0].IsList() {
		return NewInt(0), nil
	}

	list := args[0].AsList()
	var sumF float64
	isFloat := false

	m.step(list.Len() >> 2)
	for _, item := range list.Items {
		if item.IsFloat() {
			isFloat = true
			sumF += item.AsFloat()
		} else if item.IsInt() {
			sumF += float64(item.AsInt())
		}
	}

	if isFloat {
		return NewFloat(sumF), nil
	}
	return NewInt(int64(sumF)), nil
}

func filterBatch(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
	if len(args) < 2 || !args[0].IsList() {
		return NewList(nil), nil
	}

	list := args[0].AsList()
	linecount := int(min(m.toInt64(args[1]), math.MaxInt32))
	if linecount <= 0 {
		return NewList(nil), nil
	}

	batches := m.items(0)
	for i := 0; i < list.Len(); i += linecount {
		end := min(i+linecount, list.Len())
		batch := append(m.copies(end-i), list.Items[i:end]...)
		m.step(1)
		m.grow(itemBytes)
		batches = append(batches, NewList(batch))
	}

	return NewList(batches), nil
}

// =============================================================================
// Helpers
// =============================================================================

func (m *meter) compareValues(a, b Value) int {
	m.step(1)
	af := m.toFloat64(a)
	bf := m.toFloat64(b)
	if af < bf {
		return -1
	}
	if af > bf {
		return 1
	}
	if a.IsString() && b.IsString() {
		m.scan(min(len(a.AsString()), len(b.AsString())))
		return strings.Compare(a.AsString(), b.AsString())
	}
	return 0
}

func (m *meter) containsValue(container, item Value) bool {
	if container.IsList() {
		for _, v := range container.AsList().Items {
			if m.equals(v, item, 1) {
				return true
			}
		}
		return false
	}
	if container.IsDict() && item.IsString() {
		_, ok := m.get(container.AsDict(), item.AsString())
		return ok
	}
	if container.IsString() && item.IsString() {
		m.search(container.AsString(), item.AsString())
		return strings.Contains(container.AsString(), item.AsString())
	}
	return false
}
