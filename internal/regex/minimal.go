package regex

import (
	"math/bits"
	"slices"
)

// trim returns the DFA without the states that are not reached from the start, or from which no
// accepting state is reached. Equal states are merged.
func (d *DFA) trim(b *Budget) *DFA {
	n := len(d.accept)
	if n == 0 || !b.Spend(12*n+4*len(d.next)) {
		return None()
	}
	defer b.Free(12*n + 4*len(d.next))
	useful := d.useful()
	if !useful[0] {
		return None()
	}
	for i, to := range d.next {
		if to >= 0 && !useful[to] {
			d.next[i] = -1
		}
	}
	return d.order(b, d.blocks(b))
}

// order returns the DFA with one state for each block of equal states, numbered in the order in
// which they are reached from the start. A nil block means that no states are equal.
func (d *DFA) order(b *Budget, block []int32) *DFA {
	n := len(d.accept)
	if !b.Spend(8*n + 4*len(d.next)) {
		return None()
	}
	if block == nil {
		block = identity(n)
	}
	number := slices.Repeat([]int32{-1}, n)
	order := []int32{0}
	number[block[0]] = 0
	out := &DFA{alphabet: d.alphabet}
	blocks := int(slices.Max(block)) + 1
	out.next, out.accept = make([]int32, 0, blocks*d.classes), make([]bool, 0, blocks)
	for i := 0; i < len(order); i++ {
		s := order[i]
		out.accept = append(out.accept, d.accept[s])
		for _, to := range d.next[int(s)*d.classes : (int(s)+1)*d.classes] {
			if to >= 0 {
				if number[block[to]] < 0 {
					number[block[to]] = int32(len(order))
					order = append(order, to)
				}
				to = number[block[to]]
			}
			out.next = append(out.next, to)
		}
	}
	out.compact()
	return out
}

// useful returns, for each state, whether an accepting state can be reached from it.
func (d *DFA) useful() []bool {
	n := len(d.accept)
	first := make([]int32, n+1)
	for _, to := range d.next {
		if to >= 0 {
			first[to+1]++
		}
	}
	for i := range n {
		first[i+1] += first[i]
	}
	from, at := make([]int32, first[n]), slices.Clone(first[:n])
	for i, to := range d.next {
		if to >= 0 {
			from[at[to]] = int32(i / d.classes)
			at[to]++
		}
	}
	useful := make([]bool, n)
	var queue []int32
	for s, ok := range d.accept {
		if ok {
			useful[s] = true
			queue = append(queue, int32(s))
		}
	}
	for len(queue) > 0 {
		s := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		for _, p := range from[first[s]:first[s+1]] {
			if !useful[p] {
				useful[p] = true
				queue = append(queue, p)
			}
		}
	}
	return useful
}

// maxRounds bounds the rounds of refinement in blocks. If they do not suffice, no states are
// merged.
const maxRounds = 64

// blocks divides the states into blocks of equal states, and returns the block of each state.
func (d *DFA) blocks(b *Budget) []int32 {
	n := len(d.accept)
	block := make([]int32, n)
	count := 1
	for s, ok := range d.accept {
		if ok != d.accept[0] {
			block[s], count = 1, 2
		}
	}
	next := make([]int32, n)
	seen := newHashes(n)
	for range maxRounds {
		seen.clear()
		for s := range n {
			if s&15 == 0 && !b.Spend(0) {
				return identity(n)
			}
			h := mix(0x9e3779b97f4a7c15, uint64(block[s]))
			for _, to := range d.next[s*d.classes : (s+1)*d.classes] {
				v := uint64(0)
				if to >= 0 {
					v = uint64(block[to]) + 1
				}
				h = mix(h, v)
			}
			next[s] = seen.number(h)
		}
		block, next = next, block
		if seen.n == count {
			if d.stable(block, count) {
				return block
			}
			break
		}
		count = seen.n
	}
	return identity(n)
}

// hashes numbers hashes in the order of their first occurrence. It is a table with open addressing,
// because a map would take most of the time of a round.
type hashes struct {
	keys    []uint64 // 0 is free
	numbers []int32
	n       int
}

// newHashes returns a table for up to n hashes.
func newHashes(n int) *hashes {
	size := 1 << bits.Len(uint(2*n))
	return &hashes{keys: make([]uint64, size), numbers: make([]int32, size)}
}

func (t *hashes) clear() {
	clear(t.keys)
	t.n = 0
}

// number returns the number of a hash, which is new if the hash has not occurred before.
func (t *hashes) number(h uint64) int32 {
	h = max(h, 1)
	mask := uint64(len(t.keys) - 1)
	slot := h & mask
	for t.keys[slot] != 0 && t.keys[slot] != h {
		slot = (slot + 1) & mask
	}
	if t.keys[slot] == 0 {
		t.keys[slot], t.numbers[slot] = h, int32(t.n)
		t.n++
	}
	return t.numbers[slot]
}

// identity returns n blocks of one state each.
func identity(n int) []int32 {
	block := make([]int32, n)
	for s := range block {
		block[s] = int32(s)
	}
	return block
}

// stable reports whether the states of each block are really equal. It is needed because the
// refinement compares only hashes.
func (d *DFA) stable(block []int32, count int) bool {
	first := slices.Repeat([]int32{-1}, count)
	for s, i := range block {
		f := first[i]
		if f < 0 {
			first[i] = int32(s)
			continue
		}
		if d.accept[f] != d.accept[s] {
			return false
		}
		for c := range d.classes {
			x, y := d.next[int(f)*d.classes+c], d.next[s*d.classes+c]
			if x != y && (x < 0 || y < 0 || block[x] != block[y]) {
				return false
			}
		}
	}
	return true
}

func mix(h, v uint64) uint64 {
	h ^= v + 0x9e3779b97f4a7c15
	h *= 0xbf58476d1ce4e5b9
	return h ^ h>>29
}

// compact merges the classes that all states treat alike.
func (d *DFA) compact() {
	n := len(d.accept)
	if d.classes == 1 {
		return
	}
	to := make([]int32, d.classes) // of each class, the index of its representative in kept
	var kept []int32
	index := make(map[uint64]int32, d.classes)
	for c := range d.classes {
		h := uint64(1)
		for s := range n {
			h = mix(h, uint64(d.next[s*d.classes+c]+1))
		}
		k, ok := index[h]
		if ok {
			for s := range n {
				if d.next[s*d.classes+c] != d.next[s*d.classes+int(kept[k])] {
					ok = false
					break
				}
			}
		}
		if !ok {
			k = int32(len(kept))
			index[h] = k
			kept = append(kept, int32(c))
		}
		to[c] = k
	}
	if len(kept) == d.classes {
		return
	}
	next := make([]int32, 0, n*len(kept))
	for s := range n {
		for _, c := range kept {
			next = append(next, d.next[s*d.classes+int(c)])
		}
	}
	a := alphabet{classes: len(kept)}
	for i, start := range d.starts {
		if c := to[d.class[i]]; i == 0 || c != a.class[len(a.class)-1] {
			a.starts, a.class = append(a.starts, start), append(a.class, c)
		}
	}
	d.alphabet, d.next = a, next
}
