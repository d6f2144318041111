package automaton

import "slices"

// measure computes the costs and the heights of all nodes: they begin at never, and are lowered until
// none of them changes. Each node is measured once, and again after a node to which it refers has
// changed. The bodies of rules are measured from the last to the first, because a rule is usually made
// before the rules that it calls; within a body most nodes refer to earlier ones.
func (b *Builder) measure() {
	g := &b.g
	n := len(g.nodes)
	g.cost = slices.Repeat([]int32{never}, n)
	g.height = slices.Clone(g.cost)
	first, users := g.users()
	due := make([]int32, 0, n) // a ring of nodes, each at most once
	queued := slices.Repeat([]bool{true}, n)
	for end, k := n, len(b.bodies)-1; end > 0; k-- {
		begin := 0
		if k >= 0 {
			begin = int(b.bodies[k])
		}
		for i := begin; i < end; i++ {
			due = append(due, int32(i))
		}
		end = begin
	}
	for at, waiting := 0, n; waiting > 0; waiting-- {
		i := due[at]
		queued[i] = false
		if i&63 == 0 && !b.Spend(0) {
			return
		}
		cost, height := g.measureNode(&g.nodes[i])
		if cost < g.cost[i] || height < g.height[i] {
			g.cost[i], g.height[i] = min(cost, g.cost[i]), min(height, g.height[i])
			for _, user := range users[first[i]:first[i+1]] {
				if !queued[user] {
					queued[user] = true
					due[(at+waiting)%n] = user
					waiting++
				}
			}
		}
		if at++; at == n {
			at = 0
		}
	}
}

// users returns the nodes that refer to each node: those of node i are users[first[i]:first[i+1]].
func (g *Grammar) users() (first, users []int32) {
	first = make([]int32, len(g.nodes)+1)
	for i := range g.nodes {
		g.references(int32(i), func(to int32) { first[to+1]++ })
	}
	for i := range g.nodes {
		first[i+1] += first[i]
	}
	users = make([]int32, first[len(g.nodes)])
	at := slices.Clone(first)
	for i := range g.nodes {
		g.references(int32(i), func(to int32) {
			users[at[to]] = int32(i)
			at[to]++
		})
	}
	return first, users
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
