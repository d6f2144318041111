package schema

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/regex"
)

// An expr is an expression over schemas: an index into the compiler's expressions. Equal ones
// have one index.
type expr int32

const (
	nothing    expr = iota // no value
	everything             // any value
)

type exprKind uint8

const (
	exprSet    exprKind = iota // a set
	exprSchema                 // a schema of the document
	exprAnd                    // all of the parts
	exprOr                     // one of the parts or more
	exprNot                    // not the part
)

type expression struct {
	kind   exprKind
	set    *set
	schema *value
	parts  []expr
	origin *origin // of a complement
}

// An origin is the keyword that asks for something.
type origin struct {
	at      *value
	keyword string
}

// A fault is a keyword that cannot be kept.
type fault struct {
	origin
	err error
}

func (f *fault) Error() string { return f.err.Error() }
func (f *fault) Unwrap() error { return f.err }

// A compiler compiles one schema.
type compiler struct {
	budget *automaton.Budget
	root   *value
	refs   *references

	exprs  []expression
	index  map[string]expr
	sets   []*set // of expressions, once evaluated
	state  []bool // under way
	faults []*fault

	decimals, integers *regex.DFA // all numbers, and those without a fraction but zeros
	canonical          *regex.DFA
	plainInts          *regex.DFA
	cuts               map[strs]*regex.DFA
	vacant             map[expr]bool // answers of empty
	asking             map[expr]bool

	note  *Notation // nil is JSON
	style uint8     // of the whole: inside, or outermost where only objects count

	refused     []Refusal
	annotations []string
}

func newCompiler(root *value, b *automaton.Budget) *compiler {
	c := &compiler{budget: b, root: root, index: make(map[string]expr), vacant: make(map[expr]bool), asking: make(map[expr]bool)}
	c.decimals = regex.Decimals(b)
	c.canonical = regex.Canonical(b)
	one, _ := regex.ParseDecimal("1")
	c.integers, _ = regex.Multiples(b, one)
	c.plainInts = regex.And(b, c.canonical, c.integers)
	c.add(expression{set: c.none()})
	c.add(expression{set: c.all()})
	c.refs = newReferences(root)
	return c
}

func (c *compiler) add(e expression) expr {
	c.budget.Spend(64)
	c.exprs = append(c.exprs, e)
	c.sets = append(c.sets, e.set)
	c.state = append(c.state, false)
	c.faults = append(c.faults, nil)
	return expr(len(c.exprs) - 1)
}

// find returns the expression with a key, made if it is new.
func (c *compiler) find(key []byte, e expression) expr {
	if i, ok := c.index[string(key)]; ok {
		return i
	}
	i := c.add(e)
	c.index[string(key)] = i
	c.budget.Spend(len(key) + 32)
	return i
}

// of returns the expression of a set.
func (c *compiler) of(s *set) expr { return c.add(expression{set: s}) }

// schema returns the expression of a schema of the document.
func (c *compiler) schema(v *value) expr {
	if v.kind == jsonBool {
		if v.truth {
			return everything
		}
		return nothing
	}
	if v.kind == jsonObject && len(v.items) == 0 {
		return everything
	}
	if i, ok := c.refs.exprs[v]; ok {
		return i
	}
	i := c.add(expression{kind: exprSchema, schema: v})
	c.refs.exprs[v] = i
	return i
}

func (c *compiler) and(parts ...expr) expr { return c.combine(exprAnd, everything, nothing, parts) }
func (c *compiler) or(parts ...expr) expr  { return c.combine(exprOr, nothing, everything, parts) }

// combine makes an expression of parts, in order, without the neutral one and repetitions.
func (c *compiler) combine(kind exprKind, neutral, dominant expr, parts []expr) expr {
	var flat []expr
	for _, p := range parts {
		sub := []expr{p}
		if e := &c.exprs[p]; e.kind == kind {
			sub = e.parts
		}
		for _, q := range sub {
			if q == dominant {
				return dominant
			}
			if q != neutral && !slices.Contains(flat, q) {
				flat = append(flat, q)
			}
		}
	}
	switch len(flat) {
	case 0:
		return neutral
	case 1:
		return flat[0]
	}
	key := []byte{byte(kind)}
	for _, p := range flat {
		key = binary.LittleEndian.AppendUint32(key, uint32(p))
	}
	return c.find(key, expression{kind: kind, parts: flat})
}

