package automaton

import "sync"

// A DFA is a deterministic automaton over bytes. State 0 is the start. A byte without an edge
// is refused. Every state must have a way to an accepting one.
type DFA struct {
	First  []int32 // index of each state's first edge, then the number of edges
	Edges  []Edge  // the edges of a state are sorted by byte and do not overlap
	Accept []bool
	// Plain holds, for each state, a number n such that the state takes any n plain characters (see the
	// function [Plain]). Nil means 0 for all states.
	Plain []int32

	measured, compared sync.Once
	dist, like         []int32 // see distances and alike
}

// An Edge is a transition of a [DFA] for a range of bytes.
type Edge struct {
	Lo, Hi byte
	To     int32
}

// Size returns the size of the DFA in bytes, without the tables that are computed on first use.
func (d *DFA) Size() int {
	return 4*len(d.First) + 8*len(d.Edges) + len(d.Accept) + 4*len(d.Plain)
}

// next returns the state after a byte, or -1 if the byte is refused.
func (d *DFA) next(state int32, b byte) int32 {
	return target(d.Edges[d.First[state]:d.First[state+1]], b)
}

// target returns the state to which one of the edges leads with byte b, or -1 if none has b.
func target(edges []Edge, b byte) int32 {
	for _, e := range edges {
		if b <= e.Hi {
			if b < e.Lo {
				return -1
			}
			return e.To
		}
	}
	return -1
}

// distances returns, for each state, the smallest number of bytes to an accepting state. The result
// is computed once.
func (d *DFA) distances() []int32 {
	d.measured.Do(func() { d.dist = d.measure() })
	return d.dist
}

func (d *DFA) measure() []int32 {
	n := len(d.Accept)
	dist := make([]int32, n)
	sources := make([][2]int32, 0, len(d.Edges)) // to, from
	for s := range n {
		dist[s] = never
		for _, e := range d.Edges[d.First[s]:d.First[s+1]] {
			sources = append(sources, [2]int32{e.To, int32(s)})
		}
	}
	// Group the sources by target, by counting sort.
	first := make([]int32, n+1)
	for _, e := range sources {
		first[e[0]+1]++
	}
	for i := range n {
		first[i+1] += first[i]
	}
	from, at := make([]int32, len(sources)), append([]int32(nil), first[:n]...)
	for _, e := range sources {
		from[at[e[0]]] = e[1]
		at[e[0]]++
	}
	var queue []int32
	for s, ok := range d.Accept {
		if ok {
			dist[s] = 0
			queue = append(queue, int32(s))
		}
	}
	for len(queue) > 0 {
		s := queue[0]
		queue = queue[1:]
		for _, p := range from[first[s]:first[s+1]] {
			if dist[p] == never {
				dist[p] = dist[s] + 1
				queue = append(queue, p)
			}
		}
	}
	return dist
}
