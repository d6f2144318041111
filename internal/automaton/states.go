package automaton

import (
	"cmp"
	"errors"
	"slices"
)

// Bounds of an [Automaton].
const (
	MaxItems  = 4096
	MaxStates = 65536
	maxBytes  = 32 << 20 // of all states
)

// ErrItems is the error of a text that could go on in more than [MaxItems] ways.
var ErrItems = errors.New("the text could go on in more than 4096 ways")

// A State is an index of a state of an [Automaton]. It stays valid until Renew.
type State int32

// Dead is the state of a text that no longer fits.
const Dead State = -1

// An item is a place in the grammar, as the package comment says.
type item struct {
	node, stack, count int32
	marks              Mark
}

// A frame is the top of a stack. The empty stack is frame 0.
type frame struct {
	node, count, parent int32
	depth               int32 // levels of the whole stack
	cost                int32 // fewest bytes to its end
}

type state struct {
	first, items int32
	hash         uint32
	plain        int32
	cost         int32
	like         int32 // see Alike; 0 is unknown
	marks, sure  Mark
	end          bool // the text may end here
	only         bool // nothing but plain characters, up to plain, can come inside the string
	tokens       bool // a token by its id may come
}

// An Automaton has the states of a [Grammar] as far as they were needed. One goroutine at a
// time may use it and its cursors.
type Automaton struct {
	g       *Grammar
	frames  []frame
	items   []item
	states  []state
	next    []State // of each state, one entry per class; 0 is unknown, and state 0 is unused
	classes int

	similar                [][]int32 // see alike; of each DFA, once it is needed
	frameTable, stateTable []int32
	cursors                []*Cursor
	renewed                int
	err                    error

	// Scratch of closures.
	work, out []item
	seen      itemSet
}

// New makes the automaton of a grammar.
func New(g *Grammar) *Automaton {
	a := &Automaton{g: g, classes: len(g.bytes)}
	a.reset()
	return a
}

func (a *Automaton) reset() {
	a.frames = append(a.frames[:0], frame{})
	a.items = a.items[:0]
	a.states = append(a.states[:0], state{})
	a.next = append(a.next[:0], make([]State, a.classes)...)
	a.frameTable = make([]int32, 64)
	a.stateTable = make([]int32, 64)
}

// Grammar returns the grammar of the automaton.
func (a *Automaton) Grammar() *Grammar { return a.g }

// Bytes returns the memory of the states.
func (a *Automaton) Bytes() int {
	return cap(a.frames)*20 + cap(a.items)*16 + cap(a.states)*40 + cap(a.next)*4 + 4*(len(a.frameTable)+len(a.stateTable))
}

// States returns the number of states so far.
func (a *Automaton) States() int { return len(a.states) - 1 }

// Err returns the first error of a step: [ErrItems].
func (a *Automaton) Err() error { return a.err }

// Start returns the state before the first byte.
func (a *Automaton) Start() State {
	a.begin()
	a.push(a.g.start, 0, 0, 0)
	return a.intern()
}

// MayEnd reports whether the text may end in a state.
func (a *Automaton) MayEnd(s State) bool { return s > 0 && a.states[s].end }

// Cost returns the fewest bytes from a state to the end of the text. A token by its id counts
// as one. With guards it is a lower bound.
func (a *Automaton) Cost(s State) int { return int(a.states[s].cost) }

// Marks returns the marks that may have been passed at the byte before a state.
func (a *Automaton) Marks(s State) Mark { return a.states[s].marks }

// SureMarks returns the marks that every way to go on has passed at the byte before a state.
func (a *Automaton) SureMarks(s State) Mark { return a.states[s].sure }

// Guarding reports whether the byte before a state is one at which a guard acts.
func (a *Automaton) Guarding(s State) bool { return a.states[s].marks&guards != 0 }

// Plain returns how many arbitrary plain characters a state surely takes; see [Plain]. With
// only, the state takes nothing else but the end of the string: no more than n whole plain
// characters.
func (a *Automaton) Plain(s State) (n int, only bool) {
	return int(a.states[s].plain), a.states[s].only
}

// Next returns the state behind a byte: [Dead] if it does not fit. The second use of a
// transition allocates nothing.
func (a *Automaton) Next(s State, b byte) State {
	if s <= 0 {
		return Dead
	}
	if t := a.next[int(s)*a.classes+int(a.g.class[b])]; t != 0 {
		return t
	}
	return a.step(s, b)
}

