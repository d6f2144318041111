package schema

import (
	"slices"

	"github.com/inferd-go/inferd/internal/regex"
)

// A set is a set of JSON values: for each type, the values of it. Strings, arrays and objects
// are unions of cases; the values of a case meet all of its conditions.
type set struct {
	null  bool
	bools [2]bool    // false, true
	nums  *regex.DFA // closed: see package regex
	strs  []strs
	arrs  []arrs
	objs  []objs
}

// A strs is the strings of a language whose number of characters is in a range.
type strs struct {
	lang        *regex.DFA // nil: any
	least, most int        // most < 0: no maximum
	narrow      bool       // lang lacks strings that the keyword allows: there is no opposite
}

// An arrs is arrays by item.
type arrs struct {
	prefix      []expr
	rest        expr // of the items behind the prefix
	least, most int  // items; most < 0: no maximum
	unique      bool
	contains    []contains
}

// A contains counts the items that match, from a place on.
type contains struct {
	what        expr
	from        int
	least, most int // most < 0: no maximum
}

// An objs is objects by member.
type objs struct {
	props       []prop
	classes     []class // of all other names, disjoint; nil: any value
	least, most int     // members; most < 0: no maximum
}

// A prop is a member by name.
type prop struct {
	name     string
	value    expr
	required bool
	late     bool // no keyword declares its place: it comes behind those of which one does
}

// A class is members with names of a language.
type class struct {
	names *regex.DFA // nil: any
	value expr
}

// maxCases bounds the cases of a type.
const maxCases = 256

var (
	anyStrs = strs{most: -1}
	anyArrs = arrs{rest: everything, most: -1}
	anyObjs = objs{most: -1}
)

// all returns the set of all values.
func (c *compiler) all() *set {
	return &set{null: true, bools: [2]bool{true, true}, nums: c.decimals, strs: []strs{anyStrs}, arrs: []arrs{anyArrs}, objs: []objs{anyObjs}}
}

// none returns the empty set.
func (c *compiler) none() *set { return &set{nums: regex.None()} }

func least(x, y int) int { // of maxima, where negative is none
	if x < 0 || y >= 0 && y < x {
		return y
	}
	return x
}

// intersect returns the values that are in both sets.
func (c *compiler) intersect(x, y *set) (*set, error) {
	s := &set{null: x.null && y.null, bools: [2]bool{x.bools[0] && y.bools[0], x.bools[1] && y.bools[1]}}
	switch {
	case x.nums == y.nums || y.nums == c.decimals:
		s.nums = x.nums
	case x.nums == c.decimals:
		s.nums = y.nums
	default:
		s.nums = regex.And(c.budget, x.nums, y.nums)
	}
	if len(x.strs)*len(y.strs) > maxCases || len(x.arrs)*len(y.arrs) > maxCases || len(x.objs)*len(y.objs) > maxCases {
		return nil, errCases
	}
	for _, a := range x.strs {
		for _, b := range y.strs {
			s.strs = addCase(s.strs, c.intersectStrs(a, b), equalStrs)
		}
	}
	for _, a := range x.arrs {
		for _, b := range y.arrs {
			s.arrs = addCase(s.arrs, c.intersectArrs(a, b), equalArrs)
		}
	}
	for _, a := range x.objs {
		for _, b := range y.objs {
			s.objs = addCase(s.objs, c.intersectObjs(a, b), equalObjs)
		}
	}
	return s, c.budget.Err()
}

// addCase appends a case that is not there yet.
func addCase[T any](cases []T, x T, equal func(x, y *T) bool) []T {
	for i := range cases {
		if equal(&cases[i], &x) {
			return cases
		}
	}
	return append(cases, x)
}

func equalStrs(x, y *strs) bool { return *x == *y }

func equalArrs(x, y *arrs) bool {
	return x.rest == y.rest && x.least == y.least && x.most == y.most && x.unique == y.unique && slices.Equal(x.prefix, y.prefix) && slices.Equal(x.contains, y.contains)
}

func equalObjs(x, y *objs) bool {
	return x.least == y.least && x.most == y.most && slices.Equal(x.props, y.props) && slices.Equal(x.classes, y.classes)
}

func (c *compiler) intersectStrs(x, y strs) strs {
	s := strs{lang: x.lang, least: max(x.least, y.least), most: least(x.most, y.most), narrow: x.narrow || y.narrow}
	switch {
	case x.lang == nil:
		s.lang = y.lang
	case y.lang != nil && x.lang != y.lang:
		s.lang = regex.And(c.budget, x.lang, y.lang)
	}
	return s
}

// at returns what an item must be.
func (a *arrs) at(i int) expr {
	if i < len(a.prefix) {
		return a.prefix[i]
	}
	return a.rest
}

func (c *compiler) intersectArrs(x, y arrs) arrs {
	a := arrs{rest: c.and(x.rest, y.rest), least: max(x.least, y.least), most: least(x.most, y.most), unique: x.unique || y.unique}
	for i := range max(len(x.prefix), len(y.prefix)) {
		a.prefix = append(a.prefix, c.and(x.at(i), y.at(i)))
	}
	a.contains = slices.Concat(x.contains, y.contains)
	return a
}

// other returns the condition on the value of a member that is no prop.
func (o *objs) other(name string) expr {
	for _, k := range o.classes {
		if k.names == nil || k.names.Match(name) {
			return k.value
		}
	}
	return everything
}

