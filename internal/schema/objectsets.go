package schema

import (
	"slices"

	"github.com/inferd-go/inferd/internal/regex"
)

// intersectAll returns the intersection of two unions of cases.
func (c *compiler) intersectAll(x, y []objs) (out []objs, err error) {
	const often = 32
	limit := often
	for _, a := range x {
		for _, b := range y {
			if o := c.intersectObjs(a, b); c.possible(&o) {
				out = addCase(out, o, equalObjs)
			}
			if len(out) > limit {
				out = c.thin(out)
				limit = max(often, 2*len(out))
			}
			if len(out) > maxCases || !c.budget.Spend(0) {
				return nil, errCases
			}
		}
	}
	return out, nil
}

// thin returns the cases that are neither empty nor part of another case.
func (c *compiler) thin(cases []objs) (out []objs) {
	for i := range cases {
		if !c.emptyObjs(&cases[i]) {
			out = append(out, cases[i])
		}
	}
	for i := 0; i < len(out); i++ {
		for j := range out {
			if i != j && c.within(&out[i], &out[j]) {
				out = slices.Delete(out, i, i+1)
				i--
				break
			}
		}
	}
	return out
}

// within reports whether every object of case x certainly belongs to case y.
func (c *compiler) within(x, y *objs) bool {
	if !c.budget.Spend(0) || x.least < y.least || y.most >= 0 && (x.most < 0 || x.most > y.most) || len(y.classes) > 0 && !slices.Equal(x.classes, y.classes) {
		return false
	}
	for _, n := range y.needs {
		if !slices.Contains(x.needs, n) {
			return false
		}
	}
	met := 0
	for _, p := range x.props {
		value, required := y.other(p.name), false
		if i := slices.IndexFunc(y.props, func(q prop) bool { return q.name == p.name }); i >= 0 {
			value, required = y.props[i].value, y.props[i].required
			met++
		}
		if required && !p.required || !c.implies(p.value, value) {
			return false
		}
	}
	if met == len(y.props) {
		return true
	}
	for _, q := range y.props {
		if !slices.ContainsFunc(x.props, func(p prop) bool { return p.name == q.name }) && (q.required || !c.implies(x.other(q.name), q.value)) {
			return false
		}
	}
	return true
}

// implies reports whether every value of x is certainly a value of y.
func (c *compiler) implies(x, y expr) bool {
	if x == y || x == nothing || y == everything {
		return true
	}
	have := c.parts(x)
	for _, p := range c.parts(y) {
		if !slices.Contains(have, p) {
			return false
		}
	}
	return true
}

// surely is implies with a further check of complements: x also implies the complement of an
// expression with which it certainly has no value in common.
func (c *compiler) surely(x, y expr) bool {
	for _, p := range c.parts(y) {
		if !c.implies(x, p) && (c.exprs[p].kind != exprNot || !c.disjoint(x, c.exprs[p].parts[0], tellDepth)) {
			return false
		}
	}
	return true
}

// parts returns the parts of a conjunction, or e itself if it is another kind of expression.
func (c *compiler) parts(e expr) []expr {
	if c.exprs[e].kind == exprAnd {
		return c.exprs[e].parts
	}
	return []expr{e}
}

// possible reports false if a quick check finds that case o has no object. It removes from o the
// needs that are certainly met.
func (c *compiler) possible(o *objs) bool {
	required := 0
	for _, p := range o.props {
		if p.required {
			if required++; p.value == nothing {
				return false
			}
		}
	}
	if o.most >= 0 && max(required, o.least) > o.most {
		return false
	}
	for i := 0; i < len(o.needs); i++ {
		may, met := false, false
		for k := range o.needs[i].ways {
			a, b := c.meets(o, &o.needs[i].ways[k])
			may, met = may || a, met || b
		}
		if met {
			o.needs = slices.Delete(slices.Clone(o.needs), i, i+1)
			i--
		} else if !may {
			return false
		}
	}
	return true
}

