package automaton

import (
	"errors"
	"math"
	"slices"
)

// Errors of [Builder.Build].
var (
	ErrLeftRecursion = errors.New("a rule begins with itself")
	ErrNothing       = errors.New("no text satisfies it")
)

// Unlimited is the maximum of a repetition without one.
const Unlimited = math.MaxInt32

// MaxCount is the largest minimum or maximum of a repetition; a larger maximum is Unlimited.
const MaxCount = 1<<27 - 1

// never is the cost of a node without a way to an end.
const never = 1 << 29 // two of them fit into an int32

// A Node is a place in a grammar under construction.
type Node int32

// A Rule is a part of a grammar that is called by nodes.
type Rule int32

// A Mark is a set of marks: bits that a text's parser or a guard wants to see.
type Mark uint32

// Marks of guards; see the package comment. End frames the spelling before the byte that
// was just read, Begin the one behind it, leading white space aside.
const (
	Open   Mark = 1 << iota // a scope begins: no spelling is known in it
	Begin                   // the next spelling begins
	End                     // the spelling has ended before this byte
	Close                   // the scope ends
	Commit                  // ways without it end here; see the package comment
	Forbid                  // the byte before is refused
	_
	_
	User // the first mark without a meaning here; 24 are free
)

const (
	guards  = Open | Begin | End | Close
	decides = Commit | Forbid
)

type kind uint8

const (
	kindEnd    kind = iota
	kindSet         // a byte of set x
	kindDFA         // a run of DFA x
	kindText        // min to max characters of a JSON string
	kindToken       // token x
	kindOther       // any token but x
	kindAlt         // the y nodes from lists[x]
	kindCall        // rule x
	kindRepeat      // rule x, min to max times
	kindMark        // marks x
)

type node struct {
	kind     kind
	deep     bool // a call that counts as a level of depth
	x, y     int32
	min, max int32
	next     int32
}

// A Set is a set of bytes.
type Set [4]uint64

// Add puts the bytes from lo to hi into the set.
func (s *Set) Add(lo, hi byte) {
	for b := int(lo); b <= int(hi); b++ {
		s[b>>6] |= 1 << (b & 63)
	}
}

// Has reports whether a byte is in the set.
func (s *Set) Has(b byte) bool { return s[b>>6]>>(b&63)&1 != 0 }

// A Builder makes a [Grammar], nodes from the end to the beginning: each takes the node that
// follows it. The zero value is ready for use.
type Builder struct {
	Budget *Budget // nil has the default bounds
	Depth  int     // of calls made with Nest, in each other; 0 means 128

	g    Grammar
	sets map[Set]int32
	dfas map[*DFA]int32
}

// A Grammar is the immutable result of a [Builder].
type Grammar struct {
	nodes []node
	lists []int32
	rules []int32 // start nodes; -1 while undefined
	sets  []Set
	dfas  []*DFA
	depth int32

	dist   [][]int32 // of each DFA, the fewest bytes from each state to its end
	cost   []int32   // of each node, the fewest bytes to the end of its rule
	height []int32   // of each node, the fewest levels of calls to the end of its rule
	class  [256]uint8
	bytes  []byte // a byte of each class
	start  int32
	guard  bool
	decide bool // it has marks that decide between ways
	size   int
}

// Size returns the bytes that the grammar occupies.
func (g *Grammar) Size() int { return g.size }

// Guarded reports whether the grammar has guards.
func (g *Grammar) Guarded() bool { return g.guard }

// Spend is [Budget.Spend] of the builder's budget.
func (b *Builder) Spend(bytes int) bool {
	if b.Budget == nil {
		b.Budget = &Budget{}
	}
	return b.Budget.Spend(bytes)
}

func (b *Builder) add(n node) Node {
	b.Spend(36) // with its cost, height and slack
	b.g.nodes = append(b.g.nodes, n)
	return Node(len(b.g.nodes) - 1)
}

// End ends a rule, or the whole text.
func (b *Builder) End() Node { return b.add(node{kind: kindEnd}) }

// Set takes a byte of a set.
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

// Bytes takes the bytes of a text.
func (b *Builder) Bytes(text string, next Node) Node {
	for i := len(text) - 1; i >= 0; i-- {
		var s Set
		s.Add(text[i], text[i])
		next = b.Set(s, next)
	}
	return next
}

// DFA takes a text of a DFA.
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

// Text takes least to most characters of a JSON string, each in its one spelling.
func (b *Builder) Text(least, most int, next Node) Node {
	if least > MaxCount {
		return b.Alt()
	}
	return b.add(node{kind: kindText, min: count(least), max: count(most), next: int32(next)})
}