func (c *compiler) intersectObjs(x, y objs) objs {
	o := objs{least: max(x.least, y.least), most: least(x.most, y.most)}
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
	// First x's declared ones in its order, then y's, then the late ones.
	for late := range 2 {
		for k, props := range [][]prop{x.props, y.props} {
			for _, p := range props {
				c.budget.Spend(0)
				if i, ok := inX[p.name]; k == 1 && ok && (x.props[i].late == p.late || !x.props[i].late) {
					continue // was there
				}
				if j, ok := inY[p.name]; k == 0 && ok && p.late && !y.props[j].late {
					continue // has its place in y
				}
				if p.late == (late == 1) {
					o.props = append(o.props, join(p))
				}
			}
		}
	}
	c.budget.Spend(48 * len(o.props))
	o.classes = c.intersectClasses(x.classes, y.classes)
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
				k.names = regex.And(c.budget, a.names, b.names)
			}
			if k.names == nil || !k.names.Empty() {
				out = append(out, k)
			}
		}
	}
	return out
}

// unite returns the values that are in one of the sets.
func (c *compiler) unite(x, y *set) (*set, error) {
	s := &set{null: x.null || y.null, bools: [2]bool{x.bools[0] || y.bools[0], x.bools[1] || y.bools[1]}, nums: x.nums}
	switch {
	case x.nums == c.decimals || x.nums == y.nums:
	case y.nums == c.decimals:
		s.nums = c.decimals
	default:
		s.nums = regex.Or(c.budget, x.nums, y.nums)
	}
	s.strs = slices.Clone(x.strs)
	for _, a := range y.strs {
		s.strs = c.addStrs(s.strs, a)
	}
	s.arrs, s.objs = slices.Clone(x.arrs), slices.Clone(x.objs)
	for _, a := range y.arrs {
		s.arrs = addCase(s.arrs, a, equalArrs)
	}
	for _, o := range y.objs {
		s.objs = addCase(s.objs, o, equalObjs)
	}
	if slices.ContainsFunc(s.arrs, func(a arrs) bool { return equalArrs(&a, &anyArrs) }) {
		s.arrs = []arrs{anyArrs}
	}
	if slices.ContainsFunc(s.objs, func(o objs) bool { return equalObjs(&o, &anyObjs) }) {
		s.objs = []objs{anyObjs}
	}
	if len(s.strs) > maxCases || len(s.arrs) > maxCases || len(s.objs) > maxCases {
		return nil, errCases
	}
	return s, c.budget.Err()
}

// addStrs adds a case; languages without a range of lengths become one.
func (c *compiler) addStrs(cases []strs, x strs) []strs {
	free := func(s strs) bool { return s.least == 0 && s.most < 0 }
	if free(x) {
		if x.lang == nil {
			return []strs{x}
		}
		for i, s := range cases {
			if free(s) {
				if s.lang != nil && s.lang != x.lang {
					cases[i].lang = regex.Or(c.budget, s.lang, x.lang)
					cases[i].narrow = s.narrow || x.narrow
				}
				return cases
			}
		}
	} else if len(cases) == 1 && cases[0] == anyStrs {
		return cases
	}
	return addCase(cases, x, equalStrs)
}

// complement returns all other values. Origin is the keyword that asks for it, for refusals
// further down.
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
		not, err := c.complementObjs(o, origin)
		if err != nil {
			return nil, err
		}
		if len(not)*len(s.objs) > maxCases {
			return nil, errCases
		}
		var left []objs
		for _, b := range not {
			for _, have := range s.objs {
				left = addCase(left, c.intersectObjs(have, b), equalObjs)
			}
		}
		s.objs = left
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

func (c *compiler) complementObjs(x objs, origin *origin) (out []objs, err error) {
	if x.least > 0 {
		out = append(out, objs{most: x.least - 1})
	}
	if x.most >= 0 {
		out = append(out, objs{least: x.most + 1, most: -1})
	}
	for _, p := range x.props {
		if p.required {
			out = append(out, objs{most: -1, props: []prop{{name: p.name, value: nothing, late: true}}})
		}
		if p.value != everything {
			out = append(out, objs{most: -1, props: []prop{{name: p.name, value: c.not(p.value, origin), required: true, late: true}}})
		}
	}
	for _, k := range x.classes {
		if k.value != everything {
			return nil, errOthersNot
		}
	}
	return out, nil
}

// emptyStrs reports whether a case has no string.
func (c *compiler) emptyStrs(x strs) bool {
	if x.most >= 0 && x.least > x.most {
		return true
	}
	if x.lang == nil || x.lang.Empty() || x.least == 0 && x.most < 0 {
		return x.lang != nil && x.lang.Empty()
	}
	d, err := c.cutStrs(x)
	return err == nil && d.Empty()
}

// maxProduct bounds the states of a language times the characters of a length.
const maxProduct = 1 << 17

// cutStrs returns the language of a case.
func (c *compiler) cutStrs(x strs) (*regex.DFA, error) {
	lang := x.lang
	if lang == nil {
		lang = regex.Any()
	}
	if x.least == 0 && x.most < 0 {
		return lang, nil
	}
	if d, ok := c.cuts[x]; ok {
		return d, nil
	}
	if lang.States()*(max(x.least, x.most)+1) > maxProduct {
		return nil, errLengths
	}
	d := regex.And(c.budget, lang, regex.Lengths(c.budget, x.least, x.most))
	if c.cuts == nil {
		c.cuts = make(map[strs]*regex.DFA)
	}
	c.cuts[x] = d
	return d, nil
}

// stringLanguage returns the strings of a set as one language.
func (c *compiler) stringLanguage(s *set) (*regex.DFA, error) {
	d := regex.None()
	for _, x := range s.strs {
		e, err := c.cutStrs(x)
		if err != nil {
			return nil, err
		}
		d = regex.Or(c.budget, d, e)
	}
	return d, c.budget.Err()
}
