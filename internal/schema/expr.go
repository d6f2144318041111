package schema

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/regex"
)

// An expr is an expression over schemas: an index into the compiler's expressions. Combinations of
// the same parts have the same index.
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
	exprOr                     // at least one of the parts
	exprNot                    // not the part
)

type expression struct {
	kind   exprKind
	set    *set
	schema *value
	parts  []expr
	origin *origin // of a complement: the keyword that needs it; otherwise nil
}

// An origin is the keyword that is the cause of an expression or a fault.
type origin struct {
	at      *value
	keyword string
}

// A fault is the error of a keyword that cannot be enforced.
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

	exprs      []expression
	index      map[string]expr
	sets       []*set // of each expression; nil until it is evaluated
	evaluating []bool // of each expression, whether it is being evaluated
	faults     []*fault

	numbers
	written  map[*regex.DFA]func() *automaton.DFA // languages of formats as the inside of a JSON string
	langs    *languages
	cuts     map[strs]*regex.DFA
	vacant   map[expr]bool // results of empty
	deciding map[expr]bool // expressions for which empty runs

	notation *Notation // nil means JSON
	style    uint8     // of the outermost value: inside, or outermost if only its objects are compiled

	refused     []Refusal
	annotations []string
}

func newCompiler(root *value, b *automaton.Budget) *compiler {
	c := &compiler{
		budget: b, root: root, numbers: constants().numbers, index: make(map[string]expr), vacant: make(map[expr]bool), deciding: make(map[expr]bool),
		written: make(map[*regex.DFA]func() *automaton.DFA),
	}
	c.langs = newLanguages(b)
	c.add(expression{set: c.none()})
	c.add(expression{set: c.all()})
	c.refs = newReferences(root)
	return c
}

func (c *compiler) add(e expression) expr {
	c.budget.Spend(64)
	c.exprs = append(c.exprs, e)
	c.sets = append(c.sets, e.set)
	c.evaluating = append(c.evaluating, false)
	c.faults = append(c.faults, nil)
	return expr(len(c.exprs) - 1)
}

// find returns the expression with that key, or adds e if there is none.
func (c *compiler) find(key []byte, e expression) expr {
	if i, ok := c.index[string(key)]; ok {
		return i
	}
	i := c.add(e)
	c.index[string(key)] = i
	c.budget.Spend(len(key) + 32)
	return i
}

// fromSet returns a new expression for the values of a set.
func (c *compiler) fromSet(s *set) expr { return c.add(expression{set: s}) }

// schema returns the expression for a schema of the document.
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

// combine returns the conjunction or disjunction of parts, in order. It flattens parts of the same
// kind, and omits neutral and repeated parts. If dominant is among the parts, or if a conjunction
// has both a part and its complement, the result is dominant.
func (c *compiler) combine(kind exprKind, neutral, dominant expr, parts []expr) expr {
	var flat []expr
	for _, p := range parts {
		sub := []expr{p}
		if e := &c.exprs[p]; e.kind == kind {
			sub = e.parts
		}
		for _, q := range sub {
			if q == dominant || c.opposite(q, flat, kind) {
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

// opposite reports whether kind is exprAnd and the complement of e is in among.
func (c *compiler) opposite(e expr, among []expr, kind exprKind) bool {
	if kind != exprAnd {
		return false
	}
	for _, f := range among {
		if c.exprs[e].kind == exprNot && c.exprs[e].parts[0] == f || c.exprs[f].kind == exprNot && c.exprs[f].parts[0] == e {
			return true
		}
	}
	return false
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

// eval returns the set of values of an expression. The error is errCycle if the expression depends on
// itself, or the error of a keyword or of an operation on sets; it is in a [*fault] if the keyword is known.
func (c *compiler) eval(e expr) (*set, error) {
	switch {
	case c.sets[e] != nil:
		return c.sets[e], nil
	case c.faults[e] != nil:
		return nil, c.faults[e]
	case c.evaluating[e]:
		return nil, errCycle
	case !c.budget.Spend(256):
		return nil, &fault{err: c.budget.Err()}
	}
	c.evaluating[e] = true
	s, err := c.evaluate(&expression{kind: c.exprs[e].kind, schema: c.exprs[e].schema, parts: c.exprs[e].parts, origin: c.exprs[e].origin})
	c.evaluating[e] = false
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
	panic("internal error: an expression without a set")
}
