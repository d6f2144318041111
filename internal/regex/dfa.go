// Package regex compiles the regular expressions of ECMA 262, with the flag u, without look-around, back-references
// and word boundaries, into deterministic automata over characters. It combines such automata:
// intersection, union, difference, complement, words, lengths. It spells them in bytes for
// package automaton, as they are or as the inside of a JSON string. It knows no schema and no
// vocabulary, and it matches no text of an answer itself.
//
// Languages may explode, so every operation takes a budget. When that is spent its results
// are meaningless; the caller looks at the budget's error once, at the end.
package regex

import (
	"math"
	"slices"
	"sort"
	"unicode/utf8"

	"github.com/inferd-go/inferd/internal/automaton"
)

// Budget bounds the operations of this package.
type Budget = automaton.Budget

// A DFA is a language over characters: Unicode scalar values. It is immutable. Its states
// are trimmed: each can be reached, and reaches an accepting one. The zero DFA is the empty
// language.
type DFA struct {
	alphabet
	next   []int32 // of each state, the states behind each class; -1 is none
	accept []bool  // state 0 is the start
}

// An alphabet divides the characters into classes that a DFA treats alike.
type alphabet struct {
	starts  []rune  // sorted, the first is 0: where a range begins
	class   []int32 // of each range
	classes int
}

const (
	surrogates    = 0xd800
	surrogatesEnd = 0xe000
	maxRune       = utf8.MaxRune
)

// classOf returns the class of a character.
func (a *alphabet) classOf(r rune) int32 {
	i := sort.Search(len(a.starts), func(i int) bool { return a.starts[i] > r }) - 1
	return a.class[i]
}

// plain is the alphabet with one class.
var plain = alphabet{starts: []rune{0}, class: []int32{0}, classes: 1}

// Any returns the language of all strings.
func Any() *DFA { return &DFA{alphabet: plain, next: []int32{0}, accept: []bool{true}} }

// None returns the language without strings.
func None() *DFA { return &DFA{alphabet: plain} }

// Empty reports whether the language has no string.
func (d *DFA) Empty() bool { return len(d.accept) == 0 }

// States returns the number of states.
func (d *DFA) States() int { return len(d.accept) }

// size returns the memory of the DFA.
func (d *DFA) size() int { return len(d.next)*4 + len(d.accept) + len(d.starts)*8 }

// Match reports whether a string is in the language.
func (d *DFA) Match(s string) bool {
	if d.Empty() {
		return false
	}
	state := int32(0)
	for _, r := range s {
		if state = d.next[int(state)*d.classes+int(d.classOf(r))]; state < 0 {
			return false
		}
	}
	return d.accept[state]
}

// Lengths returns the language of the strings of least to most characters; most < 0 is no
// maximum.
func Lengths(b *Budget, least, most int) *DFA {
	n := max(most, least)
	if n > automaton.MaxCount || !b.Spend(5*(n+1)) {
		b.Spend(math.MaxInt32)
		return None()
	}
	d := &DFA{alphabet: plain}
	for i := range n + 1 {
		d.next = append(d.next, int32(i+1))
		d.accept = append(d.accept, i >= least)
	}
	d.next[n] = -1
	if most < 0 {
		d.next[n] = int32(n)
	} else if least > most {
		return None()
	}
	return d
}

// Words returns the language of the given strings.
func Words(b *Budget, words []string) *DFA {
	words = slices.Clone(words)
	slices.Sort(words)
	words = slices.Compact(words)
	if len(words) == 0 {
		return None()
	}
	t := newWordTrie(b)
	for _, w := range words {
		if !t.insert(w) {
			return None()
		}
	}
	return t.dfa()
}

// A wordTrie makes the minimal automaton of sorted words: a branch that later words can no
// longer change is replaced by an equal one that was finished before.
type wordTrie struct {
	b        *Budget
	nodes    []wordNode
	finished map[string]int32
	last     []rune
	path     []int32 // nodes along the last word
}

type wordNode struct {
	runes []rune
	to    []int32
	final bool
}

func newWordTrie(b *Budget) *wordTrie {
	return &wordTrie{b: b, nodes: make([]wordNode, 1), finished: make(map[string]int32), path: []int32{0}}
}

