package regex

import "iter"

// Not returns the language of the strings that are not in d.
func Not(b *Budget, d *DFA) *DFA {
	if d.Empty() {
		return Any()
	}
	n := len(d.accept)
	if !b.Spend(d.size() + 4*d.classes) {
		return None()
	}
	c := &DFA{alphabet: d.alphabet, next: make([]int32, (n+1)*d.classes), accept: make([]bool, n+1)}
	for i := range c.next {
		c.next[i] = int32(n) // the sink
		if i < len(d.next) && d.next[i] >= 0 {
			c.next[i] = d.next[i]
		}
	}
	for i := range c.accept {
		c.accept[i] = i == n || !d.accept[i]
	}
	return c.trim(b)
}

// And returns the strings that are in both languages.
func And(b *Budget, x, y *DFA) *DFA {
	return product(b, x, y, func(x, y bool) bool { return x && y }, false)
}

// Or returns the strings that are in at least one of the languages.
func Or(b *Budget, x, y *DFA) *DFA {
	return product(b, x, y, func(x, y bool) bool { return x || y }, true)
}

// Minus returns the strings of x that are not in y.
func Minus(b *Budget, x, y *DFA) *DFA {
	switch {
	case x.Empty() || y.Empty():
		return x
	}
	return And(b, x, Not(b, y))
}

// isAny reports whether d is the minimal automaton of all strings.
func (d *DFA) isAny() bool {
	if len(d.accept) != 1 || !d.accept[0] {
		return false
	}
	for _, to := range d.next {
		if to < 0 {
			return false
		}
	}
	return true
}

// product returns the automaton that runs x and y in parallel and accepts if accept reports true
// for their results. If either is set, it continues while at least one of them continues, otherwise
// while both do.
func product(b *Budget, x, y *DFA, accept func(x, y bool) bool, either bool) *DFA {
	switch {
	case x.Empty() || y.Empty():
		if !either {
			return None()
		}
		if x.Empty() {
			return y
		}
		return x
	case !either && x.isAny(), either && y.isAny():
		return y
	case !either && y.isAny(), either && x.isAny():
		return x
	}
	joint, left, right := join(&x.alphabet, &y.alphabet)
	d := &DFA{alphabet: joint}
	index := newPairIndex(len(x.accept), len(y.accept))
	index.add([2]int32{0, 0}, 0)
	pairs := [][2]int32{{0, 0}}
	for i := 0; i < len(pairs); i++ {
		if !b.Spend(4*d.classes + 32) {
			return None()
		}
		p := pairs[i]
		d.accept = append(d.accept, accept(p[0] >= 0 && x.accept[max(p[0], 0)], p[1] >= 0 && y.accept[max(p[1], 0)]))
		for c := range d.classes {
			q := [2]int32{-1, -1}
			if p[0] >= 0 {
				q[0] = x.next[int(p[0])*x.classes+int(left[c])]
			}
			if p[1] >= 0 {
				q[1] = y.next[int(p[1])*y.classes+int(right[c])]
			}
			if q[0] < 0 && q[1] < 0 || !either && (q[0] < 0 || q[1] < 0) {
				d.next = append(d.next, -1)
				continue
			}
			to := index.find(q)
			if to < 0 {
				to = int32(len(pairs))
				index.add(q, to)
				pairs = append(pairs, q)
			}
			d.next = append(d.next, to)
		}
	}
	b.Free(32 * len(pairs))
	return d.trim(b)
}

// A pairIndex numbers pairs of states. -1 in a pair stands for an automaton that has refused the
// text. If few pairs are possible, the numbers are in a table, otherwise in a map.
type pairIndex struct {
	width int32
	table []int32 // numbers plus one
	other map[[2]int32]int32
}

func newPairIndex(n, m int) *pairIndex {
	const few = 1 << 13
	if (n+1)*(m+1) > few {
		return &pairIndex{other: make(map[[2]int32]int32)}
	}
	return &pairIndex{width: int32(m + 1), table: make([]int32, (n+1)*(m+1))}
}

func (x *pairIndex) add(p [2]int32, number int32) {
	if x.table == nil {
		x.other[p] = number + 1
		return
	}
	x.table[(p[0]+1)*x.width+p[1]+1] = number + 1
}

// find returns the number of a pair, or -1 if it has none.
func (x *pairIndex) find(p [2]int32) int32 {
	if x.table == nil {
		return x.other[p] - 1
	}
	return x.table[(p[0]+1)*x.width+p[1]+1] - 1
}

// overlaps yields the pairs of ranges, one of each alphabet, that have characters in common, in
// order.
func overlaps(x, y *alphabet) iter.Seq2[int, int] {
	return func(yield func(int, int) bool) {
		for i, j := 0, 0; i < len(x.starts) && j < len(y.starts); {
			if !yield(i, j) {
				return
			}
			switch {
			case i+1 == len(x.starts):
				j++
			case j+1 == len(y.starts) || x.starts[i+1] < y.starts[j+1]:
				i++
			case x.starts[i+1] > y.starts[j+1]:
				j++
			default:
				i++
				j++
			}
		}
	}
}

// join returns the coarsest alphabet that refines two alphabets. left and right hold, for each of its
// classes, the class of x and the class of y that contain it.
func join(x, y *alphabet) (joint alphabet, left, right []int32) {
	index := make(map[[2]int32]int32)
	for i, j := range overlaps(x, y) {
		pair := [2]int32{x.class[i], y.class[j]}
		c, ok := index[pair]
		if !ok {
			c = int32(joint.classes)
			index[pair] = c
			joint.classes++
			left, right = append(left, pair[0]), append(right, pair[1])
		}
		joint.starts, joint.class = append(joint.starts, max(x.starts[i], y.starts[j])), append(joint.class, c)
	}
	return joint, left, right
}

// maxPairs is the maximum number of pairs of states that [Disjoint] visits.
const maxPairs = 4096

// Disjoint reports whether two languages certainly have no string in common. It builds no
// automaton, and reports false if maxPairs pairs of states do not suffice.
func Disjoint(x, y *DFA) bool {
	if x.Empty() || y.Empty() {
		return true
	}
	seen := map[[2]int32]bool{{0, 0}: true}
	work := [][2]int32{{0, 0}}
	for len(work) > 0 {
		p := work[len(work)-1]
		work = work[:len(work)-1]
		if x.accept[p[0]] && y.accept[p[1]] || len(seen) > maxPairs {
			return false
		}
		last := [2]int32{-1, -1}
		for i, j := range overlaps(&x.alphabet, &y.alphabet) {
			q := [2]int32{x.next[int(p[0])*x.classes+int(x.class[i])], y.next[int(p[1])*y.classes+int(y.class[j])]}
			if q != last && q[0] >= 0 && q[1] >= 0 && !seen[q] {
				seen[q] = true
				work = append(work, q)
			}
			last = q
		}
	}
	return true
}
