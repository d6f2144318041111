package automaton

import "slices"

// Include copies grammar g into the builder and returns a rule that takes its texts. It raises Depth
// to at least one more than the depth of g.
func (b *Builder) Include(g *Grammar) Rule {
	nodes, lists, rules := int32(len(b.g.nodes)), int32(len(b.g.lists)), int32(len(b.g.rules))
	b.Spend(36*len(g.nodes) + 4*len(g.lists) + 4*len(g.rules))
	for _, n := range g.nodes {
		switch n.kind {
		case kindSet:
			n.x = b.set(g.sets[n.x])
		case kindDFA:
			n.x = b.dfa(g.dfas[n.x])
		case kindAlt:
			n.x += lists
		case kindCall, kindRepeat:
			n.x += rules
		case kindEnd, kindText, kindToken, kindOther, kindMark:
		}
		n.next += nodes // not used in nodes without a next node
		b.g.nodes = append(b.g.nodes, n)
	}
	for _, way := range g.lists {
		b.g.lists = append(b.g.lists, way+nodes)
	}
	for _, start := range g.rules {
		if start >= 0 {
			start += nodes
		}
		b.g.rules = append(b.g.rules, start)
	}
	b.g.guard = b.g.guard || g.guard
	b.g.decide = b.g.decide || g.decide
	b.Depth = max(b.Depth, int(g.depth)+1)
	whole := b.Rule()
	b.Body(whole, Node(g.start+nodes))
	return whole
}

// decide applies the marks Commit and Forbid to the items in out; see the package comment. end reports
// whether the text may end before the marks are applied, mayEnd whether it may end afterwards. ok is
// false if the byte is refused.
func (a *Automaton) decide(end bool) (mayEnd, ok bool) {
	var all Mark
	for _, it := range a.out {
		all |= it.marks
	}
	switch {
	case all&Forbid != 0:
		return false, false
	case all&Commit == 0:
		return end, true
	}
	a.out = slices.DeleteFunc(a.out, func(it item) bool { return it.marks&Commit == 0 })
	return slices.ContainsFunc(a.out, func(it item) bool { return a.g.nodes[it.node].kind == kindEnd }), true
}