// step makes a transition.
func (a *Automaton) step(s State, b byte) State {
	a.begin()
	st := a.states[s]
	for _, it := range a.items[st.first : st.first+st.items] {
		a.stepItem(it, b)
	}
	t := a.intern()
	a.next[int(s)*a.classes+int(a.g.class[b])] = t
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
	default: // takes no byte
	}
}

// NextToken returns the state behind a token that a state takes by its id. Unlike Next it is
// computed every time.
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

// Tokens calls yield for each way of a state to take a token by its id: that token, or with
// other any token but that one.
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

// begin starts the collection of a state's items.
func (a *Automaton) begin() {
	a.work, a.out = a.work[:0], a.out[:0]
	a.seen.clear()
}

// push adds an item that is to be closed: followed to the nodes that take a byte.
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

// intern closes the collected items and returns their state.
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

// close follows an item. It reports whether the text may end there. An item that only ends the
// text is kept if it has marks, so that they are not lost.
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

// call enters the rule of a node; it returns to node back with a count.
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

// frame returns the stack with a node on top.
func (a *Automaton) frame(node, count, parent, level int32) int32 {
	p := &a.frames[parent]
	f := frame{node: node, count: count, parent: parent, depth: p.depth + level, cost: add32(a.costAt(node, count), p.cost)}
	mask := uint32(len(a.frameTable) - 1)
	slot := hash3(node, count, parent*2+level) & mask
	for a.frameTable[slot] != 0 {
		if i := a.frameTable[slot]; a.frames[i] == f {
			return i
		}
		slot = (slot + 1) & mask
	}
	i := int32(len(a.frames))
	a.frames = append(a.frames, f)
	a.frameTable[slot] = i
	if 2*len(a.frames) > len(a.frameTable) {
		a.frameTable = make([]int32, 4*len(a.frameTable))
		mask = uint32(len(a.frameTable) - 1)
		for i := 1; i < len(a.frames); i++ {
			f := &a.frames[i]
			slot := hash3(f.node, f.count, f.parent*2+f.depth-a.frames[f.parent].depth) & mask
			for a.frameTable[slot] != 0 {
				slot = (slot + 1) & mask
			}
			a.frameTable[slot] = int32(i)
		}
	}
	return i
}

// costAt returns the fewest bytes from a node with a count to the end of its rule.
func (a *Automaton) costAt(node, count int32) int32 {
	g := a.g
	n := &g.nodes[node]
	switch n.kind {
	case kindDFA:
		return add32(g.dist[n.x][count], g.cost[n.next])
	case kindText:
		chars, in := count>>textBits, count&(1<<textBits-1)
		if in != whole {
			chars++
		}
		return add32(textRest[in]+max(n.min-chars, 0), g.cost[n.next])
	case kindRepeat:
		cost, _ := g.rule(n.x)
		return add32(times32(max(n.min-count, 0), cost), g.cost[n.next])
	default:
		return g.cost[node]
	}
}

// stateOf returns the state of the items in out.
func (a *Automaton) stateOf(end bool) State {
	hash := uint32(2166136261)
	for _, it := range a.out {
		hash = hash*16777619 ^ hash3(it.node, it.stack, it.count) ^ uint32(it.marks)*0x9e3779b1
	}
	mask := uint32(len(a.stateTable) - 1)
	slot := hash & mask
	for a.stateTable[slot] != 0 {
		i := a.stateTable[slot]
		if st := &a.states[i]; st.hash == hash && slices.Equal(a.items[st.first:st.first+st.items], a.out) {
			return State(i)
		}
		slot = (slot + 1) & mask
	}
	st := state{first: int32(len(a.items)), items: int32(len(a.out)), hash: hash, end: end}
	a.describe(&st)
	i := int32(len(a.states))
	a.items = append(a.items, a.out...)
	a.states = append(a.states, st)
	for range a.classes {
		a.next = append(a.next, 0)
	}
	a.stateTable[slot] = i
	if 2*len(a.states) > len(a.stateTable) {
		a.stateTable = make([]int32, 4*len(a.stateTable))
		mask = uint32(len(a.stateTable) - 1)
		for i := 1; i < len(a.states); i++ {
			slot := a.states[i].hash & mask
			for a.stateTable[slot] != 0 {
				slot = (slot + 1) & mask
			}
			a.stateTable[slot] = int32(i)
		}
	}
	return State(i)
}

