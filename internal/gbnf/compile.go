package gbnf

import (
	"errors"
	"math"
	"slices"
	"strings"

	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/regex"
)

// Limits of a grammar for [Compile].
const (
	MaxBytes        = 64 << 10
	MaxAlternatives = 4096 // each | counts, wherever it stands
	MaxRepetitions  = 65_535

	maxCalls   = 4096    // levels of nested rules in a text
	maxRegular = 2000    // elements of a repeated part that is compiled to a DFA; see regular
	maxDFA     = 1 << 20 // bytes that the construction of such a DFA may take
)

// A Tokens returns the id of the token with a name from a grammar, such as <think> or <[5]>. It
// reports false if there is no such token.
type Tokens func(name string) (id int32, ok bool)

// Compile returns the grammar of a source; its start symbol is root. The error is an [*Error]. If tokens
// is nil, a name of a token is an error. A nil budget has the default bounds.
func Compile(source string, tokens Tokens, b *automaton.Budget) (*automaton.Grammar, error) {
	p := &parser{source: source, rules: make(map[string]*rule)}
	switch n := strings.Count(source, "|"); {
	case len(source) > MaxBytes:
		return nil, p.errorf(0, "larger than %d bytes", MaxBytes)
	case n > MaxAlternatives:
		return nil, p.errorf(0, "%d alternatives, at most %d are allowed", n, MaxAlternatives)
	}
	if err := p.parse(); err != nil {
		return nil, err
	}
	for _, r := range p.defined {
		if err := p.begin(r, r.at); err != nil {
			return nil, err
		}
	}
	if b == nil {
		b = &automaton.Budget{}
	}
	c := &compiler{parser: p, b: &automaton.Builder{Budget: b, Depth: maxCalls}, tokens: tokens, rules: make(map[*rule]automaton.Rule), sizes: make(map[*rule]int), chars: make(map[*element]*automaton.DFA), loops: make(map[*element]*automaton.DFA)}
	g, err := c.compile()
	if err != nil {
		if _, ok := errors.AsType[*Error](err); ok {
			return nil, err
		}
		if errors.Is(err, automaton.ErrNothing) {
			err = errors.New("no text matches the grammar")
		}
		return nil, p.errorf(0, "%v", err)
	}
	a := automaton.New(g)
	if a.Start(); a.Err() != nil {
		return nil, p.errorf(p.rules["root"].at, "%v", a.Err())
	}
	return g, nil
}

// begin determines whether r matches the empty text, after it has done so for the rules with which r may
// begin. If r is among these, it begins with itself, which is an error; at is the position of that error.
func (p *parser) begin(r *rule, at int) (err error) {
	switch r.state {
	case unseen:
	case seen:
		return nil
	case underWay:
		return p.errorf(at, "a rule begins with itself")
	}
	r.state = underWay
	r.nullable, err = p.beginAny(r.body)
	r.state = seen
	return err
}

func (p *parser) beginAny(body []sequence) (nullable bool, err error) {
	for _, s := range body {
		whole := true
		for i := 0; whole && i < len(s); i++ {
			if whole, err = p.beginOne(&s[i]); err != nil {
				return false, err
			}
		}
		nullable = nullable || whole
	}
	return nullable, nil
}

func (p *parser) beginOne(e *element) (nullable bool, err error) {
	switch {
	case e.rule != "":
		r := p.rules[e.rule]
		err = p.begin(r, e.at)
		nullable = r.nullable
	case e.group != nil:
		nullable, err = p.beginAny(e.group)
	}
	return nullable || e.optional, err
}

// A compiler writes a parsed grammar.
type compiler struct {
	*parser
	b      *automaton.Builder
	tokens Tokens
	rules  map[*rule]automaton.Rule
	sizes  map[*rule]int               // elements of regular rules, written out; see size
	chars  map[*element]*automaton.DFA // of classes
	loops  map[*element]*automaton.DFA // results of regular; nil if the element gets no DFA
	end    automaton.Node
	err    error
}

func (c *compiler) compile() (*automaton.Grammar, error) {
	c.end = c.b.End()
	for _, r := range c.defined {
		c.rules[r] = c.b.Rule()
	}
	for _, r := range c.defined {
		c.b.Body(c.rules[r], c.any(r.body, c.end))
		if c.err != nil {
			return nil, c.err
		}
	}
	return c.b.Build(c.rules[c.parser.rules["root"]])
}

// any writes a node for alternatives, followed by next.
func (c *compiler) any(body []sequence, next automaton.Node) automaton.Node {
	ways := make([]automaton.Node, len(body))
	for i, s := range body {
		way := next
		for j := range slices.Backward(s) {
			way = c.repeated(&s[j], len(s[j].repeats), way)
		}
		ways[i] = way
	}
	return c.b.Alt(ways...)
}

// repeated writes an element with the innermost n of its repetition operators, followed by next.
func (c *compiler) repeated(e *element, n int, next automaton.Node) automaton.Node {
	if n == 0 {
		return c.one(e, next)
	}
	r := e.repeats[n-1]
	switch {
	case r.least == 1 && r.most == 1:
		return c.repeated(e, n-1, next)
	case r.least == 0 && r.most == 1:
		return c.b.Alt(c.repeated(e, n-1, next), next)
	}
	if n == len(e.repeats) {
		if d := c.regular(e); d != nil {
			return c.b.DFA(d, next)
		}
	}
	body := c.b.Rule()
	c.b.Body(body, c.repeated(e, n-1, c.end))
	most := r.most
	if most == math.MaxInt {
		most = automaton.Unlimited
	}
	return c.b.Repeat(body, r.least, most, next)
}