// count bounds a count: a maximum beyond MaxCount is none, as no answer is so long. A minimum
// beyond it is not reached by any.
func count(n int) int32 {
	if n > MaxCount {
		return Unlimited
	}
	return int32(n)
}

// Token takes a token by id, whatever its bytes.
func (b *Builder) Token(id int32, next Node) Node {
	return b.add(node{kind: kindToken, x: id, next: int32(next)})
}

// OtherToken takes any token but one.
func (b *Builder) OtherToken(id int32, next Node) Node {
	return b.add(node{kind: kindOther, x: id, next: int32(next)})
}

// Alt takes one of several ways. Of none there is no way.
func (b *Builder) Alt(ways ...Node) Node {
	if len(ways) == 1 {
		return ways[0]
	}
	n := b.Forward()
	b.Define(n, ways...)
	return n
}

// Forward makes alternatives that [Builder.Define] sets later, for loops.
func (b *Builder) Forward() Node { return b.add(node{kind: kindAlt}) }

// Define sets the alternatives of a node made by [Builder.Forward].
func (b *Builder) Define(n Node, ways ...Node) {
	b.Spend(4 * len(ways))
	b.g.nodes[n].x, b.g.nodes[n].y = int32(len(b.g.lists)), int32(len(ways))
	for _, w := range ways {
		b.g.lists = append(b.g.lists, int32(w))
	}
}

// Mark passes marks.
func (b *Builder) Mark(m Mark, next Node) Node {
	b.g.guard = b.g.guard || m&guards != 0
	b.g.decide = b.g.decide || m&decides != 0
	return b.add(node{kind: kindMark, x: int32(m), next: int32(next)})
}

// Rule declares a rule.
func (b *Builder) Rule() Rule {
	b.g.rules = append(b.g.rules, -1)
	return Rule(len(b.g.rules) - 1)
}

// Body defines a rule.
func (b *Builder) Body(r Rule, start Node) { b.g.rules[r] = int32(start) }

// Call takes a text of a rule.
func (b *Builder) Call(r Rule, next Node) Node {
	return b.add(node{kind: kindCall, x: int32(r), next: int32(next)})
}

// Nest is Call for a rule in which the text is a level deeper.
func (b *Builder) Nest(r Rule, next Node) Node {
	return b.add(node{kind: kindCall, deep: true, x: int32(r), next: int32(next)})
}

// Repeat takes least to most texts of a rule.
func (b *Builder) Repeat(r Rule, least, most int, next Node) Node {
	if least > MaxCount {
		return b.Alt()
	}
	return b.add(node{kind: kindRepeat, x: int32(r), min: count(least), max: count(most), next: int32(next)})
}

// Build ends the construction: the grammar is the texts of a rule. It fails if a rule begins
// with itself, if there is no text, or if the budget is exceeded.
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

// measure computes the costs and the heights of all nodes: the least fixpoints, from above.
func (b *Builder) measure() {
	g := &b.g
	g.cost = slices.Repeat([]int32{never}, len(g.nodes))
	g.height = slices.Clone(g.cost)
	for changed, backward := true, false; changed; backward = !backward {
		changed = false
		for i := range g.nodes {
			if backward {
				i = len(g.nodes) - 1 - i
			}
			if i&63 == 0 && !b.Spend(0) {
				return
			}
			cost, height := g.measureNode(&g.nodes[i])
			if cost < g.cost[i] || height < g.height[i] {
				g.cost[i], g.height[i], changed = min(cost, g.cost[i]), min(height, g.height[i]), true
			}
		}
	}
}

// add32 adds costs.
func add32(a, b int32) int32 { return min(a+b, never) }

// times32 multiplies a cost.
func times32(n, a int32) int32 {
	if n == 0 {
		return 0
	}
	return int32(min(int64(n)*int64(a), never))
}

// rule returns the cost and the height of a rule.
func (g *Grammar) rule(r int32) (cost, height int32) {
	if start := g.rules[r]; start >= 0 {
		return g.cost[start], g.height[start]
	}
	return never, never
}

