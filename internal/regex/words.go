package regex

import (
	"slices"
	"unicode/utf8"
)

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

// A wordTrie makes the minimal automaton of sorted words. A branch that later words cannot change
// is replaced by an equal finished branch, if there is one.
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

// finish finishes the nodes of the last word that are deeper than keep. It replaces a node by an
// equal finished node, if there is one.
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
	return d.order(t.b, nil) // minimal; leaves out the replaced nodes
}

// single returns the alphabet in which each of the sorted characters has its own class, from 1 on.
// All other characters have class 0.
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
