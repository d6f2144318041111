package schema

import (
	"errors"
	"slices"
)

// build returns the set of values that a schema of the document allows. It is the intersection of
// the sets of its keywords, in the order of the document.
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

// errUnsupported is the reason to refuse a keyword of the standard that is not supported.
var errUnsupported = errors.New("this keyword cannot be enforced")

// wrong returns the error for a keyword with an invalid value. want describes the valid values.
func wrong(want string) error { return errors.New("its value must be " + want) }

// first reports whether the keyword name is the first one of group in the schema v.
func first(v *value, name string, group ...string) bool {
	for _, n := range v.names {
		if slices.Contains(group, n) {
			return n == name
		}
	}
	return false
}

// keyword returns an expression for the values that the keyword name of the schema v allows; item is
// the keyword's value. Keywords that are enforced together are compiled at the first one; the others
// yield everything, as do keywords that restrict nothing.
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

// allBut returns an expression for the set of all values after change has narrowed it.
func (c *compiler) allBut(change func(s *set)) expr {
	s := c.all()
	change(s)
	return c.fromSet(s)
}
