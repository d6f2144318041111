package schema

import (
	"slices"

	"github.com/inferd-go/inferd/internal/regex"
)

// complement returns the set of all values that are not in x. origin is the keyword that needs the
// complement; if the result or an expression in it is refused, the refusal names that keyword.
func (c *compiler) complement(x *set, origin *origin) (*set, error) {
	s := &set{null: !x.null, bools: [2]bool{!x.bools[0], !x.bools[1]}, nums: regex.Minus(c.budget, c.decimals, x.nums)}
	if x.nums.Empty() {
		s.nums = c.decimals
	}
	s.strs = []strs{anyStrs}
	for _, a := range x.strs {
		if a.narrow {
			return nil, errFormatNot
		}
		var left []strs
		for _, b := range c.complementStrs(a) {
			for _, have := range s.strs {
				if both := c.intersectStrs(have, b); (both.most < 0 || both.least <= both.most) && (both.lang == nil || !both.lang.Empty()) {
					left = c.addStrs(left, both)
				}
			}
		}
		s.strs = left
	}
	s.arrs = []arrs{anyArrs}
	for _, a := range x.arrs {
		not, err := c.complementArrs(a, origin)
		if err != nil {
			return nil, err
		}
		if len(not)*len(s.arrs) > maxCases {
			return nil, errCases
		}
		var left []arrs
		for _, b := range not {
			for _, have := range s.arrs {
				left = addCase(left, c.intersectArrs(have, b), equalArrs)
			}
		}
		s.arrs = left
	}
	s.objs = []objs{anyObjs}
	for _, o := range x.objs {
		not := c.complementObjs(o, origin)
		var err error
		if s.objs, err = c.intersectAll(s.objs, not); err != nil {
			return nil, err
		}
	}
	return s, c.budget.Err()
}

func (c *compiler) complementStrs(x strs) (out []strs) {
	if x.lang != nil {
		out = append(out, strs{lang: regex.Not(c.budget, x.lang), most: -1})
	}
	if x.least > 0 {
		out = append(out, strs{most: x.least - 1})
	}
	if x.most >= 0 {
		out = append(out, strs{least: x.most + 1, most: -1})
	}
	return out
}

func (c *compiler) complementArrs(x arrs, origin *origin) (out []arrs, err error) {
	free := anyArrs
	if x.least > 0 {
		few := free
		few.most = x.least - 1
		out = append(out, few)
	}
	if x.most >= 0 {
		many := free
		many.least = x.most + 1
		out = append(out, many)
	}
	for i, e := range x.prefix {
		if e == everything {
			continue
		}
		other := free
		other.least = i + 1
		other.prefix = append(slices.Repeat([]expr{everything}, i), c.not(e, origin))
		out = append(out, other)
	}
	if x.rest == nothing {
		many := free
		many.least = len(x.prefix) + 1
		out = append(out, many)
	} else if x.rest != everything {
		other := free
		other.contains = []contains{{what: c.not(x.rest, origin), from: len(x.prefix), least: 1, most: -1}}
		out = append(out, other)
	}
	for _, k := range x.contains {
		if k.least > 0 {
			few := free
			few.contains = []contains{{what: k.what, from: k.from, most: k.least - 1}}
			out = append(out, few)
		}
		if k.most >= 0 {
			many := free
			many.contains = []contains{{what: k.what, from: k.from, least: k.most + 1, most: -1}}
			out = append(out, many)
		}
	}
	if x.unique {
		return nil, errUniqueNot
	}
	return out, nil
}

func (c *compiler) complementObjs(x objs, origin *origin) (out []objs) {
	if x.least > 0 {
		out = append(out, objs{most: x.least - 1})
	}
	if x.most >= 0 {
		out = append(out, objs{least: x.most + 1, most: -1})
	}
	var ways []way
	rest := objs{most: -1}
	var declared []string
	for _, p := range x.props {
		declared = append(declared, p.name)
		if p.required {
			ways = append(ways, way{name: p.name, absent: true})
		}
		if p.value != everything {
			ways = append(ways, way{name: p.name, value: c.not(p.value, origin)})
		}
		if p.required || p.value != everything {
			rest.props = append(rest.props, prop{name: p.name, value: everything, late: true})
		}
	}
	for _, k := range x.classes {
		if k.value != everything {
			ways = append(ways, way{others: true, names: c.langs.without(k.names, declared), value: c.not(k.value, origin)})
		}
	}
	switch {
	case len(ways) == 1 && ways[0].absent:
		rest.props[0].value = nothing
		out = append(out, rest)
	case len(ways) == 1 && !ways[0].others:
		rest.props[0].value, rest.props[0].required = ways[0].value, true
		out = append(out, rest)
	case len(ways) > 0:
		rest.needs = []*need{{ways}}
		out = append(out, rest)
	}
	for _, n := range x.needs {
		out = append(out, c.unmet(n, origin))
	}
	return out
}

// unmet returns the case of the objects that meet need n by none of its ways.
func (c *compiler) unmet(n *need, origin *origin) objs {
	o := anyObjs
	for _, w := range n.ways {
		x := objs{most: -1}
		switch {
		case w.absent:
			x.props = []prop{{name: w.name, value: everything, required: true, late: true}}
		case w.others:
			x.classes = []class{{w.names, c.not(w.value, origin)}}
			if w.names != nil {
				x.classes = dropEmpty(x.classes[0], class{regex.Not(c.budget, w.names), everything})
			}
		default:
			x.props = []prop{{name: w.name, value: c.not(w.value, origin), late: true}}
		}
		o = c.intersectObjs(o, x)
	}
	return o
}
