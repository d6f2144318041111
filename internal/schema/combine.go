package schema

import "slices"

// dependent returns an expression for the values that dependentRequired, dependentSchemas or
// dependencies allows.
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
	// oneOf is the union of the parts, each without the values that other parts also have.
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
