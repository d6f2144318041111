package schema

import (
	"encoding/json"
	"errors"
	"math"

	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/regex"
)

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

	// Found in the grammar so far: objects with undeclared members, arrays of unique items.
	// Their scopes need marks at all objects, or arrays, of the grammar.
	openObjects, uniqueArrays bool
	markObjects, markArrays   bool
}

type spelling struct {
	lang *regex.DFA
	kind uint8
}

// compile builds the grammar. It is written again with the marks that the first try shows to
// be needed.
func (c *compiler) compile() (*automaton.Grammar, error) {
	if c.refs.err != nil {
		c.refuse(c.refs.err, nothing)
		return nil, c.refs.err
	}
	if c.root.kind == jsonBool && !c.root.truth {
		return nil, automaton.ErrNothing
	}
	spelt := make(map[spelling]*automaton.DFA)
	e := &emitter{}
	for {
		again := &emitter{
			compiler: c, b: &automaton.Builder{Budget: c.budget, Depth: maxNesting - 1}, rules: make(map[ruleKey]automaton.Rule), spelt: spelt,
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

// refuse records the refusal of an expression.
func (c *compiler) refuse(err error, by expr) {
	if c.budget.Err() != nil {
		return // which is the error of the whole
	}
	f, ok := errors.AsType[*fault](err)
	if !ok || f.at == nil {
		f = &fault{origin: c.blame(err, by), err: err}
	}
	r := Refusal{Keyword: f.keyword, Why: f.err.Error()}
	if f.at != nil {
		r.Pointer = f.at.pointer()
	}
	c.refused = append(c.refused, r)
}

// culprits has the keywords that errors of whole values come from.
var culprits = map[error][]string{
	errUnique:  {"uniqueItems"},
	errFew:     {"minItems"},
	errLengths: {"maxLength", "minLength", "pattern", "format"},
	errPlaces:  {"maxContains", "minContains", "contains", "maxProperties", "minProperties", "maxItems", "minItems"},
	errCases:   {"anyOf", "oneOf", "allOf", "not", "if", "enum", "patternProperties"},
}

// blame returns the keyword behind an error of an expression: of the schemas of which it
// consists, or of those that they name.
func (c *compiler) blame(err error, e expr) origin {
	var found origin
	var owner *value
	var visit func(v *value, depth int)
	visit = func(v *value, depth int) {
		if v.kind != jsonObject || depth > 8 || found.at != nil {
			return
		}
		for _, keyword := range culprits[err] {
			if item := v.member(keyword); item != nil {
				found = origin{item, keyword}
				return
			}
		}
		for i, name := range v.names {
			switch {
			case name == "$ref":
				if target, err := c.refs.resolve(v.items[i]); err == nil {
					visit(target, depth+1)
				}
			case schemaLists[name] && v.items[i].kind == jsonArray:
				for _, s := range v.items[i].items {
					visit(s, depth+1)
				}
			}
		}
	}
	var parts func(e expr)
	parts = func(e expr) {
		x := &c.exprs[e]
		if x.kind == exprSchema {
			if owner == nil {
				owner = x.schema
			}
			visit(x.schema, 0)
		}
		for _, p := range x.parts {
			parts(p)
		}
	}
	if parts(e); found.at == nil {
		found.at = owner
	}
	return found
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

// Kinds of spellings.
const (
	spellQuoted uint8 = iota
	spellNumber
	spellCanonical
)

// spell returns the spelling of a language, made once.
func (e *emitter) spell(lang *regex.DFA, kind uint8, write func() *automaton.DFA) *automaton.DFA {
	k := spelling{lang, kind}
	d, ok := e.spelt[k]
	if !ok {
		d = write()
		e.spelt[k] = d
	}
	return d
}

// number writes numbers: integers without a fraction, finite languages without zeros that say
// nothing, and exponents only where nothing is asked of a number.
func (e *emitter) number(nums *regex.DFA, single bool, next automaton.Node) automaton.Node {
	kind := spellNumber
	if single {
		kind = spellCanonical
	}
	return e.b.DFA(e.spell(nums, kind, func() *automaton.DFA {
		switch {
		case single:
			nums = regex.And(e.budget, nums, e.canonical)
		case nums == e.decimals:
			nums = regex.JSONNumbers(e.budget)
		case nums == e.integers:
			nums = e.plainInts
		default:
			if regex.Minus(e.budget, nums, e.integers).Empty() {
				nums = regex.And(e.budget, nums, e.plainInts)
			} else if short := regex.And(e.budget, nums, e.canonical); short.Finite() {
				nums = short
			}
		}
		return regex.Raw(e.budget, nums)
	}), next)
}

func (e *emitter) string(x strs, next automaton.Node) (automaton.Node, error) {
	next = e.b.Bytes(`"`, next)
	if x.lang == nil {
		most := x.most
		if most < 0 {
			most = automaton.Unlimited
		}
		return e.b.Bytes(`"`, e.b.Text(x.least, most, next)), nil
	}
	lang, err := e.cutStrs(x)
	if err != nil {
		return 0, err
	}
	return e.b.Bytes(`"`, e.quoted(lang, next)), nil
}

// quoted writes the inside of strings.
func (e *emitter) quoted(lang *regex.DFA, next automaton.Node) automaton.Node {
	if lang.Empty() {
		return e.b.Alt()
	}
	return e.b.DFA(e.spell(lang, spellQuoted, func() *automaton.DFA { return regex.Quoted(e.budget, lang) }), next)
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

// array writes the arrays of a case.
func (e *emitter) array(a *arrs, end automaton.Node) (automaton.Node, error) {
	unique := a.unique && (a.most < 0 || a.most > 1)
	if unique {
		e.uniqueArrays = true
		if err := e.checkUnique(a); err != nil {
			return 0, err
		}
	}
	b := e.b
	w := &arrayWriter{emitter: e, a: a, unique: unique && e.markArrays, behind: make(map[string]automaton.Node)}
	w.close = b.Bytes("]", e.mark(e.markArrays, automaton.Close, end))
	w.last = w.ending(end)
	open := automaton.Open
	if w.unique {
		open |= automaton.Begin
	}
	start := w.items(make([]int, len(a.contains)))
	if w.err != nil {
		return 0, w.err
	}
	ways := []automaton.Node{start}
	if w.enough(0, make([]int, len(a.contains))) {
		ways = append(ways, w.close)
	}
	return b.Bytes("[", e.mark(e.markArrays, open, e.ws(b.Alt(ways...)))), nil
}

// checkUnique reports whether the items of a case can be kept apart.
func (e *emitter) checkUnique(a *arrs) error {
	for _, p := range a.prefix {
		if p != a.rest {
			return errUnique
		}
	}
	s, err := e.eval(a.rest)
	if err != nil {
		return err
	}
	for i := range s.arrs {
		if !e.emptyArrs(&s.arrs[i]) {
			return errUnique
		}
	}
	for i := range s.objs {
		if !e.emptyObjs(&s.objs[i]) {
			return errUnique
		}
	}
	if len(a.contains) > 0 {
		return errUnique
	}
	limit := a.least
	lang, err := e.stringLanguage(s)
	if err != nil {
		return err
	}
	n := regex.And(e.budget, s.nums, e.canonical).Count(limit) + lang.Count(limit)
	for _, ok := range []bool{s.null, s.bools[0], s.bools[1]} {
		if ok {
			n++
		}
	}
	if n < a.least {
		return errFew
	}
	return nil
}

// An arrayWriter writes one case of arrays.
type arrayWriter struct {
	*emitter
	a           *arrs
	unique      bool
	close, last automaton.Node // the end of an empty array, and behind an item
	behind      map[string]automaton.Node
	err         error
}

// ending writes the end behind an item. The spelling of a unique item has ended before it.
func (w *arrayWriter) ending(end automaton.Node) automaton.Node {
	b := w.b
	if !w.unique {
		return w.ws(w.close)
	}
	marked := b.Bytes("]", b.Mark(automaton.End|automaton.Close, end))
	space := b.Rule()
	b.Body(space, b.Bytes(" ", b.End()))
	return b.Alt(marked, b.Bytes(" ", b.Mark(automaton.End, w.close)), b.Bytes("\n", b.Mark(automaton.End, b.Repeat(space, 0, maxIndent, w.close))))
}

// enough reports whether an array of i items may end.
func (w *arrayWriter) enough(i int, counts []int) bool {
	for k, n := range counts {
		if n < w.a.contains[k].least {
			return false
		}
	}
	return i >= w.a.least
}

// comma writes the comma before a further item.
func (w *arrayWriter) comma(item automaton.Node) automaton.Node {
	return w.b.Bytes(",", w.mark(w.unique, automaton.End|automaton.Begin, w.ws(item)))
}

// items writes the items from the first one on.
func (w *arrayWriter) items(counts []int) automaton.Node {
	if len(w.a.contains) > 0 {
		return w.item(0, counts)
	}
	// Without counts of matches: the prefix one by one, then a repetition.
	a, b := w.a, w.b
	call := func(x expr, next automaton.Node) automaton.Node { return b.Nest(w.rule(x, w.unique), next) }
	more := b.Rule()
	b.Body(more, w.comma(call(a.rest, b.End())))
	n := len(a.prefix)
	if a.most >= 0 {
		n = min(n, a.most)
	}
	rest := func(i int) automaton.Node { // behind i items, all of the prefix
		most := automaton.Unlimited
		if a.most >= 0 {
			most = a.most - i
		}
		return b.Repeat(more, max(a.least-i, 0), most, w.last)
	}
	if n == 0 {
		if a.most == 0 {
			return b.Alt()
		}
		return call(a.rest, rest(1))
	}
	next := rest(n)
	for i := n - 1; i >= 0; i-- {
		item := call(a.prefix[i], next)
		if i == 0 {
			return item
		}
		ways := []automaton.Node{w.comma(item)}
		if i >= a.least {
			ways = append(ways, w.last)
		}
		next = b.Alt(ways...)
	}
	return next
}

// item writes item i and the rest of the array, where counts items have matched.
func (w *arrayWriter) item(i int, counts []int) automaton.Node {
	a := w.a
	if a.most >= 0 && i >= a.most {
		return w.b.Alt()
	}
	type way struct {
		expr   expr
		counts []int
	}
	ways := []way{{a.at(i), counts}}
	for k, what := range a.contains {
		if i < what.from {
			continue
		}
		var next []way
		for _, x := range ways {
			if what.most < 0 || x.counts[k] < what.most {
				more := append([]int(nil), x.counts...)
				if more[k]++; what.most < 0 {
					more[k] = min(more[k], what.least)
				}
				next = append(next, way{w.and(x.expr, what.what), more})
			}
			if what.most >= 0 { // matches are counted exactly
				x.expr = w.and(x.expr, w.not(what.what, &origin{w.root, "contains"}))
			}
			next = append(next, x)
		}
		ways = next
	}
	var nodes []automaton.Node
	for _, x := range ways {
		if !w.empty(x.expr) {
			nodes = append(nodes, w.b.Nest(w.rule(x.expr, false), w.after(i+1, x.counts)))
		}
	}
	return w.b.Alt(nodes...)
}

// after writes the rest of an array behind i items.
func (w *arrayWriter) after(i int, counts []int) automaton.Node {
	a := w.a
	if a.most < 0 { // beyond all places that matter, the number of items is not counted
		limit := max(len(a.prefix), a.least)
		for _, k := range a.contains {
			limit = max(limit, k.from)
		}
		i = min(i, limit)
	}
	key, err := json.Marshal(append([]int{i}, counts...))
	if err != nil {
		panic("internal error: " + err.Error())
	}
	if n, ok := w.behind[string(key)]; ok {
		return n
	}
	if len(w.behind) > maxPlaces || !w.b.Spend(128) {
		w.err = errPlaces
		return w.b.Alt()
	}
	n := w.b.Forward()
	w.behind[string(key)] = n
	ways := []automaton.Node{w.comma(w.item(i, counts))}
	if w.enough(i, counts) {
		ways = append(ways, w.last)
	}
	w.b.Define(n, ways...)
	return n
}

// object writes the objects of a case.
func (e *emitter) object(o *objs, end automaton.Node) (automaton.Node, error) {
	w := &objectWriter{emitter: e, o: o, behind: make(map[place]automaton.Node), ahead: make(map[place]automaton.Node)}
	for _, p := range o.props {
		if !e.empty(p.value) {
			w.props = append(w.props, p)
		}
	}
	w.counted = o.least > 0 || o.most >= 0
	w.classes = e.otherClasses(o)
	w.spare = math.MaxInt
	if o.least > 0 {
		if n := e.others(o, o.least+1); n <= o.least {
			w.spare = n
		}
	}
	if len(w.classes) > 0 && (o.most < 0 || o.most > 0) {
		e.openObjects = true
	}
	w.required = make([]bool, len(w.props)+1)
	for i := len(w.props) - 1; i >= 0; i-- {
		w.required[i] = w.required[i+1] || w.props[i].required
	}
	b := e.b
	w.close = b.Bytes("}", e.mark(e.markObjects, automaton.Close, end))
	w.last = e.ws(w.close)
	ways := []automaton.Node{w.next(place{})}
	if !w.required[0] && o.least == 0 {
		ways = append(ways, w.close)
	}
	if w.err != nil {
		return 0, w.err
	}
	return b.Bytes("{", e.mark(e.markObjects, automaton.Open|automaton.Begin, e.ws(b.Alt(ways...)))), nil
}

// A place is a position in an object: the next prop, the members so far as far as they are
// counted, and the undeclared ones among them as far as they are limited.
type place struct{ prop, members, others int }

// An objectWriter writes one case of objects.
type objectWriter struct {
	*emitter
	o             *objs
	props         []prop
	classes       []class // of undeclared members
	counted       bool
	spare         int    // undeclared names that there are, if that matters
	required      []bool // of each place, whether a required prop is left
	close, last   automaton.Node
	behind, ahead map[place]automaton.Node
	err           error
}

// full reports whether another member is too many.
func (w *objectWriter) full(p place) bool { return w.o.most >= 0 && p.members >= w.o.most }

// add returns the place behind another member.
func (w *objectWriter) add(p place) place {
	if w.counted {
		if p.members++; w.o.most < 0 {
			p.members = min(p.members, w.o.least)
		}
	}
	return p
}

// member writes a member: name writes its name in front of a node.
func (w *objectWriter) member(name func(automaton.Node) automaton.Node, value expr, next automaton.Node) automaton.Node {
	b := w.b
	next = b.Nest(w.rule(value, false), next)
	next = b.Bytes(`":`, w.mark(w.markObjects, automaton.End, b.DFA(w.gap, next)))
	return b.Bytes(`"`, name(next))
}

// next writes a member that must come, from a place on.
func (w *objectWriter) next(p place) automaton.Node {
	if w.full(p) {
		return w.b.Alt()
	}
	if n, ok := w.ahead[p]; ok {
		return n
	}
	if len(w.ahead) > maxPlaces || !w.b.Spend(128) {
		w.err = errPlaces
		return w.b.Alt()
	}
	n := w.b.Forward()
	w.ahead[p] = n
	var ways []automaton.Node
	if p.prop < len(w.props) {
		prop := &w.props[p.prop]
		q := p
		q.prop++
		ways = append(ways, w.member(func(next automaton.Node) automaton.Node { return w.b.Bytes(inner(prop.name), next) }, prop.value, w.after(w.add(q))))
		if !prop.required {
			ways = append(ways, w.next(q))
		}
	} else if p.others < w.spare {
		q := w.add(p)
		if w.spare != math.MaxInt {
			q.others++
		}
		for _, k := range w.classes {
			ways = append(ways, w.member(func(next automaton.Node) automaton.Node {
				if k.names == nil {
					return w.b.Text(0, automaton.Unlimited, next)
				}
				return w.quoted(k.names, next)
			}, k.value, w.after(q)))
		}
	}
	w.b.Define(n, ways...)
	return n
}

// after writes the rest of an object behind a member.
func (w *objectWriter) after(p place) automaton.Node {
	if n, ok := w.behind[p]; ok {
		return n
	}
	n := w.b.Forward()
	w.behind[p] = n
	ways := []automaton.Node{w.b.Bytes(",", w.mark(w.markObjects, automaton.Begin, w.ws(w.next(p))))}
	if !w.required[p.prop] && p.members >= w.o.least {
		ways = append(ways, w.last)
	}
	w.b.Define(n, ways...)
	return n
}

// inner returns the inside of a JSON string: each character in its one spelling.
func inner(s string) string {
	var out []byte
	for i := range len(s) {
		switch b := s[i]; b {
		case '"', '\\':
			out = append(out, '\\', b)
		case '\b':
			out = append(out, `\b`...)
		case '\f':
			out = append(out, `\f`...)
		case '\n':
			out = append(out, `\n`...)
		case '\r':
			out = append(out, `\r`...)
		case '\t':
			out = append(out, `\t`...)
		default:
			if b < 0x20 {
				out = append(out, `\u00`...)
				out = append(out, "01"[b>>4], "0123456789abcdef"[b&15])
			} else {
				out = append(out, b)
			}
		}
	}
	return string(out)
}
