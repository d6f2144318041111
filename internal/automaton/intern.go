package automaton

import "slices"

// frame returns the stack that consists of a return node, with its count, on top of the stack parent.
// level is the number of levels of depth that this adds.
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

// costAt returns the smallest number of bytes from a node with that count to the end of its rule.
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

// stateOf returns the state that consists of the items in out.
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
	if len(a.states) > len(a.next)<<rowBits {
		a.next = append(a.next, make([]State, a.classes<<rowBits))
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
	ways := 0
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
			ways++
			if plain := g.dfas[n.x].Plain; plain != nil {
				st.plain = max(st.plain, plain[it.count])
			}
		case kindToken, kindOther:
			st.tokens = true
		case kindSet: // usually the closing quote of the string
			if st.only {
				st.only = g.noPlain(n.x)
			}
		case kindEnd:
		default:
			st.only = false
		}
	}
	st.several = ways > 1 && st.plain < Lookahead
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

func hash3(a, b, c int32) uint32 {
	h := uint64(uint32(a))*0x9e3779b97f4a7c15 ^ uint64(uint32(b))*0xc2b2ae3d27d4eb4f ^ uint64(uint32(c))*0x165667b19e3779f9
	h ^= h >> 29
	h *= 0xbf58476d1ce4e5b9
	return uint32(h >> 32)
}

// An itemSet is the set of items that a closure has seen. clear empties it without writing to its
// slots: those filled in an earlier turn count as free.
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

// add adds an item and reports whether it is new.
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
