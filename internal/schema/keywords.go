package schema

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/regex"
)

// build returns the set of a schema of the document: the intersection of its keywords, in the
// order in which they stand.
func (c *compiler) build(v *value) (*set, error) {
	if v.kind != jsonObject {
		return nil, &fault{origin{v, ""}, errors.New("a schema is an object, true or false")}
	}
	s := c.all()
	for i, name := range v.names {
		item := v.items[i]
		if c.refs.hides && v.member("$ref") != nil && name != "$ref" {
			continue
		}
		e, err := c.keyword(v, name, item)
		if err == nil && e != everything {
			var q *set
			if q, err = c.eval(e); err == nil {
				s, err = c.intersect(s, q)
			}
		}
		if err == nil {
			continue
		}
		if f, ok := errors.AsType[*fault](err); ok && f.at != nil {
			return nil, f
		}
		return nil, &fault{origin{item, name}, err}
	}
	return s, nil
}

// errUnsupported refuses a keyword of the standard.
var errUnsupported = errors.New("this keyword cannot be enforced")

// wrong is the error of a keyword whose value is none of its values.
func wrong(want string) error { return errors.New("its value must be " + want) }

// first reports whether a keyword is the first of its group in a schema.
func first(v *value, name string, group ...string) bool {
	for _, n := range v.names {
		if slices.Contains(group, n) {
			return n == name
		}
	}
	return false
}

// keyword returns the values that one keyword takes.
func (c *compiler) keyword(v *value, name string, item *value) (expr, error) {
	switch name {
	case "type", "const", "enum":
		return c.literalKeyword(name, item)
	case "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf":
		return c.numberKeyword(v, name, item)
	case "minLength", "maxLength", "pattern", "format":
		return c.stringKeyword(name, item)
	case "prefixItems", "items", "additionalItems":
		if !first(v, name, "prefixItems", "items", "additionalItems") {
			return everything, nil
		}
		return c.items(v)
	case "minItems", "maxItems", "uniqueItems", "contains", "minContains", "maxContains":
		return c.arrayKeyword(v, name, item)
	case "properties", "patternProperties", "additionalProperties":
		if !first(v, name, "properties", "patternProperties", "additionalProperties") {
			return everything, nil
		}
		return c.members(v)
	case "required", "minProperties", "maxProperties", "propertyNames":
		return c.objectKeyword(name, item)
	case "dependentRequired", "dependentSchemas", "dependencies":
		return c.dependent(name, item)
	case "allOf", "anyOf", "oneOf":
		return c.combination(name, item)
	case "not":
		return c.not(c.schema(item), &origin{item, name}), nil
	case "if":
		return c.conditional(v, item), nil
	case "$ref":
		target, err := c.refs.resolve(item)
		if err != nil {
			return nothing, err
		}
		return c.schema(target), nil
	case "unevaluatedItems", "unevaluatedProperties", "$dynamicRef", "$recursiveRef":
		return nothing, errUnsupported
	case "then", "else", "$schema", "$id", "id", "$anchor", "$dynamicAnchor", "$recursiveAnchor", "$vocabulary", "$defs", "definitions",
		"$comment", "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly":
		return everything, nil
	}
	c.annotations = append(c.annotations, item.pointer())
	return everything, nil
}

// allBut returns the set of all values, but for a change.
func (c *compiler) allBut(change func(s *set)) expr {
	s := c.all()
	change(s)
	return c.of(s)
}

func (c *compiler) literalKeyword(name string, item *value) (expr, error) {
	switch name {
	case "type":
		names := []*value{item}
		if item.kind == jsonArray {
			names = item.items
		}
		s := c.none()
		for _, n := range names {
			if !c.addType(s, n.text) {
				return nothing, wrong("the name of a type, or a list of them")
			}
		}
		return c.of(s), nil
	case "const":
		return c.literals([]*value{item})
	}
	if item.kind != jsonArray {
		return nothing, wrong("a list")
	}
	return c.literals(item.items)
}

func (c *compiler) addType(s *set, name string) bool {
	switch name {
	case "null":
		s.null = true
	case "boolean":
		s.bools = [2]bool{true, true}
	case "integer":
		if s.nums != c.decimals {
			s.nums = c.integers
		}
	case "number":
		s.nums = c.decimals
	case "string":
		s.strs = []strs{anyStrs}
	case "array":
		s.arrs = []arrs{anyArrs}
	case "object":
		s.objs = []objs{anyObjs}
	default:
		return false
	}
	return true
}

