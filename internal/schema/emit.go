package schema

import "github.com/inferd-go/inferd/internal/automaton"

const (
	maxNesting = 128     // arrays and objects in each other, in a value
	maxIndent  = 40      // spaces behind a newline
	maxPlaces  = 1 << 15 // nodes of one case that counts
)

// A ruleKey is a rule of the grammar: the values of an expression; with single, each value has
// one spelling.
type ruleKey struct {
	expr   expr
	single bool
}

// An emitter writes the grammar.
type emitter struct {
	*compiler
	b     *automaton.Builder
	rules map[ruleKey]automaton.Rule
	queue []ruleKey

	space, gap *automaton.DFA // white space between tokens, and behind a colon
	spelt      map[spelling]*automaton.DFA
	names      map[string]*automaton.DFA // undeclared names, by the declared ones

	// Found in the grammar so far: objects with undeclared members, arrays of unique items.
	// Their scopes need marks at all objects, or arrays, of the grammar.
	openObjects, uniqueArrays bool
	markObjects, markArrays   bool
}

// compile builds the grammar. It is written with the marks that a look at the schema expects to be
// needed, and again if others are.
func (c *compiler) compile() (*automaton.Grammar, error) {
	if c.refs.err != nil {
		c.refuse(c.refs.err, nothing)
		return nil, c.refs.err
	}
	if c.root.kind == jsonBool && !c.root.truth {
		return nil, automaton.ErrNothing
	}
	spelt, names := make(map[spelling]*automaton.DFA), make(map[string]*automaton.DFA)
	e := &emitter{}
	e.openObjects, e.uniqueArrays = expectMarks(c.root)
	for {
		again := &emitter{
			compiler: c, b: &automaton.Builder{Budget: c.budget, Depth: maxNesting - 1}, rules: make(map[ruleKey]automaton.Rule), spelt: spelt, names: names,
			markObjects: e.openObjects, markArrays: e.uniqueArrays,
		}
		e = again
		e.space, e.gap = whiteSpace()
		start := e.rule(c.schema(c.root), false)
		for len(e.queue) > 0 {
			k := e.queue[0]
			e.queue = e.queue[1:]
			e.b.Body(e.rules[k], e.values(k))
			if !c.budget.Spend(0) {
				return nil, c.budget.Err()
			}
		}
		if len(c.refused) > 0 {
			return nil, errUnsupported
		}
		if e.markObjects == e.openObjects && e.markArrays == e.uniqueArrays {
			return e.b.Build(start)
		}
	}
}

// expectMarks reports whether a schema probably has objects with undeclared members, and arrays of
// unique items.
func expectMarks(v *value) (open, unique bool) {
	if v.kind == jsonObject {
		others, kind := v.member("additionalProperties"), v.member("type")
		open = (others == nil || others.kind != jsonBool || others.truth) && (kind != nil && kind.text == "object" || v.member("properties") != nil)
		u := v.member("uniqueItems")
		unique = u != nil && u.truth
	}
	for _, item := range v.items {
		o, u := expectMarks(item)
		open, unique = open || o, unique || u
	}
	return open, unique
}

// whiteSpace returns the white space between tokens (nothing, a space, or a newline and an
// indent) and behind a colon (nothing or a space).
func whiteSpace() (space, gap *automaton.DFA) {
	space = &automaton.DFA{First: []int32{0, 2, 2}, Accept: []bool{true, true}, Edges: []automaton.Edge{{Lo: '\n', Hi: '\n', To: 2}, {Lo: ' ', Hi: ' ', To: 1}}}
	for i := range int32(maxIndent + 1) {
		if i < maxIndent {
			space.Edges = append(space.Edges, automaton.Edge{Lo: ' ', Hi: ' ', To: i + 3})
		}
		space.First = append(space.First, int32(len(space.Edges)))
		space.Accept = append(space.Accept, true)
	}
	gap = &automaton.DFA{First: []int32{0, 1, 1}, Accept: []bool{true, true}, Edges: []automaton.Edge{{Lo: ' ', Hi: ' ', To: 1}}}
	return space, gap
}

// rule returns the rule of an expression.
func (e *emitter) rule(x expr, single bool) automaton.Rule {
	k := ruleKey{x, single}
	r, ok := e.rules[k]
	if !ok {
		e.b.Spend(64)
		r = e.b.Rule()
		e.rules[k] = r
		e.queue = append(e.queue, k)
	}
	return r
}

// values returns the alternatives of an expression.
func (e *emitter) values(k ruleKey) automaton.Node {
	s, err := e.eval(k.expr)
	var ways []automaton.Node
	if err == nil {
		ways, err = e.set(s, k)
	}
	if err != nil {
		e.refuse(err, k.expr)
		return e.b.Alt()
	}
	return e.b.Alt(ways...)
}

func (e *emitter) set(s *set, k ruleKey) (ways []automaton.Node, err error) {
	b := e.b
	end := b.End()
	if s.null {
		ways = append(ways, b.Bytes("null", end))
	}
	for i, word := range []string{"false", "true"} {
		if s.bools[i] {
			ways = append(ways, b.Bytes(word, end))
		}
	}
	if !s.nums.Empty() {
		ways = append(ways, e.number(s.nums, k.single, end))
	}
	for _, x := range s.strs {
		n, err := e.string(x, end)
		if err != nil {
			return nil, err
		}
		ways = append(ways, n)
	}
	for i := range s.arrs {
		if e.emptyArrs(&s.arrs[i]) {
			continue
		}
		n, err := e.array(&s.arrs[i], end)
		if err != nil {
			return nil, err
		}
		ways = append(ways, n)
	}
	for i := range s.objs {
		if e.emptyObjs(&s.objs[i]) {
			continue
		}
		n, err := e.object(&s.objs[i], end)
		if err != nil {
			return nil, err
		}
		ways = append(ways, n)
	}
	return ways, nil
}

// ws writes white space.
func (e *emitter) ws(next automaton.Node) automaton.Node { return e.b.DFA(e.space, next) }

// mark passes marks if they are needed.
func (e *emitter) mark(on bool, m automaton.Mark, next automaton.Node) automaton.Node {
	if !on {
		return next
	}
	return e.b.Mark(m, next)
}
