package automaton

import (
	"cmp"
	"slices"
)

// Next returns the state after a byte, or [Dead] if the byte does not fit. It allocates only at the
// first use of a transition.
func (a *Automaton) Next(s State, b byte) State {
	if s <= 0 {
		return Dead
	}
	if t := a.Known(s, b); t != 0 {
		return t
	}
	return a.step(s, b)
}

// Known returns the result of Next, or 0 if the transition has not been used before. s must not be
// Dead.
func (a *Automaton) Known(s State, b byte) State {
	return a.next[s>>rowBits][int(s&(1<<rowBits-1))*a.classes+int(a.g.class[b])]
}

// Fits returns the bytes that fit next.
func (a *Automaton) Fits(s State) (fits Set) {
	for class, b := range a.g.bytes {
		if a.Next(s, b) != Dead {
			for i, w := range &a.g.members[class] {
				fits[i] |= w
			}
		}
	}
	return fits
}

// step computes a transition and stores it.
func (a *Automaton) step(s State, b byte) State {
	a.begin()
	st := a.states[s]
	for _, it := range a.items[st.first : st.first+st.items] {
		a.stepItem(it, b)
	}
	t := a.intern()
	a.row(s)[a.g.class[b]] = t
	return t
}

func (a *Automaton) stepItem(it item, b byte) {
	g := a.g
	n := &g.nodes[it.node]
	switch n.kind {
	case kindSet:
		if g.sets[n.x].Has(b) {
			a.push(n.next, it.stack, 0, 0)
		}
	case kindDFA:
		to := g.dfas[n.x].next(it.count, b)
		if to < 0 || g.dist[n.x][to] >= never {
			return
		}
		a.push(it.node, it.stack, to, 0)
	case kindText:
		chars, in := it.count>>textBits, it.count&(1<<textBits-1)
		if in == whole && chars == n.max {
			return
		}
		if in = textNext(in, b); in == refused {
			return
		}
		if in == whole {
			if chars++; n.max == Unlimited {
				chars = min(chars, n.min)
			}
		}
		a.push(it.node, it.stack, chars<<textBits|in, 0)
	default: // the node takes no byte
	}
}

// NextToken returns the state after a token that is taken by its id, or [Dead] if the state does not
// take it by its id. Unlike Next, it does not store the result.
func (a *Automaton) NextToken(s State, id int32) State {
	if s <= 0 || !a.states[s].tokens {
		return Dead
	}
	a.begin()
	st := a.states[s]
	for _, it := range a.items[st.first : st.first+st.items] {
		n := &a.g.nodes[it.node]
		if n.kind == kindToken && n.x == id || n.kind == kindOther && n.x != id {
			a.push(n.next, it.stack, 0, 0)
		}
	}
	return a.intern()
}

// Tokens calls yield for each way of a state to take a token by its id. id is the token that the way
// takes or, if other is true, the only token that it does not take.
func (a *Automaton) Tokens(s State, yield func(id int32, other bool)) {
	st := &a.states[s]
	if !st.tokens {
		return
	}
	for _, it := range a.items[st.first : st.first+st.items] {
		if n := &a.g.nodes[it.node]; n.kind == kindToken || n.kind == kindOther {
			yield(n.x, n.kind == kindOther)
		}
	}
}

// begin starts to collect the items of a state.
func (a *Automaton) begin() {
	a.work, a.out = a.work[:0], a.out[:0]
	a.seen.clear()
}

// push adds an item to work, from which intern follows it to the nodes that take a byte. It does
// not add an item that has no way to the end.
func (a *Automaton) push(node, stack, count int32, marks Mark) {
	g := a.g
	if g.cost[node] >= never || a.frames[stack].depth+g.height[node] > g.depth {
		return
	}
	it := item{node, stack, count, marks}
	if a.seen.n <= 4*MaxItems && a.seen.add(it) {
		a.work = append(a.work, it)
	}
}

// intern closes the collected items and returns their state. It returns [Dead] if none remains, if the
// mark [Forbid] refuses the byte, or if there are too many; in the last case it sets a.err.
func (a *Automaton) intern() State {
	end := false
	for len(a.work) > 0 {
		it := a.work[len(a.work)-1]
		a.work = a.work[:len(a.work)-1]
		end = a.close(it) || end
	}
	if len(a.out) == 0 && !end {
		return Dead
	}
	if len(a.out) > MaxItems || a.seen.n > 4*MaxItems {
		if a.err == nil {
			a.err = ErrItems
		}
		return Dead
	}
	if a.g.decide {
		var ok bool
		if end, ok = a.decide(end); !ok {
			return Dead
		}
	}
	slices.SortFunc(a.out, compareItems)
	return a.stateOf(end)
}

func compareItems(x, y item) int {
	if x.node != y.node {
		return cmp.Compare(x.node, y.node)
	}
	if x.stack != y.stack {
		return cmp.Compare(x.stack, y.stack)
	}
	if x.count != y.count {
		return cmp.Compare(x.count, y.count)
	}
	return cmp.Compare(x.marks, y.marks)
}

// close pushes the items that follow an item without a byte. It moves an item that takes a byte to
// out. If the item ends the text, close reports true, and moves it to out, too, so that its marks are
// not lost.
func (a *Automaton) close(it item) (end bool) {
	g := a.g
	n := &g.nodes[it.node]
	switch n.kind {
	case kindEnd:
		if it.stack == 0 {
			a.out = append(a.out, it)
			return true
		}
		f := a.frames[it.stack]
		a.push(f.node, f.parent, f.count, it.marks)
	case kindSet, kindToken, kindOther:
		a.out = append(a.out, it)
	case kindDFA:
		d := g.dfas[n.x]
		if d.First[it.count] < d.First[it.count+1] {
			a.out = append(a.out, it)
		}
		if d.Accept[it.count] {
			a.push(n.next, it.stack, 0, it.marks)
		}
	case kindText:
		chars, in := it.count>>textBits, it.count&(1<<textBits-1)
		if in != whole || chars < n.max {
			a.out = append(a.out, it)
		}
		if in == whole && chars >= n.min {
			a.push(n.next, it.stack, 0, it.marks)
		}
	case kindAlt:
		for _, way := range g.lists[n.x : n.x+n.y] {
			a.push(way, it.stack, 0, it.marks)
		}
	case kindMark:
		a.push(n.next, it.stack, 0, it.marks|Mark(n.x))
	case kindCall:
		a.call(n, n.next, 0, it)
	case kindRepeat:
		if it.count >= n.min {
			a.push(n.next, it.stack, 0, it.marks)
		}
		if it.count < n.max {
			count := it.count + 1
			if n.max == Unlimited {
				count = min(count, n.min)
			}
			a.call(n, it.node, count, it)
		}
	}
	return false
}

// call enters the rule of node n. At the end of the rule, the text goes on at node back, with count as
// the counter of the item.
func (a *Automaton) call(n *node, back, count int32, it item) {
	start := a.g.rules[n.x]
	if start < 0 || a.g.cost[start] >= never {
		return
	}
	stack := it.stack
	if n.deep || a.g.nodes[back].kind != kindEnd {
		stack = a.frame(back, count, it.stack, n.level())
	}
	a.push(start, stack, 0, it.marks)
}