// one writes an element without its repetition operators, followed by next.
func (c *compiler) one(e *element, next automaton.Node) automaton.Node {
	switch {
	case e.rule != "":
		r := c.rules[c.parser.rules[e.rule]]
		if next == c.end {
			return c.b.Call(r, next)
		}
		return c.b.Nest(r, next)
	case e.group != nil:
		return c.any(e.group, next)
	case e.token != "":
		id, ok := int32(0), false
		if c.tokens != nil {
			id, ok = c.tokens(e.token)
		}
		switch {
		case !ok:
			if c.err == nil {
				c.err = c.errorf(e.at, "the model has no token %s", e.token)
			}
			return next
		case e.negated:
			return c.b.OtherToken(id, next)
		}
		return c.b.Token(id, next)
	case e.literal != nil:
		text, ok := literal(e.literal)
		if !ok {
			return c.b.Alt()
		}
		return c.b.Bytes(text, next)
	}
	d, ok := c.chars[e]
	if !ok {
		lang, err := regex.Build(c.b.Budget, class(e))
		if err != nil {
			return c.b.Alt() // the budget has recorded the error
		}
		d = regex.Raw(c.b.Budget, lang)
		c.chars[e] = d
	}
	if len(d.Accept) == 0 {
		return c.b.Alt()
	}
	return c.b.DFA(d, next)
}

// literal returns the text of a literal. It reports false if a code point is a surrogate or exceeds the
// largest one of Unicode.
func literal(all []charRange) (string, bool) {
	var s strings.Builder
	for _, r := range all {
		if r.least > 0x10ffff || r.least >= 0xd800 && r.least < 0xe000 {
			return "", false
		}
		s.WriteRune(rune(r.least))
	}
	return s.String(), true
}

// class returns the expression for one character of a class.
func class(e *element) regex.Tree {
	var ranges [][2]rune
	for _, r := range e.class {
		if r.least <= 0x10ffff {
			ranges = append(ranges, [2]rune{rune(r.least), rune(min(r.most, 0x10ffff))})
		}
	}
	return regex.Chars(ranges, e.negated)
}

// regular returns a DFA for a repeated element without recursion and tokens. It returns nil for other
// elements, for elements that match no text, and if the DFA would be too large. A DFA saves work: a
// position in it is a single item of a state, and from it masks get the number of plain characters that
// fit (see [automaton.Automaton.Plain]).
func (c *compiler) regular(e *element) *automaton.DFA {
	if d, ok := c.loops[e]; ok {
		return d
	}
	c.loops[e] = nil
	if c.size(e) > maxRegular {
		return nil
	}
	b := &automaton.Budget{Bytes: maxDFA}
	lang, err := regex.Build(b, c.tree(e))
	if err != nil || lang.Empty() || !c.b.Spend(b.Used()) {
		return nil
	}
	d := regex.Raw(b, lang)
	if b.Err() != nil {
		return nil
	}
	c.b.Budget.Free(b.Used())
	c.loops[e] = d
	return d
}

// size returns the number of elements in e with all rules and repetitions written out, up to a cap
// above maxRegular. Recursion and tokens count as the cap.
func (c *compiler) size(e *element) (n int) {
	const huge = 2 * maxRegular
	switch {
	case e.token != "":
		return huge
	case e.rule != "":
		r := c.parser.rules[e.rule]
		known, ok := c.sizes[r]
		if !ok {
			c.sizes[r] = huge // the result if the rule is recursive
			known = c.sizeAny(r.body)
			c.sizes[r] = known
		}
		n = known
	case e.group != nil:
		n = c.sizeAny(e.group)
	case e.literal != nil:
		n = len(e.literal)
	default:
		n = 1
	}
	for _, r := range e.repeats {
		times := r.most
		if times == math.MaxInt {
			times = r.least + 1
		}
		n = min(n*max(times, 1), huge)
	}
	return n
}

func (c *compiler) sizeAny(body []sequence) (n int) {
	n = 1
	for _, s := range body {
		for i := range s {
			n = min(n+c.size(&s[i]), 2*maxRegular)
		}
	}
	return n
}

// tree returns the expression of a regular element.
func (c *compiler) tree(e *element) (t regex.Tree) {
	switch {
	case e.rule != "":
		t = c.treeAny(c.parser.rules[e.rule].body)
	case e.group != nil:
		t = c.treeAny(e.group)
	case e.literal != nil:
		var parts []regex.Tree
		for _, r := range e.literal {
			parts = append(parts, class(&element{class: []charRange{r}}))
		}
		t = regex.Seq(parts...)
	default:
		t = class(e)
	}
	for _, r := range e.repeats {
		most := r.most
		if most == math.MaxInt {
			most = -1
		}
		t = regex.Repeat(t, r.least, most)
	}
	return t
}

func (c *compiler) treeAny(body []sequence) regex.Tree {
	var ways []regex.Tree
	for _, s := range body {
		var parts []regex.Tree
		for i := range s {
			parts = append(parts, c.tree(&s[i]))
		}
		ways = append(ways, regex.Seq(parts...))
	}
	return regex.Alt(ways...)
}
