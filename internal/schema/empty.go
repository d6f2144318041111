package schema

import "slices"

// empty reports whether an expression certainly has no value. An expression is also empty if each of
// its values would have to contain another of its values, because such values would be infinite.
func (c *compiler) empty(e expr) bool {
	if known, ok := c.vacant[e]; ok {
		return known
	}
	if c.deciding[e] {
		return true
	}
	c.deciding[e] = true
	s, err := c.eval(e)
	vacant := err == nil && c.emptySet(s)
	delete(c.deciding, e)
	// An expression counts as empty while empty runs for it, so a result of true may depend on such
	// expressions. It is stored only if there are none.
	if !vacant && err == nil || len(c.deciding) == 0 {
		c.vacant[e] = vacant
	}
	return vacant
}

func (c *compiler) emptySet(s *set) bool {
	if s.null || s.bools[0] || s.bools[1] || !s.nums.Empty() || !c.budget.Spend(0) {
		return false
	}
	for _, x := range s.strs {
		if !c.emptyStrs(x) {
			return false
		}
	}
	for i := range s.arrs {
		if !c.emptyArrs(&s.arrs[i]) {
			return false
		}
	}
	for i := range s.objs {
		if !c.emptyObjs(&s.objs[i]) {
			return false
		}
	}
	return true
}

func (c *compiler) emptyArrs(a *arrs) bool {
	least := a.least
	for _, k := range a.contains {
		if k.most >= 0 && k.least > k.most {
			return true
		}
		if k.least > 0 {
			least = max(least, k.from+k.least)
			if c.empty(k.what) {
				return true
			}
		}
	}
	if a.most >= 0 && least > a.most {
		return true
	}
	for i := range min(least, len(a.prefix)+1) {
		if c.empty(a.at(i)) {
			return true
		}
	}
	return false
}

func (c *compiler) emptyObjs(o *objs) bool {
	required, optional := 0, 0
	for _, p := range o.props {
		switch {
		case p.required:
			required++
			if c.empty(p.value) {
				return true
			}
		case o.least > 0 && !c.empty(p.value):
			optional++
		}
	}
	if o.most >= 0 && (required > o.most || o.least > o.most) {
		return true
	}
	for _, n := range o.needs {
		if !slices.ContainsFunc(n.ways, func(w way) bool { return c.mayMeet(o, &w) }) {
			return true
		}
	}
	return o.least > required+optional && o.least > required+optional+c.others(o, o.least)
}

// mayMeet reports whether an object of case o may meet a need by the way n.
func (c *compiler) mayMeet(o *objs, n *way) bool {
	if may, _ := c.meets(o, n); !may || n.absent {
		return may
	}
	if !n.others {
		value, _ := o.value(n.name)
		return !c.empty(c.and(value, n.value))
	}
	for _, p := range o.props {
		if n.has(p.name) && !c.empty(c.and(p.value, n.value)) {
			return true
		}
	}
	for _, k := range c.otherClasses(o) {
		if !disjointNames(k.names, n.names) && !c.empty(c.and(k.value, n.value)) {
			return true
		}
	}
	return false
}

// others returns the number of undeclared members that an object may have, at most limit.
func (c *compiler) others(o *objs, limit int) (n int) {
	for _, k := range c.otherClasses(o) {
		if k.names == nil {
			return limit
		}
		n = min(n+k.names.Count(limit), limit)
	}
	return n
}

// otherClasses returns the classes of undeclared members of o that can have members. It removes the
// declared names from the names of each class; nil, which means any name, stays.
func (c *compiler) otherClasses(o *objs) (out []class) {
	var names []string
	for _, p := range o.props {
		names = append(names, p.name)
	}
	for _, k := range o.others() {
		if c.empty(k.value) {
			continue
		}
		if k.names != nil {
			k.names = c.langs.without(k.names, names)
		}
		if k.names == nil || !k.names.Empty() {
			out = append(out, k)
		}
	}
	return out
}
