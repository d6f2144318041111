package schema

import "github.com/inferd-go/inferd/internal/regex"

// tellDepth is the depth of nesting to which disjoint compares required members.
const tellDepth = 3

// disjoint reports whether two expressions certainly have no value in common. It is a quick check
// of types, literals, and required members to the given depth. It may report false where an
// intersection would be empty.
func (c *compiler) disjoint(x, y expr, depth int) bool {
	if x == nothing || y == nothing {
		return true
	}
	if x == everything || y == everything || depth == 0 || !c.budget.Spend(0) {
		return false
	}
	s, err := c.eval(x)
	if err != nil {
		return false
	}
	t, err := c.eval(y)
	if err != nil || s.null && t.null || s.bools[0] && t.bools[0] || s.bools[1] && t.bools[1] || len(s.arrs) > 0 && len(t.arrs) > 0 || !regex.Disjoint(s.nums, t.nums) {
		return false
	}
	for _, a := range s.strs {
		for _, b := range t.strs {
			if a.lang == nil || b.lang == nil || !regex.Disjoint(a.lang, b.lang) {
				return false
			}
		}
	}
	for i := range s.objs {
		for j := range t.objs {
			if !c.disjointObjs(&s.objs[i], &t.objs[j], depth) {
				return false
			}
		}
	}
	return true
}

// disjointObjs reports whether a member makes two cases disjoint: x requires it, y declares it, and
// their conditions on it have no value in common.
func (c *compiler) disjointObjs(x, y *objs, depth int) bool {
	for _, p := range x.props {
		if !p.required {
			continue
		}
		for _, q := range y.props {
			if q.name == p.name && c.disjoint(p.value, q.value, depth-1) {
				return true
			}
		}
	}
	return false
}
