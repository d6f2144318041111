// Package vocab turns the states of an automaton into masks over the tokens of a vocabulary. The
// bit of a token is set exactly if its bytes fit next, or if the grammar takes it by its id. It also
// counts the tokens that a text needs to end. It depends neither on the source of a vocabulary nor on the
// choice of tokens.
//
// A [Vocab] is made once per model. It holds the tokens as a trie in depth-first order, so a walk
// along the trie and the automaton skips a subtree at its first byte that does not fit. Tokens that
// are whole plain characters (see [automaton.Plain]) are grouped by their number of characters:
// inside a free string one ready mask replaces the walk over nearly the whole vocabulary.
//
// A [Masks] belongs to one vocabulary and one automaton. It keeps masks that are expensive to
// compute, and allocates nothing once the states of a text are known. One goroutine at a time may
// use it.
package vocab

import (
	"cmp"
	"slices"
	"unicode/utf8"

	"github.com/inferd-go/inferd/internal/automaton"
)

// A Token is a token of a vocabulary. Its id is its index.
type Token struct {
	Bytes []byte
	// Control tokens (markers, ends, unused tokens) are not text, whatever their bytes. They fit
	// only where a grammar names their id.
	Control bool
}

// Groups of plain tokens by number of characters: one for each number up to 16, one for up to 32,
// and one for more.
const (
	single = 16
	groups = single + 2
)

// A node of a trie. A trie stores its nodes in depth-first order.
type node struct {
	token int32  // the token that ends here, with flags
	size  int32  // number of nodes in the subtree, including this one
	depth uint16 // number of bytes before this one
	b     byte
}

// Flags of the token of a node.
const (
	twinned = 1 << 30 // other tokens have the same bytes
	none    = 1 << 29 // there is no token; the id is 0
	flags   = twinned | none
)

// maxToken is the maximum length of a token in bytes, because a node has 16 bits for its depth.
const maxToken = 1<<16 - 1

// A trie holds the nodes of some tokens. For each first byte, first has the index of its subtree,
// which ends where the subtree of the next byte begins.
type trie struct {
	nodes []node
	first [257]int32
}

// A Vocab is the vocabulary of a model. It is immutable.
type Vocab struct {
	tokens  [][]byte
	control []bool
	all     trie              // of all tokens
	rest    trie              // of tokens that are not plain
	plain   [groups]trie      // of plain tokens by number of characters
	longest int               // number of characters of the longest plain token
	most    int               // number of bytes of the longest token
	ready   [groups][]uint64  // masks of all plain tokens up to each group
	twins   map[int32][]int32 // for the first of several tokens with the same bytes, the others
}

// New returns a vocabulary. Tokens without bytes, or with more than 65,535 bytes, fit only by their id.
// If several tokens have the same bytes, as with byte fallback, either all of them fit by these bytes or
// none. A large vocabulary takes some 0.3 s; meanwhile yield, if it is not nil, is called about every
// 100 µs.
func New(tokens []Token, yield func()) *Vocab {
	pause := pacer(yield)
	v := &Vocab{tokens: make([][]byte, len(tokens)), control: make([]bool, len(tokens)), twins: make(map[int32][]int32)}
	order := make([]int32, 0, len(tokens))
	for i, t := range tokens {
		pause()
		v.tokens[i], v.control[i] = t.Bytes, t.Control
		if !t.Control && len(t.Bytes) > 0 && len(t.Bytes) <= maxToken {
			order = append(order, int32(i))
		}
	}
	slices.SortFunc(order, func(x, y int32) int {
		pause()
		return cmp.Or(slices.Compare(tokens[x].Bytes, tokens[y].Bytes), cmp.Compare(x, y))
	})
	var all []int32
	var split [groups + 1][]int32
	for i := 0; i < len(order); {
		pause()
		first := order[i]
		v.most = max(v.most, len(tokens[first].Bytes))
		p := tokens[first].Bytes
		for i++; i < len(order) && slices.Equal(tokens[order[i]].Bytes, p); i++ {
			v.twins[first] = append(v.twins[first], order[i])
		}
		if len(v.twins[first]) > 0 {
			first |= twinned
		}
		all = append(all, first)
		g := groups
		if n := plainLen(p); n > 0 {
			g = group(n)
			v.longest = max(v.longest, n)
		}
		split[g] = append(split[g], first)
	}
	v.all, v.rest = v.trie(all, pause), v.trie(split[groups], pause)
	mask := make([]uint64, v.Words())
	for g := range groups {
		v.plain[g] = v.trie(split[g], pause)
		for _, id := range split[g] {
			pause()
			v.set(mask, id)
		}
		v.ready[g] = slices.Clone(mask)
	}
	return v
}