func (t *wordTrie) insert(word string) bool {
	runes := []rune(word)
	common := 0
	for common < len(runes) && common < len(t.last) && runes[common] == t.last[common] {
		common++
	}
	t.finish(common)
	for _, r := range runes[common:] {
		if !t.b.Spend(96) {
			return false
		}
		at := t.path[len(t.path)-1]
		t.nodes = append(t.nodes, wordNode{})
		to := int32(len(t.nodes) - 1)
		t.nodes[at].runes = append(t.nodes[at].runes, r)
		t.nodes[at].to = append(t.nodes[at].to, to)
		t.path = append(t.path, to)
	}
	t.nodes[t.path[len(t.path)-1]].final = true
	t.last = runes
	return true
}

// finish replaces the nodes of the last word deeper than keep by equal ones.
func (t *wordTrie) finish(keep int) {
	var key []byte
	for len(t.path)-1 > keep {
		at := t.path[len(t.path)-1]
		t.path = t.path[:len(t.path)-1]
		n := &t.nodes[at]
		key = append(key[:0], 0)
		if n.final {
			key[0] = 1
		}
		for i, r := range n.runes {
			key = utf8.AppendRune(key, r)
			key = append(key, byte(n.to[i]), byte(n.to[i]>>8), byte(n.to[i]>>16), byte(n.to[i]>>24))
		}
		if same, ok := t.finished[string(key)]; ok {
			parent := &t.nodes[t.path[len(t.path)-1]]
			parent.to[len(parent.to)-1] = same
			if int(at) == len(t.nodes)-1 {
				t.nodes = t.nodes[:at]
				t.b.Free(96)
			}
		} else {
			t.finished[string(key)] = at
		}
	}
}

func (t *wordTrie) dfa() *DFA {
	t.finish(0)
	var runes []rune
	for i := range t.nodes {
		runes = append(runes, t.nodes[i].runes...)
	}
	slices.Sort(runes)
	runes = slices.Compact(runes)
	d := &DFA{alphabet: single(runes)}
	if !t.b.Spend(len(t.nodes) * (4*d.classes + 1)) {
		return None()
	}
	d.next = slices.Repeat([]int32{-1}, len(t.nodes)*d.classes)
	d.accept = make([]bool, len(t.nodes))
	for i := range t.nodes {
		n := &t.nodes[i]
		d.accept[i] = n.final
		for j, r := range n.runes {
			c, _ := slices.BinarySearch(runes, r)
			d.next[i*d.classes+c+1] = n.to[j]
		}
	}
	return d.order(t.b, nil) // minimal, and every state useful, but for those that were replaced
}

// single returns the alphabet in which each of the sorted characters has a class of its own,
// from 1 on.
func single(runes []rune) alphabet {
	a := alphabet{classes: len(runes) + 1}
	next := rune(0)
	for i, r := range runes {
		if r > next || i == 0 && r > 0 {
			a.starts, a.class = append(a.starts, next), append(a.class, 0)
		}
		a.starts, a.class = append(a.starts, r), append(a.class, int32(i+1))
		next = r + 1
	}
	if next <= maxRune {
		a.starts, a.class = append(a.starts, next), append(a.class, 0)
	}
	return a
}

// Not returns the language of all other strings.
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

// Or returns the strings that are in one of the languages or both.
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

// isAny reports whether d is the automaton of all strings, when it is minimal.
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

// product runs two automata side by side. With either, it goes on while one of them does.
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
	index := map[[2]int32]int32{{0, 0}: 0}
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
			to, ok := index[q]
			if !ok {
				to = int32(len(pairs))
				index[q] = to
				pairs = append(pairs, q)
			}
			d.next = append(d.next, to)
		}
	}
	b.Free(32 * len(pairs))
	return d.trim(b)
}

