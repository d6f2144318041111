package schema

import (
	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/regex"
)

// items returns an expression for the values that prefixItems, items and additionalItems of v allow.
// These include all values that are not arrays.
func (c *compiler) items(v *value) (expr, error) {
	a := anyArrs
	prefix, rest := v.member("prefixItems"), v.member("items")
	if rest != nil && rest.kind == jsonArray { // as in old drafts
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
	default: // contains also reads minContains and maxContains
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

// members returns an expression for the values that properties, patternProperties and
// additionalProperties of v allow. These include all values that are not objects.
func (c *compiler) members(v *value) (expr, error) {
	o := anyObjs
	var patterns []class
	if p := v.member("patternProperties"); p != nil {
		if p.kind != jsonObject {
			return nothing, wrong("an object of schemas")
		}
		for i, name := range p.names {
			d, err := c.langs.pattern(name)
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
	// Divide the names into classes by the patterns that they match.
	if len(patterns) > 0 || others != everything {
		o.classes = []class{{value: everything}}
		left := regex.Any() // the names that match no pattern
		for _, q := range patterns {
			left = regex.Minus(c.budget, left, q.names)
			out := regex.Not(c.budget, q.names)
			o.classes = c.intersectClasses(o.classes, dropEmpty(q, class{out, everything}))
			if len(o.classes) > maxCases {
				return nothing, errCases
			}
		}
		if len(patterns) == 0 {
			o.classes = []class{{value: others}}
		} else if others != everything {
			o.classes = c.intersectClasses(o.classes, dropEmpty(class{left, others}, class{regex.Not(c.budget, left), everything}))
		}
	}
	return c.allBut(func(s *set) { s.objs = []objs{o} }), nil
}

// dropEmpty returns the classes that contain at least one name.
func dropEmpty(classes ...class) (out []class) {
	for _, k := range classes {
		if k.names == nil || !k.names.Empty() {
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
			return everything, nil // as in draft 3, also found in newer schemas: it restricts nothing
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
		o.classes = dropEmpty(class{lang, everything}, class{regex.Not(c.budget, lang), nothing})
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