// plainLen returns the number of characters of a text that consists of plain characters, and 0 for
// any other text.
func plainLen(p []byte) (n int) {
	for len(p) > 0 {
		r, size := utf8.DecodeRune(p)
		if r == utf8.RuneError && size == 1 || !automaton.Plain(r) {
			return 0
		}
		p = p[size:]
		n++
	}
	return n
}

// group returns the group of plain tokens of n characters.
func group(n int) int {
	switch {
	case n <= single:
		return n - 1
	case n <= 32:
		return single
	}
	return single + 1
}

// pacer returns a function that loops call for each token. It calls yield, if that is not nil, at every
// 512th call.
func pacer(yield func()) (pause func()) {
	const often = 512 // some 100 µs
	n := 0
	return func() {
		if n++; n%often == 0 && yield != nil {
			yield()
		}
	}
}

// trie returns the trie of tokens, which must be sorted by their bytes.
func (v *Vocab) trie(ids []int32, pause func()) (t trie) {
	var nodes []node
	var open []int // nodes along the last token
	var last []byte
	end := func(depth int) {
		for len(open) > depth {
			at := open[len(open)-1]
			open = open[:len(open)-1]
			nodes[at].size = int32(len(nodes) - at)
		}
	}
	for _, id := range ids {
		pause()
		p := v.tokens[id&^flags]
		common := 0
		for common < len(p) && common < len(last) && p[common] == last[common] {
			common++
		}
		end(common)
		for depth := common; depth < len(p); depth++ {
			open = append(open, len(nodes))
			nodes = append(nodes, node{token: none, depth: uint16(depth), b: p[depth]})
		}
		nodes[len(nodes)-1].token = id
		last = p
	}
	end(0)
	t.nodes = slices.Clip(nodes)
	at := 0
	for b := range 256 {
		t.first[b] = int32(at)
		if at < len(nodes) && nodes[at].b == byte(b) {
			at += int(nodes[at].size)
		}
	}
	t.first[256] = int32(at)
	return t
}

// Len returns the number of tokens.
func (v *Vocab) Len() int { return len(v.tokens) }

// Words returns the length of a mask in words of 64 bits.
func (v *Vocab) Words() int { return (len(v.tokens) + 63) / 64 }

// Bytes returns the bytes of a token.
func (v *Vocab) Bytes(id int32) []byte { return v.tokens[id] }

// Control reports whether a token is a control token.
func (v *Vocab) Control(id int32) bool { return v.control[id] }

// set sets the bits of a token and of its twins, which are the tokens with the same bytes. id may
// have the flag twinned.
func (v *Vocab) set(mask []uint64, id int32) {
	if id&twinned != 0 {
		id &^= twinned
		for _, t := range v.twins[id] {
			mask[t>>6] |= 1 << (t & 63)
		}
	}
	mask[id>>6] |= 1 << (id & 63)
}

func (v *Vocab) clear(mask []uint64, id int32) {
	mask[id>>6] &^= 1 << (id & 63)
	for _, t := range v.twins[id] {
		mask[t>>6] &^= 1 << (t & 63)
	}
}

// Has reports whether the bit of a token is set.
func Has(mask []uint64, id int32) bool { return mask[id>>6]>>(id&63)&1 != 0 }

// Count returns the number of tokens of a text if the longest match is taken at each position. A
// byte without a token counts as one. It is an upper bound of the tokens that the text needs.
func (v *Vocab) Count(text []automaton.Symbol) (count int) {
	for ; len(text) > 0; count++ {
		_, n, _ := v.First(text)
		text = text[max(1, n):]
	}
	return count
}

// First returns the longest token at the beginning of text, and the number n of its symbols. text must
// not be empty. ok is false if no token matches.
func (v *Vocab) First(text []automaton.Symbol) (id int32, n int, ok bool) {
	if text[0] >= 256 {
		return int32(text[0] - 256), 1, true
	}
	id, n = v.all.match(text)
	return id, n, n > 0
}

// Most returns the number of bytes of the longest token.
func (v *Vocab) Most() int { return v.most }

// match returns the longest token of a trie at the beginning of a text, and its length in bytes,
// which is 0 if there is no such token.
func (t *trie) match(text []automaton.Symbol) (id int32, longest int) {
	nodes := t.nodes
	at, end := int(t.first[text[0]]), int(t.first[text[0]+1])
	for depth := range text {
		if text[depth] >= 256 {
			break
		}
		for at < end && automaton.Symbol(nodes[at].b) != text[depth] {
			at += int(nodes[at].size)
		}
		if at >= end {
			break
		}
		if nodes[at].token&none == 0 {
			id, longest = nodes[at].token&^flags, depth+1
		}
		end = at + int(nodes[at].size)
		at++
	}
	return id, longest
}