// literals returns the given values.
func (c *compiler) literals(values []*value) (expr, error) {
	s := c.none()
	var words []string
	var numbers []*regex.DFA
	for _, v := range values {
		if !c.budget.Spend(0) {
			return nothing, c.budget.Err()
		}
		switch v.kind {
		case jsonNull:
			s.null = true
		case jsonBool:
			s.bools[0], s.bools[1] = s.bools[0] || !v.truth, s.bools[1] || v.truth
		case jsonNumber:
			d, err := regex.ParseDecimal(v.text)
			if err != nil {
				return nothing, err
			}
			numbers = append(numbers, regex.Equals(c.budget, d))
		case jsonString:
			words = append(words, v.text)
		case jsonArray:
			a := arrs{least: len(v.items), most: len(v.items), rest: nothing}
			for _, item := range v.items {
				e, err := c.literals([]*value{item})
				if err != nil {
					return nothing, err
				}
				a.prefix = append(a.prefix, e)
			}
			s.arrs = append(s.arrs, a)
		case jsonObject:
			o := objs{most: -1, classes: []class{{value: nothing}}}
			for i, item := range v.items {
				e, err := c.literals([]*value{item})
				if err != nil {
					return nothing, err
				}
				o.props = append(o.props, prop{name: v.names[i], value: e, required: true})
			}
			s.objs = append(s.objs, o)
		}
	}
	if len(s.arrs) > maxCases || len(s.objs) > maxCases {
		return nothing, errCases
	}
	if len(words) > 0 {
		s.strs = []strs{{lang: regex.Words(c.budget, words), most: -1}}
	}
	for len(numbers) > 1 { // in pairs, so that none is copied often
		for i := 0; i+1 < len(numbers); i += 2 {
			numbers[i/2] = regex.Or(c.budget, numbers[i], numbers[i+1])
		}
		if half := len(numbers) / 2; len(numbers)%2 == 1 {
			numbers[half] = numbers[len(numbers)-1]
			numbers = numbers[:half+1]
		} else {
			numbers = numbers[:half]
		}
	}
	if len(numbers) == 1 {
		s.nums = numbers[0]
	}
	return c.of(s), nil
}

func (c *compiler) numberKeyword(v *value, name string, item *value) (expr, error) {
	if item.kind == jsonBool && (name == "exclusiveMinimum" || name == "exclusiveMaximum") {
		return everything, nil // of draft 4: says how the bound beside it is meant
	}
	if item.kind != jsonNumber {
		return nothing, wrong("a number")
	}
	d, err := regex.ParseDecimal(item.text)
	if err != nil {
		return nothing, err
	}
	exclusive := func(name string) bool {
		e := v.member(name)
		return e != nil && e.kind == jsonBool && e.truth
	}
	var nums *regex.DFA
	switch name {
	case "minimum":
		nums = regex.Compare(c.budget, d, false, !exclusive("exclusiveMinimum"), true)
	case "maximum":
		nums = regex.Compare(c.budget, d, true, !exclusive("exclusiveMaximum"), false)
	case "exclusiveMinimum":
		nums = regex.Compare(c.budget, d, false, false, true)
	case "exclusiveMaximum":
		nums = regex.Compare(c.budget, d, true, false, false)
	default:
		if nums, err = regex.Multiples(c.budget, d); err != nil {
			return nothing, err
		}
	}
	return c.allBut(func(s *set) { s.nums = nums }), nil
}

// size returns the value of a keyword that counts.
func size(item *value) (int, error) {
	want := wrong("an integer that is not negative")
	if item.kind != jsonNumber {
		return 0, want
	}
	d, err := regex.ParseDecimal(item.text)
	if err != nil {
		return 0, want
	}
	n, err := strconv.Atoi(d.String())
	switch {
	case errors.Is(err, strconv.ErrRange) && !d.Negative:
		return automaton.MaxCount + 1, nil
	case err != nil || n < 0:
		return 0, want
	}
	return min(n, automaton.MaxCount+1), nil
}

// limit returns a maximum: one beyond all answers is none.
func limit(item *value) (int, error) {
	n, err := size(item)
	if n > automaton.MaxCount {
		n = -1
	}
	return n, err
}

