package schema

import (
	"cmp"
	"maps"

	"github.com/inferd-go/inferd/internal/automaton"
)

const (
	maxNesting   = 128     // levels of arrays and objects in a value
	maxIndent    = 40      // spaces after a newline
	maxPositions = 1 << 15 // positions of one case of arrays or objects
)

// A ruleKey identifies a rule of the grammar: the values of expr in a style. If single is set, each
// value has one spelling.
type ruleKey struct {
	expr   expr
	single bool
	style  uint8
}

// An emitter writes the grammar. A method that writes something, followed by a node next or end, adds
// it to the grammar in front of that node, and returns the node at which it begins.
type emitter struct {
	*compiler
	b     *automaton.Builder
	rules map[ruleKey]automaton.Rule
	queue []ruleKey

	innerStyle uint8 // the style of the values in the array or object being written

	spelt     map[spelling]*automaton.DFA
	character *automaton.DFA            // any character, in UTF-8 or as ASCII requires; nil until it is needed
	names     map[string]*automaton.DFA // automata of undeclared names, by the declared names

	// openObjects reports whether the grammar so far has objects with undeclared members; if so, all
	// objects need marks. uniqueArrays reports whether it has arrays of unique items; if so, all arrays
	// need marks. markObjects and markArrays report whether these marks are written.
	openObjects, uniqueArrays bool
	markObjects, markArrays   bool
}

// compile builds the grammar with the marks that expectMarks predicts, and builds it again if other
// marks turn out to be needed.
func (c *compiler) compile() (*automaton.Grammar, error) {
	if c.refs.err != nil {
		c.refuse(c.refs.err, nothing)
		return nil, c.refs.err
	}
	if c.root.kind == jsonBool && !c.root.truth {
		return nil, automaton.ErrNothing
	}
	spelt, names := maps.Clone(constants().spelt), make(map[string]*automaton.DFA)
	e := &emitter{}
	e.openObjects, e.uniqueArrays = expectMarks(c.root)
	for {
		again := &emitter{
			compiler: c, b: &automaton.Builder{Budget: c.budget, Depth: maxNesting - 1}, rules: make(map[ruleKey]automaton.Rule), spelt: spelt, names: names,
			markObjects: e.openObjects, markArrays: e.uniqueArrays,
		}
		e = again
		start := e.styled(c.schema(c.root), false, c.style)
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

// expectMarks guesses from the keywords whether the values of a schema have objects with undeclared
// members (open), and arrays of unique items (unique).
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

// rule returns the rule of an expression in the style of the values within the current array or
// object.
func (e *emitter) rule(x expr, single bool) automaton.Rule { return e.styled(x, single, e.innerStyle) }

// styled returns the rule of an expression in a style, and queues it if it is new.
func (e *emitter) styled(x expr, single bool, style uint8) automaton.Rule {
	k := ruleKey{x, single, style}
	r, ok := e.rules[k]
	if !ok {
		e.b.Spend(64)
		r = e.b.Rule()
		e.rules[k] = r
		e.queue = append(e.queue, k)
	}
	return r
}

// values returns a node for the values of a rule. If they cannot be enforced, it records a refusal.
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
	end := e.b.End()
	if k.style != outermost && k.style != jsonWrapped {
		if ways, err = e.scalars(s, k, end); err != nil || k.style == rawMember || k.style == rawWrapped {
			return ways, err
		}
	}
	for i := range s.arrs {
		if e.emptyArrs(&s.arrs[i]) {
			continue
		}
		e.setInnerStyle(k.style, true)
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
		e.setInnerStyle(k.style, false)
		n, err := e.object(&s.objs[i], k.expr, k.style == outermost, end)
		if err != nil {
			return nil, err
		}
		ways = append(ways, n)
	}
	return ways, nil
}

// scalars returns the nodes for the values of a set other than arrays and objects: one for each
// word, one for the numbers, and one for each case of strings.
func (e *emitter) scalars(s *set, k ruleKey, end automaton.Node) (ways []automaton.Node, err error) {
	b := e.b
	if k.style != rawMember && k.style != rawWrapped {
		words := e.words(k.style)
		for i, has := range []bool{s.null, s.bools[0], s.bools[1]} {
			if has {
				ways = append(ways, b.Bytes(words[i], end))
			}
		}
		if !s.nums.Empty() {
			ways = append(ways, e.number(s.nums, k.single || e.spaced(), end))
		}
	}
	if k.style == jsonMember {
		return ways, nil
	}
	write := e.string
	switch k.style {
	case inside:
	case around:
		write = e.aroundString
	case repr:
		write = e.reprString
	default:
		write = e.wrappable(k.style == rawWrapped)
	}
	for _, x := range s.strs {
		n, err := write(x, end)
		if err != nil {
			return nil, err
		}
		ways = append(ways, n)
	}
	return ways, nil
}

// words returns the words for null, false and true in a style.
func (e *emitter) words(style uint8) [3]string {
	if e.notation == nil || e.notation.Around != "" && style == inside {
		return [3]string{"null", "false", "true"}
	}
	return [3]string{cmp.Or(e.notation.Null, "null"), cmp.Or(e.notation.False, "false"), cmp.Or(e.notation.True, "true")}
}

// bare reports whether the notation has its own quotes. Then names and strings have no JSON quotes
// anywhere.
func (e *emitter) bare() bool { return e.notation != nil && e.notation.Quote != "" }

// ws writes optional white space, followed by next. If the notation fixes white space, it writes
// next alone.
func (e *emitter) ws(next automaton.Node) automaton.Node {
	if e.bare() || e.spaced() {
		return next
	}
	return e.b.DFA(constants().space, next)
}

// mark writes the marks m, followed by next, if on is set.
func (e *emitter) mark(on bool, m automaton.Mark, next automaton.Node) automaton.Node {
	if !on {
		return next
	}
	return e.b.Mark(m, next)
}