// meets checks quickly whether objects of case o may meet a need by way w (may), and whether all of
// them certainly do (met).
func (c *compiler) meets(o *objs, w *way) (may, met bool) {
	if w.others {
		for _, p := range o.props {
			if w.has(p.name) && p.value != nothing {
				may = true
				met = met || p.required && c.surely(p.value, w.value)
			}
		}
		return may || slices.ContainsFunc(o.others(), func(k class) bool { return k.value != nothing && !disjointNames(k.names, w.names) }), met
	}
	value, required := o.value(w.name)
	if w.absent {
		return !required, value == nothing
	}
	return c.and(value, w.value) != nothing, required && c.surely(value, w.value)
}

// value returns the condition on the member name, and whether that member is required.
func (o *objs) value(name string) (value expr, required bool) {
	for i := range o.props {
		if p := &o.props[i]; p.name == name {
			return p.value, p.required
		}
	}
	return o.other(name), false
}

// has reports whether a member called name can meet the need in this way.
func (w *way) has(name string) bool {
	switch {
	case w.absent:
		return false
	case w.others:
		return w.names == nil || w.names.Match(name)
	}
	return w.name == name
}

// disjointNames reports whether two languages certainly have no name in common. A nil language has
// all names.
func disjointNames(x, y *regex.DFA) bool {
	switch {
	case x == nil:
		return y != nil && y.Empty()
	case y == nil:
		return x.Empty()
	}
	return regex.Disjoint(x, y)
}

// others returns the classes of undeclared members; if o has none, a class for any name and value.
func (o *objs) others() []class {
	if len(o.classes) == 0 {
		return []class{{value: everything}}
	}
	return o.classes
}

// other returns the condition on the member called name, which must not be a prop.
func (o *objs) other(name string) expr {
	for _, k := range o.classes {
		if k.names == nil || k.names.Match(name) {
			return k.value
		}
	}
	return everything
}

func (c *compiler) intersectObjs(x, y objs) objs {
	o := objs{least: max(x.least, y.least), most: lowerMax(x.most, y.most)}
	index := func(props []prop) map[string]int {
		m := make(map[string]int, len(props))
		for i, p := range props {
			m[p.name] = i
		}
		return m
	}
	inX, inY := index(x.props), index(y.props)
	join := func(p prop) prop {
		i, isX := inX[p.name]
		j, isY := inY[p.name]
		q := prop{name: p.name, late: true}
		var left, right expr
		if isX {
			left, q.required, q.late = x.props[i].value, x.props[i].required, x.props[i].late
		} else {
			left = x.other(p.name)
		}
		if isY {
			right = y.props[j].value
			q.required = q.required || y.props[j].required
			q.late = q.late && y.props[j].late
		} else {
			right = y.other(p.name)
		}
		q.value = c.and(left, right)
		return q
	}
	// The order is: the declared props of x, those of y, and then the late props.
	for late := range 2 {
		for k, props := range [][]prop{x.props, y.props} {
			for _, p := range props {
				c.budget.Spend(0)
				if i, ok := inX[p.name]; k == 1 && ok && (x.props[i].late == p.late || !x.props[i].late) {
					continue // it was added with the props of x
				}
				if j, ok := inY[p.name]; k == 0 && ok && p.late && !y.props[j].late {
					continue // it is added with the declared props of y
				}
				if p.late == (late == 1) {
					o.props = append(o.props, join(p))
				}
			}
		}
	}
	c.budget.Spend(48 * len(o.props))
	o.classes = c.intersectClasses(x.classes, y.classes)
	o.needs = slices.Clone(x.needs)
	for _, n := range y.needs {
		if !slices.Contains(o.needs, n) {
			o.needs = append(o.needs, n)
		}
	}
	return o
}

func (c *compiler) intersectClasses(x, y []class) []class {
	switch {
	case len(x) == 0:
		return y
	case len(y) == 0 || slices.Equal(x, y):
		return x
	}
	var out []class
	for _, a := range x {
		for _, b := range y {
			k := class{names: a.names, value: c.and(a.value, b.value)}
			switch {
			case a.names == nil:
				k.names = b.names
			case b.names != nil && a.names != b.names:
				k.names = c.langs.and(a.names, b.names)
			}
			if k.names == nil || !k.names.Empty() {
				out = append(out, k)
			}
		}
	}
	return out
}
