package automaton

import (
	"math"
	"slices"
	"sync"
)

// TextBut returns a DFA of the texts of any length that [Builder.Text] takes, except the given words.
// A word that is not such a text has no effect.
func TextBut(words []string) *DFA {
	t := &wordTrie{}
	t.node(whole)
	for _, w := range words {
		t.add(w)
	}
	d := &DFA{First: make([]int32, 1, len(t.nodes)+refused+1)}
	free := int32(len(t.nodes)) // the first state of free text, after the states of the trie
	state := func(s int32, children []wordChild, accept bool) {
		d.Edges = appendEdges(d.Edges, s, free, children)
		d.First = append(d.First, int32(len(d.Edges)))
		d.Accept = append(d.Accept, accept)
		plain := int32(0)
		if s == whole { // every character fits, but the text may not be allowed to end
			plain = math.MaxInt32
		}
		d.Plain = append(d.Plain, plain)
	}
	for i := range t.nodes {
		n := &t.nodes[i]
		slices.SortFunc(n.children, func(x, y wordChild) int { return int(x.b) - int(y.b) })
		state(n.text, n.children, n.text == whole && !n.final)
	}
	for s := range int32(refused) {
		state(s, nil, s == whole)
	}
	return d
}

// A wordTrie holds the excluded words, byte by byte.
type wordTrie struct{ nodes []wordNode }

type wordNode struct {
	text     int32 // the state within a character
	final    bool
	children []wordChild
}

type wordChild struct {
	b  byte
	to int32
}

func (t *wordTrie) node(text int32) int32 {
	t.nodes = append(t.nodes, wordNode{text: text})
	return int32(len(t.nodes) - 1)
}

// add adds a word. It ignores a word that is not a text that Builder.Text takes.
func (t *wordTrie) add(word string) {
	at, text := int32(0), int32(whole)
	for i := range len(word) {
		b := word[i]
		if text = textNext(text, b); text == refused {
			return
		}
		next := int32(-1)
		for _, c := range t.nodes[at].children {
			if c.b == b {
				next = c.to
			}
		}
		if next < 0 {
			next = t.node(text)
			t.nodes[at].children = append(t.nodes[at].children, wordChild{b, next})
		}
		at = next
	}
	t.nodes[at].final = true
}

// appendEdges appends the edges of a node of the trie: to its children, and for all other bytes to
// the states of free text.
func appendEdges(edges []Edge, text, free int32, children []wordChild) []Edge {
	for _, e := range textEdges()[text] {
		lo, hi := int(e.Lo), int(e.Hi)
		for ; len(children) > 0 && int(children[0].b) <= hi; children = children[1:] {
			c := children[0]
			if lo < int(c.b) {
				edges = append(edges, Edge{byte(lo), c.b - 1, free + e.To})
			}
			edges = append(edges, Edge{c.b, c.b, c.to})
			lo = int(c.b) + 1
		}
		if lo <= hi {
			edges = append(edges, Edge{byte(lo), byte(hi), free + e.To})
		}
	}
	return edges
}

// textEdges holds the edges of each state within a character; see textNext.
var textEdges = sync.OnceValue(func() (edges [refused][]Edge) {
	for text := range int32(refused) {
		for lo := 0; lo < 256; {
			to := textNext(text, byte(lo))
			hi := lo
			for hi < 255 && textNext(text, byte(hi+1)) == to {
				hi++
			}
			if to != refused {
				edges[text] = append(edges[text], Edge{byte(lo), byte(hi), to})
			}
			lo = hi + 1
		}
	}
	return edges
})