func (c *compiler) stringKeyword(name string, item *value) (expr, error) {
	x := anyStrs
	var err error
	switch name {
	case "minLength":
		x.least, err = size(item)
	case "maxLength":
		x.most, err = limit(item)
	case "pattern":
		if item.kind != jsonString {
			return nothing, wrong("a string")
		}
		x.lang, err = regex.Compile(c.budget, item.text)
	case "format":
		language, known := formats[item.text]
		switch {
		case known:
			x.lang, x.narrow = language(), narrowFormats[item.text]
		case refusedFormats[item.text]:
			return nothing, fmt.Errorf("the format %q cannot be enforced", item.text)
		default:
			c.annotations = append(c.annotations, item.pointer())
			return everything, nil
		}
	}
	if err != nil {
		return nothing, err
	}
	if x.least > automaton.MaxCount {
		return c.allBut(func(s *set) { s.strs = nil }), nil
	}
	return c.allBut(func(s *set) { s.strs = []strs{x} }), nil
}

// items returns the arrays of prefixItems, items and additionalItems.
func (c *compiler) items(v *value) (expr, error) {
	a := anyArrs
	prefix, rest := v.member("prefixItems"), v.member("items")
	if rest != nil && rest.kind == jsonArray { // of old drafts
		if prefix != nil {
			return nothing, wrong("a schema beside prefixItems")
		}
		prefix, rest = rest, v.member("additionalItems")
	}
	if prefix != nil {
		if prefix.kind != jsonArray {
			return nothing, wrong("a list of schemas")
		}
		for _, p := range prefix.items {
			a.prefix = append(a.prefix, c.schema(p))
		}
	}
	if rest != nil {
		a.rest = c.schema(rest)
	}
	return c.allBut(func(s *set) { s.arrs = []arrs{a} }), nil
}

func (c *compiler) arrayKeyword(v *value, name string, item *value) (expr, error) {
	a := anyArrs
	var err error
	switch name {
	case "minItems":
		a.least, err = size(item)
	case "maxItems":
		a.most, err = limit(item)
	case "uniqueItems":
		if item.kind != jsonBool {
			return nothing, wrong("true or false")
		}
		a.unique = item.truth
	case "contains":
		k := contains{what: c.schema(item), least: 1, most: -1}
		if n := v.member("minContains"); n != nil {
			k.least, err = size(n)
		}
		if n := v.member("maxContains"); n != nil && err == nil {
			k.most, err = limit(n)
		}
		if k.least > 0 || k.most >= 0 {
			a.contains = []contains{k}
		}
	default: // minContains and maxContains belong to contains
		return everything, nil
	}
	if err != nil {
		return nothing, err
	}
	if a.least > automaton.MaxCount {
		return c.allBut(func(s *set) { s.arrs = nil }), nil
	}
	return c.allBut(func(s *set) { s.arrs = []arrs{a} }), nil
}

// members returns the objects of properties, patternProperties and additionalProperties.
func (c *compiler) members(v *value) (expr, error) {
	o := anyObjs
	var patterns []class
	if p := v.member("patternProperties"); p != nil {
		if p.kind != jsonObject {
			return nothing, wrong("an object of schemas")
		}
		for i, name := range p.names {
			d, err := regex.Compile(c.budget, name)
			if err != nil {
				return nothing, &fault{origin{p.items[i], "patternProperties"}, err}
			}
			patterns = append(patterns, class{d, c.schema(p.items[i])})
		}
	}
	if p := v.member("properties"); p != nil {
		if p.kind != jsonObject {
			return nothing, wrong("an object of schemas")
		}
		for i, name := range p.names {
			e := c.schema(p.items[i])
			for _, q := range patterns {
				if q.names.Match(name) {
					e = c.and(e, q.value)
				}
			}
			o.props = append(o.props, prop{name: name, value: e})
		}
	}
	c.budget.Spend(48 * len(o.props))
	others := everything
	if p := v.member("additionalProperties"); p != nil {
		others = c.schema(p)
	}
	// The names divide into classes by the patterns that they match.
	if len(patterns) > 0 || others != everything {
		o.classes = []class{{value: everything}}
		left := regex.Any() // of names that match no pattern
		for _, q := range patterns {
			left = regex.Minus(c.budget, left, q.names)
			out := regex.Not(c.budget, q.names)
			o.classes = c.intersectClasses(o.classes, disjoint(q, class{out, everything}))
			if len(o.classes) > maxCases {
				return nothing, errCases
			}
		}
		if len(patterns) == 0 {
			o.classes = []class{{value: others}}
		} else if others != everything {
			o.classes = c.intersectClasses(o.classes, disjoint(class{left, others}, class{regex.Not(c.budget, left), everything}))
		}
	}
	return c.allBut(func(s *set) { s.objs = []objs{o} }), nil
}

