package schema

import (
	"errors"
	"slices"
)

// refuse records a refusal. err is the reason, and by is the expression that cannot be enforced.
func (c *compiler) refuse(err error, by expr) {
	if c.budget.Err() != nil {
		return // the schema is refused as a whole, with the budget's error
	}
	f, ok := errors.AsType[*fault](err)
	if !ok || f.at == nil {
		f = &fault{origin: c.blame(err, by), err: err}
	}
	r := Refusal{Keyword: f.keyword, Why: f.err.Error()}
	if f.at != nil {
		r.Pointer = f.at.pointer()
	}
	c.refused = append(c.refused, r)
}

// culprits lists the keywords that may cause an error without an origin, the likeliest first.
var culprits = map[error][]string{
	errUnique:    {"uniqueItems"},
	errFew:       {"minItems"},
	errLengths:   {"maxLength", "minLength", "pattern", "format"},
	errPositions: {"maxContains", "minContains", "contains", "maxProperties", "minProperties", "maxItems", "minItems"},
	errCases:     {"anyOf", "oneOf", "allOf", "not", "if", "enum", "patternProperties"},
}

// blame returns the keyword that probably causes an error of expression e. It looks in the schemas
// of e, and in the schemas that these combine or refer to. If it finds no keyword, it returns the first
// schema of e, without a keyword.
func (c *compiler) blame(err error, e expr) origin {
	return c.search(e, func(v *value) origin {
		for _, keyword := range culprits[err] {
			if item := v.member(keyword); item != nil {
				return origin{item, keyword}
			}
		}
		return origin{}
	})
}

// declaring returns the keyword that declares the member name in expression e. If the search finds none, because e is a
// value within a constant, it returns the first keyword in the document that declares such a member.
func (c *compiler) declaring(name string, e expr) origin {
	match := func(v *value) origin {
		if props := v.member("properties"); props != nil && props.member(name) != nil {
			return origin{props.member(name), "properties"}
		}
		for _, keyword := range []string{"required", "const", "enum"} {
			if item := v.member(keyword); item != nil && mentions(item, name) {
				return origin{item, keyword}
			}
		}
		return origin{}
	}
	if found := c.search(e, match); found.keyword != "" {
		return found
	}
	return findFirst(c.root, match)
}

// findFirst returns the first origin that match finds in v or in a value within it, in the order of the document.
func findFirst(v *value, match func(*value) origin) origin {
	found := match(v)
	for i := 0; i < len(v.items) && found.at == nil; i++ {
		found = findFirst(v.items[i], match)
	}
	return found
}

// mentions reports whether v, or a value within it, is the string text or has a member of that name.
func mentions(v *value, text string) bool {
	return v.kind == jsonString && v.text == text || slices.Contains(v.names, text) ||
		slices.ContainsFunc(v.items, func(item *value) bool { return mentions(item, text) })
}

// search returns the first origin that match finds in the schemas of expression e, or in schemas that these combine or
// refer to. If match finds none, search returns the first schema of e, without a keyword.
func (c *compiler) search(e expr, match func(*value) origin) origin {
	var found origin
	var owner *value
	var visit func(v *value, depth int)
	visit = func(v *value, depth int) {
		if v.kind != jsonObject || depth > 8 || found.at != nil {
			return
		}
		if found = match(v); found.at != nil {
			return
		}
		for i, name := range v.names {
			switch {
			case name == "$ref":
				if target, err := c.refs.resolve(v.items[i]); err == nil {
					visit(target, depth+1)
				}
			case schemaLists[name] && v.items[i].kind == jsonArray:
				for _, s := range v.items[i].items {
					visit(s, depth+1)
				}
			}
		}
	}
	var parts func(e expr)
	parts = func(e expr) {
		x := &c.exprs[e]
		if x.kind == exprSchema {
			if owner == nil {
				owner = x.schema
			}
			visit(x.schema, 0)
		}
		for _, p := range x.parts {
			parts(p)
		}
	}
	if parts(e); found.at == nil {
		found.at = owner
	}
	return found
}