// join returns the common refinement of two alphabets, and of each of its classes those of
// the two.
func join(x, y *alphabet) (joint alphabet, left, right []int32) {
	index := make(map[[2]int32]int32)
	for i, j := 0, 0; i < len(x.starts) && j < len(y.starts); {
		pair := [2]int32{x.class[i], y.class[j]}
		c, ok := index[pair]
		if !ok {
			c = int32(joint.classes)
			index[pair] = c
			joint.classes++
			left, right = append(left, pair[0]), append(right, pair[1])
		}
		joint.starts, joint.class = append(joint.starts, max(x.starts[i], y.starts[j])), append(joint.class, c)
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
	return joint, left, right
}

// trim removes states without a way to the end, merges equal ones, and numbers the rest from
// the start.
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

// order numbers the blocks of equal states in the order in which the start reaches them; nil
// is a block for each state.
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

// useful returns the states with a way to an accepting one.
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

// maxRounds bounds the refinement of blocks. Without the last rounds states may stay apart
// that are equal.
const maxRounds = 64

// blocks returns a block for each state; states of one block are equal.
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
	for range maxRounds {
		index := make(map[uint64]int32, 2*count)
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
			i, ok := index[h]
			if !ok {
				i = int32(len(index))
				index[h] = i
			}
			next[s] = i
		}
		block, next = next, block
		if len(index) == count {
			if d.stable(block, count) {
				return block
			}
			break
		}
		count = len(index)
	}
	return identity(n)
}

// identity returns a block for each state.
func identity(n int) []int32 {
	block := make([]int32, n)
	for s := range block {
		block[s] = int32(s)
	}
	return block
}

// stable reports whether the states of each block are equal indeed: the refinement compares
// hashes.
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

// compact merges the classes that no state tells apart.
func (d *DFA) compact() {
	n := len(d.accept)
	if d.classes == 1 {
		return
	}
	to := make([]int32, d.classes) // of each class, its representative
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

// Count returns the number of strings, at most limit.
func (d *DFA) Count(limit int) int {
	n := len(d.accept)
	if n == 0 {
		return 0
	}
	sizes := d.classSizes()
	counts := make([]int, n)
	state := make([]int8, n)
	var visit func(s int32) int
	visit = func(s int32) int {
		switch state[s] {
		case 1: // a loop, and every state reaches an accepting one
			return limit
		case 2:
			return counts[s]
		}
		state[s] = 1
		sum := 0
		if d.accept[s] {
			sum = 1
		}
		for c := range d.classes {
			if to := d.next[int(s)*d.classes+c]; to >= 0 && sizes[c] > 0 {
				k := visit(to)
				if k >= (limit+sizes[c]-1)/sizes[c] {
					sum = limit
				} else {
					sum = min(limit, sum+k*sizes[c])
				}
			}
		}
		counts[s], state[s] = sum, 2
		return sum
	}
	return min(visit(0), limit)
}

// classSizes returns the number of characters of each class.
func (d *DFA) classSizes() []int {
	sizes := make([]int, d.classes)
	d.ranges(func(lo, hi rune, class int32) { sizes[class] += int(hi - lo + 1) })
	return sizes
}

// ranges calls yield for each range of characters of one class; surrogates are none.
func (a *alphabet) ranges(yield func(lo, hi rune, class int32)) {
	for i, lo := range a.starts {
		hi := rune(maxRune)
		if i+1 < len(a.starts) {
			hi = a.starts[i+1] - 1
		}
		if lo < surrogates {
			yield(lo, min(hi, surrogates-1), a.class[i])
		}
		if hi >= surrogatesEnd {
			yield(max(lo, surrogatesEnd), hi, a.class[i])
		}
	}
}

// Finite reports whether the language is finite.
func (d *DFA) Finite() bool { return d.Count(math.MaxInt32) < math.MaxInt32 }

// maxPairs bounds the search of [Disjoint].
const maxPairs = 4096

// Disjoint reports whether two languages surely have no string in common. It builds nothing,
// and gives up early.
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
		for i, j := 0, 0; i < len(x.starts) && j < len(y.starts); {
			q := [2]int32{x.next[int(p[0])*x.classes+int(x.class[i])], y.next[int(p[1])*y.classes+int(y.class[j])]}
			if q != last && q[0] >= 0 && q[1] >= 0 && !seen[q] {
				seen[q] = true
				work = append(work, q)
			}
			last = q
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
	return true
}