func (g *Grammar) measureNode(n *node) (cost, height int32) {
	switch n.kind {
	case kindEnd:
		return 0, 0
	case kindSet:
		if g.sets[n.x] == (Set{}) {
			return never, never
		}
		return add32(1, g.cost[n.next]), g.height[n.next]
	case kindToken, kindOther:
		return add32(1, g.cost[n.next]), g.height[n.next]
	case kindDFA:
		if len(g.dist[n.x]) == 0 || g.dist[n.x][0] >= never {
			return never, never
		}
		return add32(g.dist[n.x][0], g.cost[n.next]), g.height[n.next]
	case kindText:
		if n.min > n.max {
			return never, never
		}
		return add32(n.min, g.cost[n.next]), g.height[n.next]
	case kindMark:
		return g.cost[n.next], g.height[n.next]
	case kindAlt:
		cost, height = never, never
		for _, way := range g.lists[n.x : n.x+n.y] {
			cost, height = min(cost, g.cost[way]), min(height, g.height[way])
		}
		return cost, height
	case kindCall:
		cost, height = g.rule(n.x)
		return add32(cost, g.cost[n.next]), max(n.level()+height, g.height[n.next])
	case kindRepeat:
		if n.min > n.max {
			return never, never
		}
		if n.min == 0 {
			return g.cost[n.next], g.height[n.next]
		}
		cost, height = g.rule(n.x)
		return add32(times32(n.min, cost), g.cost[n.next]), max(height, g.height[n.next])
	}
	panic("internal error: a node without a kind")
}

// level returns the levels of depth that a call adds.
func (n *node) level() int32 {
	if n.deep {
		return 1
	}
	return 0
}

// leftRecursive reports whether a node can be reached from itself without a byte.
func (g *Grammar) leftRecursive() bool {
	const (
		unseen = iota
		open
		closed
	)
	state := make([]uint8, len(g.nodes))
	var visit func(i int32) bool
	visit = func(i int32) (loop bool) {
		if g.cost[i] >= never || state[i] == closed {
			return false
		}
		if state[i] == open {
			return true
		}
		state[i] = open
		n := &g.nodes[i]
		empty := false // the node itself may take no byte
		switch n.kind {
		case kindMark:
			empty = true
		case kindDFA:
			empty = g.dfas[n.x].Accept[0]
		case kindText:
			empty = n.min == 0
		case kindAlt:
			for _, way := range g.lists[n.x : n.x+n.y] {
				loop = loop || visit(way)
			}
		case kindCall, kindRepeat:
			cost, _ := g.rule(n.x)
			empty = cost == 0 || n.kind == kindRepeat && n.min == 0
			if cost < never && (n.kind == kindCall || n.max > 0) {
				loop = visit(g.rules[n.x])
			}
		default: // takes a byte, or ends
		}
		loop = loop || empty && visit(n.next)
		state[i] = closed
		return loop
	}
	for i := range g.nodes {
		if visit(int32(i)) {
			return true
		}
	}
	return false
}

// classify divides the bytes into classes that every set and every state of a DFA treats
// alike.
func (b *Builder) classify() {
	g := &b.g
	classes := 1
	split := func(key func(b int) int32) {
		if classes == 256 {
			return
		}
		type pair struct {
			class uint8
			key   int32
		}
		var seen [256]pair
		n := 0
		var class [256]uint8
		for i := range 256 {
			p := pair{g.class[i], key(i)}
			at := slices.Index(seen[:n], p)
			if at < 0 {
				at = n
				seen[n] = p
				n++
			}
			class[i] = uint8(at)
		}
		classes, g.class = n, class
	}
	for i := range g.sets {
		split(func(b int) int32 { return int32(g.sets[i][b>>6] >> (b & 63) & 1) })
	}
	for i := range g.nodes {
		if g.nodes[i].kind == kindText {
			for state := range int32(refused) {
				split(func(b int) int32 { return textNext(state, byte(b)) })
			}
			break
		}
	}
	for _, d := range g.dfas {
		for s := range d.Accept {
			if edges := d.Edges[d.First[s]:d.First[s+1]]; len(edges) > 0 && !b.uniform(edges) {
				if !b.Spend(0) {
					return
				}
				split(func(b int) int32 {
					for _, e := range edges {
						if b <= int(e.Hi) {
							if b < int(e.Lo) {
								return -1
							}
							return e.To
						}
					}
					return -1
				})
			}
		}
	}
	g.bytes = make([]byte, classes)
	for i := range 256 {
		g.bytes[g.class[255-i]] = byte(255 - i)
	}
}

// uniform reports whether all edges keep to the classes so far: a quick check of the usual
// case.
func (b *Builder) uniform(edges []Edge) bool {
	var to [256]int32 // of each class, the target plus 2; 1 is none
	class := &b.g.class
	i := 0
	for c := range 256 {
		for i < len(edges) && int(edges[i].Hi) < c {
			i++
		}
		t := int32(1)
		if i < len(edges) && int(edges[i].Lo) <= c {
			t = edges[i].To + 2
		}
		if to[class[c]] == 0 {
			to[class[c]] = t
		} else if to[class[c]] != t {
			return false
		}
	}
	return true
}
