package automaton

import (
	"math/rand/v2"
	"slices"
)

// Lookahead is the length in bytes of the longest texts that [Automaton.Alike] takes into account. Alike
// states may share a mask only if no token is longer.
const Lookahead = 64

// The states of a DFA are compared only if it has more than alikeFrom states, because otherwise that
// saves little, and at most alikeTo edges, because a mask waits for the result.
const (
	alikeFrom = 64
	alikeTo   = 1 << 15
)

// Alike returns the same state for all states that it finds to take the same texts of up to
// [Lookahead] bytes. Far from a bound on the length of a text, the states of a DFA differ only in
// the distance to the bound, so many of them can share one mask.
func (a *Automaton) Alike(s State) State {
	if s <= 0 {
		return s
	}
	if like := a.states[s].like; like != 0 {
		return State(like)
	}
	st := a.states[s]
	a.begin()
	for _, it := range a.items[st.first : st.first+st.items] {
		if n := &a.g.nodes[it.node]; n.kind == kindDFA && len(a.g.dfas[n.x].Accept) > alikeFrom && len(a.g.dfas[n.x].Edges) <= alikeTo {
			it.count = a.g.dfas[n.x].alike()[it.count]
		}
		a.out = append(a.out, it)
	}
	slices.SortFunc(a.out, compareItems)
	a.out = slices.Compact(a.out)
	like := a.stateOf(st.end)
	a.states[s].like = int32(like)
	a.states[like].like = int32(like)
	return like
}

// alike returns, for each state of a DFA, the first state that takes the same texts of up to
// Lookahead bytes. The result is computed once.
func (d *DFA) alike() []int32 {
	d.compared.Do(func() { d.like = d.compare() })
	return d.like
}

// compare computes the result of alike. It refines classes of states Lookahead times: states stay in
// one class if all bytes lead them to the same classes.
func (d *DFA) compare() []int32 {
	n := len(d.Accept)
	seed := rand.Uint64() //nolint:gosec // so that no client can choose states whose hashes collide
	mix := func(h, v uint64) uint64 {
		h = (h ^ v ^ seed) * 0xbf58476d1ce4e5b9
		return h ^ h>>29
	}
	now, next := make([]uint64, n), make([]uint64, n)
	for s, ok := range d.Accept {
		if ok {
			now[s] = seed
		}
	}
	for range Lookahead {
		for s := range n {
			h := mix(1, now[s])
			for _, e := range d.Edges[d.First[s]:d.First[s+1]] {
				h = mix(h, now[e.To]+(uint64(e.Lo)<<8|uint64(e.Hi))*0x9e3779b97f4a7c15)
			}
			next[s] = h
		}
		now, next = next, now
	}
	first := make(map[uint64]int32, n)
	out := make([]int32, n)
	for s, h := range now {
		if _, ok := first[h]; !ok {
			first[h] = int32(s)
		}
		out[s] = first[h]
	}
	return out
}
