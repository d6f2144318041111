package schema

import (
	"errors"
	"slices"

	"github.com/inferd-go/inferd/internal/regex"
)

// A set is a set of JSON values, by type. Strings, arrays and objects are unions of cases; the
// values of a case meet all of its conditions.
type set struct {
	null  bool
	bools [2]bool    // false, true
	nums  *regex.DFA // contains all spellings of each of its numbers
	strs  []strs
	arrs  []arrs
	objs  []objs
}

// A strs is a case of strings: the strings of lang with a length from least to most characters.
type strs struct {
	lang        *regex.DFA // nil: any
	least, most int        // most < 0: no maximum
	narrow      bool       // lang lacks strings that the keyword allows, so there is no complement
}

// An arrs is a case of arrays, described by their items.
type arrs struct {
	prefix      []expr
	rest        expr // of the items after the prefix
	least, most int  // items; most < 0: no maximum
	unique      bool
	contains    []contains
}

// A contains bounds the number of items that match what. Items before the index from do not count.
type contains struct {
	what        expr
	from        int
	least, most int // most < 0: no maximum
}

// An objs is a case of objects, described by their members.
type objs struct {
	props       []prop
	classes     []class // of all other members; their names are disjoint. nil: any name and value
	least, most int     // members; most < 0: no maximum
	needs       []*need // all must be met
}

// A need is a disjunction of conditions, each on one member: an object must meet at least one of its
// ways. Complements of cases of objects have needs. The names in the ways are props of the case.
type need struct{ ways []way }

// A way is one condition of a need: a member with this name and value is present. If others is set,
// the member may have any name in names. If absent is set, no member with this name may be present.
type way struct {
	name   string // of a declared member; not used with others
	others bool
	names  *regex.DFA // nil: any
	value  expr
	absent bool
}

// A prop is a member by name.
type prop struct {
	name     string
	value    expr
	required bool
	late     bool // no keyword declares its position: it comes after the props with a declared position
}

// A class is the members with names in a language; value is the condition on them.
type class struct {
	names *regex.DFA // nil: any
	value expr
}

// maxCases is the maximum number of cases of one type in a set.
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

// lowerMax returns the smaller of two maxima. A negative number means no maximum.
func lowerMax(x, y int) int {
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
	if len(x.strs)*len(y.strs) > maxCases || len(x.arrs)*len(y.arrs) > maxCases {
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
	var err error
	s.objs, err = c.intersectAll(x.objs, y.objs)
	return s, errors.Join(err, c.budget.Err())
}

// addCase appends a case unless the union has an equal one.
func addCase[T any](cases []T, x T, equal func(x, y *T) bool) []T {
	for i := range cases {
		if equal(&cases[i], &x) {
			return cases
		}
	}
	return append(cases, x)
}

func equalArrs(x, y *arrs) bool {
	return x.rest == y.rest && x.least == y.least && x.most == y.most && x.unique == y.unique && slices.Equal(x.prefix, y.prefix) && slices.Equal(x.contains, y.contains)
}

func equalObjs(x, y *objs) bool {
	return x.least == y.least && x.most == y.most && slices.Equal(x.props, y.props) && slices.Equal(x.classes, y.classes) && slices.Equal(x.needs, y.needs)
}

// at returns the condition on item i.
func (a *arrs) at(i int) expr {
	if i < len(a.prefix) {
		return a.prefix[i]
	}
	return a.rest
}

func (c *compiler) intersectArrs(x, y arrs) arrs {
	a := arrs{rest: c.and(x.rest, y.rest), least: max(x.least, y.least), most: lowerMax(x.most, y.most), unique: x.unique || y.unique}
	for i := range max(len(x.prefix), len(y.prefix)) {
		a.prefix = append(a.prefix, c.and(x.at(i), y.at(i)))
	}
	a.contains = slices.Concat(x.contains, y.contains)
	return a
}

// unite returns the values that are in at least one of the sets.
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