// disjoint returns the classes that have a name.
func disjoint(classes ...class) (out []class) {
	for _, k := range classes {
		if !k.names.Empty() {
			out = append(out, k)
		}
	}
	return out
}

func (c *compiler) objectKeyword(name string, item *value) (expr, error) {
	o := anyObjs
	var err error
	switch name {
	case "required":
		if item.kind == jsonBool {
			return everything, nil // of draft 3, which other schemas still have: it binds nothing
		}
		if o.props, err = requiredProps(item); err != nil {
			return nothing, err
		}
	case "minProperties":
		o.least, err = size(item)
	case "maxProperties":
		o.most, err = limit(item)
	case "propertyNames":
		var s *set
		if s, err = c.eval(c.schema(item)); err != nil {
			break
		}
		var lang *regex.DFA
		if lang, err = c.stringLanguage(s); err != nil {
			break
		}
		o.classes = disjoint(class{lang, everything}, class{regex.Not(c.budget, lang), nothing})
	}
	if err != nil {
		return nothing, err
	}
	if o.least > automaton.MaxCount {
		return c.allBut(func(s *set) { s.objs = nil }), nil
	}
	return c.allBut(func(s *set) { s.objs = []objs{o} }), nil
}

func requiredProps(item *value) (props []prop, err error) {
	if item.kind != jsonArray {
		return nil, wrong("a list of names")
	}
	seen := make(map[string]bool)
	for _, n := range item.items {
		if n.kind != jsonString {
			return nil, wrong("a list of names")
		}
		if !seen[n.text] {
			seen[n.text] = true
			props = append(props, prop{name: n.text, value: everything, required: true, late: true})
		}
	}
	return props, nil
}

// dependent returns the values of the keywords that ask for something where a member is.
func (c *compiler) dependent(name string, item *value) (expr, error) {
	if item.kind != jsonObject {
		return nothing, wrong("an object")
	}
	all := []expr{}
	for i, member := range item.names {
		then := item.items[i]
		if then.kind == jsonArray && name == "dependentSchemas" || then.kind != jsonArray && name == "dependentRequired" {
			return nothing, wrong("an object of schemas, or of lists of names")
		}
		with, without := c.schema, c.allBut(func(s *set) {
			s.objs = []objs{{most: -1, props: []prop{{name: member, value: nothing, late: true}}}}
		})
		var e expr
		if then.kind == jsonArray {
			props, err := requiredProps(then)
			if err != nil {
				return nothing, err
			}
			e = c.allBut(func(s *set) { s.objs = []objs{{most: -1, props: props}} })
		} else {
			e = with(then)
		}
		present := c.allBut(func(s *set) {
			s.objs = []objs{{most: -1, props: []prop{{name: member, value: everything, required: true, late: true}}}}
		})
		all = append(all, c.or(without, c.and(present, e)))
	}
	return c.and(all...), nil
}

func (c *compiler) combination(name string, item *value) (expr, error) {
	if item.kind != jsonArray || len(item.items) == 0 {
		return nothing, wrong("a list of schemas that is not empty")
	}
	parts := make([]expr, len(item.items))
	for i, p := range item.items {
		parts[i] = c.schema(p)
	}
	switch name {
	case "allOf":
		return c.and(parts...), nil
	case "anyOf":
		return c.or(parts...), nil
	}
	// Exactly one: each part without the values of the parts that it overlaps.
	ways := slices.Clone(parts)
	for i := range parts {
		for j := i + 1; j < len(parts); j++ {
			switch {
			case parts[i] == parts[j]:
				ways[i], ways[j] = nothing, nothing
			case !c.disjoint(parts[i], parts[j], tellDepth) && !c.empty(c.and(parts[i], parts[j])):
				ways[i] = c.and(ways[i], c.not(parts[j], &origin{item, name}))
				ways[j] = c.and(ways[j], c.not(parts[i], &origin{item, name}))
			}
		}
	}
	return c.or(ways...), nil
}

func (c *compiler) conditional(v, item *value) expr {
	then, otherwise := everything, everything
	if p := v.member("then"); p != nil {
		then = c.schema(p)
	}
	if p := v.member("else"); p != nil {
		otherwise = c.schema(p)
	}
	if then == otherwise {
		return then
	}
	cond := c.schema(item)
	return c.or(c.and(cond, then), c.and(c.not(cond, &origin{item, "if"}), otherwise))
}
