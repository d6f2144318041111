package schema

import "errors"

// refuse records the refusal of an expression.
func (c *compiler) refuse(err error, by expr) {
	if c.budget.Err() != nil {
		return // which is the error of the whole
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

// culprits has the keywords that errors of whole values come from.
var culprits = map[error][]string{
	errUnique:  {"uniqueItems"},
	errFew:     {"minItems"},
	errLengths: {"maxLength", "minLength", "pattern", "format"},
	errPlaces:  {"maxContains", "minContains", "contains", "maxProperties", "minProperties", "maxItems", "minItems"},
	errCases:   {"anyOf", "oneOf", "allOf", "not", "if", "enum", "patternProperties"},
}

// blame returns the keyword behind an error of an expression: a keyword of its schemas, or of schemas that
// they refer to.
func (c *compiler) blame(err error, e expr) origin {
	var found origin
	var owner *value
	var visit func(v *value, depth int)
	visit = func(v *value, depth int) {
		if v.kind != jsonObject || depth > 8 || found.at != nil {
			return
		}
		for _, keyword := range culprits[err] {
			if item := v.member(keyword); item != nil {
				found = origin{item, keyword}
				return
			}
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