func (c *compiler) not(e expr, o *origin) expr {
	switch {
	case e == nothing:
		return everything
	case e == everything:
		return nothing
	case c.exprs[e].kind == exprNot:
		return c.exprs[e].parts[0]
	}
	key := binary.LittleEndian.AppendUint32([]byte{byte(exprNot)}, uint32(e))
	return c.find(key, expression{kind: exprNot, parts: []expr{e}, origin: o})
}

// eval returns the set of an expression. The error is a [*fault], or errCycle where the
// expression needs itself.
func (c *compiler) eval(e expr) (*set, error) {
	switch {
	case c.sets[e] != nil:
		return c.sets[e], nil
	case c.faults[e] != nil:
		return nil, c.faults[e]
	case c.state[e]:
		return nil, errCycle
	case !c.budget.Spend(256):
		return nil, &fault{err: c.budget.Err()}
	}
	c.state[e] = true
	s, err := c.evaluate(&expression{kind: c.exprs[e].kind, schema: c.exprs[e].schema, parts: c.exprs[e].parts, origin: c.exprs[e].origin})
	c.state[e] = false
	if err == nil {
		c.sets[e] = s
		return s, nil
	}
	if f, ok := errors.AsType[*fault](err); ok {
		if !errors.Is(err, errCycle) {
			c.faults[e] = f
		}
		return nil, f
	}
	return nil, err
}

func (c *compiler) evaluate(e *expression) (*set, error) {
	switch e.kind {
	case exprSchema:
		return c.build(e.schema)
	case exprAnd:
		s := c.all()
		for _, p := range e.parts {
			q, err := c.eval(p)
			if err == nil {
				s, err = c.intersect(s, q)
			}
			if err != nil {
				return nil, err
			}
		}
		return s, nil
	case exprOr:
		s := c.none()
		for _, p := range e.parts {
			q, err := c.eval(p)
			if err == nil {
				s, err = c.unite(s, q)
			}
			if err != nil {
				return nil, err
			}
		}
		return s, nil
	case exprNot:
		s, err := c.eval(e.parts[0])
		if err == nil {
			s, err = c.complement(s, e.origin)
		}
		if _, ok := errors.AsType[*fault](err); err != nil && !ok {
			err = &fault{*e.origin, err}
		}
		return s, err
	case exprSet:
	}
	panic("internal error: a set that is not there")
}

// empty reports whether an expression surely has no value. A value that needs a smaller one
// of the same kind counts as none, as no finite value is of that kind.
func (c *compiler) empty(e expr) bool {
	if known, ok := c.vacant[e]; ok {
		return known
	}
	if c.asking[e] {
		return true
	}
	c.asking[e] = true
	s, err := c.eval(e)
	vacant := err == nil && c.emptySet(s)
	delete(c.asking, e)
	if !vacant && err == nil || len(c.asking) == 0 { // else it may be empty only because of those being asked
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
	return o.least > required+optional && o.least > required+optional+c.others(o, o.least)
}

// others returns how many undeclared members an object may have, at most limit.
func (c *compiler) others(o *objs, limit int) (n int) {
	for _, k := range c.otherClasses(o) {
		if k.names == nil {
			return limit
		}
		n = min(n+k.names.Count(limit), limit)
	}
	return n
}

// otherClasses returns the classes of undeclared members that exist; names are those that no
// prop has.
func (c *compiler) otherClasses(o *objs) (out []class) {
	var names []string
	for _, p := range o.props {
		names = append(names, p.name)
	}
	declared := regex.Words(c.budget, names)
	classes := o.classes
	if len(classes) == 0 {
		classes = []class{{value: everything}}
	}
	for _, k := range classes {
		if c.empty(k.value) {
			continue
		}
		if len(names) > 0 {
			lang := k.names
			if lang == nil {
				lang = regex.Any()
			}
			k.names = regex.Minus(c.budget, lang, declared)
		}
		if k.names == nil || !k.names.Empty() {
			out = append(out, k)
		}
	}
	return out
}