// describe derives the properties of a state from the items in out.
func (a *Automaton) describe(st *state) {
	g := a.g
	st.cost, st.sure = never, ^Mark(0)
	st.only = true
	for _, it := range a.out {
		n := &g.nodes[it.node]
		st.cost = min(st.cost, add32(a.costAt(it.node, it.count), a.frames[it.stack].cost))
		st.marks |= it.marks
		st.sure &= it.marks
		switch n.kind {
		case kindText:
			if it.count&(1<<textBits-1) != whole {
				st.only = false
				continue
			}
			left := int32(Unlimited)
			if n.max != Unlimited {
				left = n.max - it.count>>textBits
			}
			st.plain = max(st.plain, left)
		case kindDFA:
			st.only = false
			if plain := g.dfas[n.x].Plain; plain != nil {
				st.plain = max(st.plain, plain[it.count])
			}
		case kindToken, kindOther:
			st.tokens = true
		case kindSet: // a closing quote behind the string, usually
			if st.only {
				st.only = g.noPlain(n.x)
			}
		case kindEnd:
		default:
			st.only = false
		}
	}
}

// noPlain reports whether no plain character begins with a byte of a set.
func (g *Grammar) noPlain(set int32) bool {
	s := g.sets[set]
	var control Set
	control.Add(0, 0x1f)
	control.Add('"', '"')
	control.Add('\\', '\\')
	for i := range s {
		if s[i]&^control[i] != 0 {
			return false
		}
	}
	return true
}

// Full reports whether the automaton has reached its bounds; Renew should then be called.
func (a *Automaton) Full() bool { return len(a.states) > MaxStates || a.Bytes() > maxBytes }

// Renewed counts the calls of Renew: states of different counts must not be mixed.
func (a *Automaton) Renewed() int { return a.renewed }

// Renew forgets all states but those of open cursors and of live, which it replaces in place.
func (a *Automaton) Renew(live []State) {
	old := Automaton{g: a.g, frames: a.frames, items: a.items, states: a.states}
	a.renewed++
	a.frames, a.items, a.states, a.next = nil, nil, nil, nil
	a.reset()
	moved := make(map[int32]int32)
	var move func(stack int32) int32
	move = func(stack int32) int32 {
		if stack == 0 {
			return 0
		}
		if to, ok := moved[stack]; ok {
			return to
		}
		f := &old.frames[stack]
		to := a.frame(f.node, f.count, move(f.parent), f.depth-old.frames[f.parent].depth)
		moved[stack] = to
		return to
	}
	renew := func(s State) State {
		if s <= 0 {
			return s
		}
		st := &old.states[s]
		a.out = a.out[:0]
		for _, it := range old.items[st.first : st.first+st.items] {
			it.stack = move(it.stack)
			a.out = append(a.out, it)
		}
		slices.SortFunc(a.out, compareItems)
		return a.stateOf(st.end)
	}
	for i, s := range live {
		live[i] = renew(s)
	}
	for _, c := range a.cursors {
		c.state = renew(c.state)
	}
}

func hash3(a, b, c int32) uint32 {
	h := uint64(uint32(a))*0x9e3779b97f4a7c15 ^ uint64(uint32(b))*0xc2b2ae3d27d4eb4f ^ uint64(uint32(c))*0x165667b19e3779f9
	h ^= h >> 29
	h *= 0xbf58476d1ce4e5b9
	return uint32(h >> 32)
}

// An itemSet is the set of items that a closure has seen. It is emptied without being cleared.
type itemSet struct {
	items []item
	turns []uint32 // of each slot, the turn in which it was filled
	turn  uint32
	n     int
}

func (s *itemSet) clear() {
	s.n = 0
	if s.turn++; s.turn == 0 || s.items == nil {
		s.items, s.turns, s.turn = make([]item, 64), make([]uint32, 64), 1
	}
}

// add reports whether an item is new.
func (s *itemSet) add(it item) bool {
	mask := uint32(len(s.items) - 1)
	slot := (hash3(it.node, it.stack, it.count) ^ uint32(it.marks)*0x9e3779b1) & mask
	for s.turns[slot] == s.turn {
		if s.items[slot] == it {
			return false
		}
		slot = (slot + 1) & mask
	}
	s.items[slot], s.turns[slot] = it, s.turn
	if s.n++; 2*s.n > len(s.items) {
		old, turns, turn := s.items, s.turns, s.turn
		s.items, s.turns = make([]item, 4*len(old)), make([]uint32, 4*len(old))
		s.turn, s.n = 1, 0
		for i, it := range old {
			if turns[i] == turn {
				s.add(it)
			}
		}
	}
	return true
}
