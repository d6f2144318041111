package automaton

import "slices"

// A Builder makes a [Grammar]. Nodes are made from the end of a text to its beginning: a method
// that makes a node is passed the node that follows it. The zero value is ready for use.
type Builder struct {
	Budget *Budget // nil means one with the default bounds
	Depth  int     // maximum levels of calls made with Nest; 0 means 128

	g      Grammar
	sets   map[Set]int32
	dfas   map[*DFA]int32
	bodies []int32 // the number of nodes at each call of Body
}

// Spend calls [Budget.Spend] of the builder's budget.
func (b *Builder) Spend(bytes int) bool {
	if b.Budget == nil {
		b.Budget = &Budget{}
	}
	return b.Budget.Spend(bytes)
}

func (b *Builder) add(n node) Node {
	b.Spend(36) // including its cost, its height and unused capacity
	if len(b.g.nodes) == cap(b.g.nodes) {
		b.g.nodes = slices.Grow(b.g.nodes, len(b.g.nodes)+64) // append would grow a large slice too often
	}
	b.g.nodes = append(b.g.nodes, n)
	return Node(len(b.g.nodes) - 1)
}

// End makes the node that ends a rule, or the whole text.
func (b *Builder) End() Node { return b.add(node{kind: kindEnd}) }

// Set makes a node that takes one byte of a set.
func (b *Builder) Set(set Set, next Node) Node {
	return b.add(node{kind: kindSet, x: b.set(set), next: int32(next)})
}

// set returns the index of a set.
func (b *Builder) set(set Set) int32 {
	i, ok := b.sets[set]
	if !ok {
		if b.sets == nil {
			b.sets = make(map[Set]int32)
		}
		i = int32(len(b.g.sets))
		b.sets[set] = i
		b.g.sets = append(b.g.sets, set)
	}
	return i
}

// Bytes makes nodes that take the bytes of a text, and returns the first one, or next if the text is
// empty.
func (b *Builder) Bytes(text string, next Node) Node {
	for i := len(text) - 1; i >= 0; i-- {
		var s Set
		s.Add(text[i], text[i])
		next = b.Set(s, next)
	}
	return next
}

// DFA makes a node that takes a text that d accepts.
func (b *Builder) DFA(d *DFA, next Node) Node {
	return b.add(node{kind: kindDFA, x: b.dfa(d), next: int32(next)})
}

// dfa returns the index of a DFA.
func (b *Builder) dfa(d *DFA) int32 {
	i, ok := b.dfas[d]
	if !ok {
		if b.dfas == nil {
			b.dfas = make(map[*DFA]int32)
		}
		i = int32(len(b.g.dfas))
		b.dfas[d] = i
		b.Spend(d.Size() + 4*len(d.Accept))
		b.g.dfas = append(b.g.dfas, d)
	}
	return i
}

// Text makes a node that takes least to most characters of a JSON string, each in the one spelling
// that this package allows for it.
func (b *Builder) Text(least, most int, next Node) Node {
	if least > MaxCount {
		return b.Alt()
	}
	return b.add(node{kind: kindText, min: count(least), max: count(most), next: int32(next)})
}

// count returns n, or Unlimited if n exceeds MaxCount: no answer is that long. The caller must treat a
// minimum above MaxCount separately, because no text reaches it.
func count(n int) int32 {
	if n > MaxCount {
		return Unlimited
	}
	return int32(n)
}

// Token makes a node that takes the token with this id, whatever its bytes.
func (b *Builder) Token(id int32, next Node) Node {
	return b.add(node{kind: kindToken, x: id, next: int32(next)})
}

// OtherToken makes a node that takes any token except the one with this id.
func (b *Builder) OtherToken(id int32, next Node) Node {
	return b.add(node{kind: kindOther, x: id, next: int32(next)})
}

// Alt makes a node that takes a text if one of the ways takes it. Without ways, it takes no text.
func (b *Builder) Alt(ways ...Node) Node {
	if len(ways) == 1 {
		return ways[0]
	}
	n := b.Forward()
	b.Define(n, ways...)
	return n
}

// Forward makes a node for alternatives that [Builder.Define] sets later. It is needed for loops.
func (b *Builder) Forward() Node { return b.add(node{kind: kindAlt}) }

// Define sets the alternatives of a node made by [Builder.Forward].
func (b *Builder) Define(n Node, ways ...Node) {
	b.Spend(4 * len(ways))
	b.g.nodes[n].x, b.g.nodes[n].y = int32(len(b.g.lists)), int32(len(ways))
	for _, w := range ways {
		b.g.lists = append(b.g.lists, int32(w))
	}
}

// Mark makes a node that takes no byte. A text that reaches it passes the marks m; see the package
// comment.
func (b *Builder) Mark(m Mark, next Node) Node {
	b.g.guard = b.g.guard || m&guards != 0
	b.g.decide = b.g.decide || m&decides != 0
	return b.add(node{kind: kindMark, x: int32(m), next: int32(next)})
}

// Rule declares a rule, which Body defines later.
func (b *Builder) Rule() Rule {
	b.g.rules = append(b.g.rules, -1)
	return Rule(len(b.g.rules) - 1)
}

// Body defines a rule by its first node.
func (b *Builder) Body(r Rule, start Node) {
	b.g.rules[r] = int32(start)
	b.bodies = append(b.bodies, int32(len(b.g.nodes)))
}

// Call makes a node that takes a text of a rule.
func (b *Builder) Call(r Rule, next Node) Node {
	return b.add(node{kind: kindCall, x: int32(r), next: int32(next)})
}

// Nest is Call, but the text of the rule counts as nested one level deeper; see Depth.
func (b *Builder) Nest(r Rule, next Node) Node {
	return b.add(node{kind: kindCall, deep: true, x: int32(r), next: int32(next)})
}

// Repeat makes a node that takes least to most texts of a rule, one after the other.
func (b *Builder) Repeat(r Rule, least, most int, next Node) Node {
	if least > MaxCount {
		return b.Alt()
	}
	return b.add(node{kind: kindRepeat, x: int32(r), min: count(least), max: count(most), next: int32(next)})
}

// Build returns the grammar of the texts of rule start. The Builder must not be used afterwards.
// Build fails if a rule begins with itself, if there is no text within Depth, or if the budget is
// exceeded.
func (b *Builder) Build(start Rule) (*Grammar, error) {
	g := &b.g
	g.start = g.rules[start]
	g.depth = int32(b.Depth)
	if g.depth == 0 {
		g.depth = 128
	}
	if !b.Spend(0) {
		return nil, b.Budget.Err()
	}
	g.dist = make([][]int32, len(g.dfas))
	for i, d := range g.dfas {
		g.dist[i] = d.distances()
	}
	b.measure()
	b.classify()
	switch {
	case b.Budget.Err() != nil:
		return nil, b.Budget.Err()
	case g.cost[g.start] >= never:
		return nil, ErrNothing
	case g.leftRecursive():
		return nil, ErrLeftRecursion
	case g.height[g.start] > g.depth:
		return nil, ErrNothing
	}
	g.size = len(g.nodes)*32 + len(g.lists)*4 + len(g.rules)*4 + len(g.sets)*32
	for _, d := range g.dfas {
		g.size += d.Size() + 4*len(d.Accept)
	}
	return g, nil
}
