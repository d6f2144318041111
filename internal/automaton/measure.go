package automaton

import "slices"

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
