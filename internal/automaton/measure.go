package automaton

import "slices"

// measure computes the costs and the heights of all nodes: they begin at never, and are lowered until
// none changes any more. The nodes are measured in parts, one for each body of a rule, because most
// nodes refer to earlier nodes of the same part. A part is measured again when a part that it refers
// to has changed.
func (b *Builder) measure() {
	g := &b.g
	g.cost = slices.Repeat([]int32{never}, len(g.nodes))
	g.height = slices.Clone(g.cost)
	p := g.divide(b.parts)
	due := slices.Repeat([]bool{true}, len(p.begins)-1)
	for again := true; again; {
		again = false
		for k := len(due) - 1; k >= 0; k-- { // rules are usually made before those that they call
			if !due[k] {
				continue
			}
			due[k] = false
			if !b.Spend(0) {
				return
			}
			if !b.measurePart(p.begins[k], p.begins[k+1], p.loops[k]) {
				continue
			}
			for _, user := range p.users[p.first[k]:p.first[k+1]] {
				due[user] = true
				again = again || int(user) >= k
			}
		}
	}
}

// measurePart measures the nodes of a part, several times if the part has loops. It reports whether
// the result for a node has changed.
func (b *Builder) measurePart(begin, end int32, loops bool) (changed bool) {
	g := &b.g
	for again := true; again; {
		again = false
		for i := begin; i < end; i++ {
			if i&63 == 0 && !b.Spend(0) {
				return changed
			}
			cost, height := g.measureNode(&g.nodes[i])
			if cost < g.cost[i] || height < g.height[i] {
				g.cost[i], g.height[i] = min(cost, g.cost[i]), min(height, g.height[i])
				again, changed = loops, true
			}
		}
	}
	return changed
}

// parts describes a division of the nodes into parts.
type parts struct {
	begins []int32 // the first node of each part, then the number of nodes
	loops  []bool  // whether a node of the part refers to itself or to a later node
	first  []int32 // for each part, the index of its first user; then the number of users
	users  []int32 // the parts that refer to each part, part by part
}

// divide divides the nodes into parts, which end at the given indices.
func (g *Grammar) divide(ends []int32) *parts {
	p := &parts{begins: []int32{0}}
	part := make([]int32, len(g.nodes))
	for _, end := range append(ends, int32(len(g.nodes))) {
		if begin := p.begins[len(p.begins)-1]; begin < end {
			for i := begin; i < end; i++ {
				part[i] = int32(len(p.begins) - 1)
			}
			p.begins = append(p.begins, end)
		}
	}
	n := len(p.begins) - 1
	p.loops, p.first = make([]bool, n), make([]int32, n+1)
	var uses [][2]int32 // a part, and one that refers to it
	refer := func(from int, to int32) {
		k, user := part[to], part[from]
		switch use := [2]int32{k, user}; {
		case k == user:
			p.loops[k] = p.loops[k] || int(to) >= from
		case len(uses) == 0 || uses[len(uses)-1] != use:
			uses = append(uses, use)
			p.first[k+1]++
		}
	}
	for i := range g.nodes {
		g.references(int32(i), func(to int32) { refer(i, to) })
	}
	for k := range n {
		p.first[k+1] += p.first[k]
	}
	p.users = make([]int32, len(uses))
	at := slices.Clone(p.first)
	for _, use := range uses {
		p.users[at[use[0]]] = use[1]
		at[use[0]]++
	}
	return p
}

// references calls yield for each node on which the cost of node i depends.
func (g *Grammar) references(i int32, yield func(to int32)) {
	n := &g.nodes[i]
	switch n.kind {
	case kindEnd:
		return
	case kindAlt:
		for _, way := range g.lists[n.x : n.x+n.y] {
			yield(way)
		}
		return
	case kindCall, kindRepeat:
		if start := g.rules[n.x]; start >= 0 {
			yield(start)
		}
	case kindSet, kindDFA, kindText, kindToken, kindOther, kindMark:
	}
	yield(n.next)
}

// add32 adds costs; the sum is at most never.
func add32(a, b int32) int32 { return min(a+b, never) }

// times32 multiplies a cost by n; the product is at most never.
func times32(n, a int32) int32 {
	if n == 0 {
		return 0
	}
	return int32(min(int64(n)*int64(a), never))
}

// rule returns the cost and the height of a rule; both are never if it has no body.
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

// leftRecursive reports whether a node can be reached from itself without taking a byte.
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
