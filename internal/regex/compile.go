package regex

import (
	"encoding/binary"
	"slices"
)

// Compile returns the language of the strings that contain a match of a pattern, as JSON Schema
// defines it. ^ and $ match the ends of the string. The error is an [*Error], or the budget's.
func Compile(b *Budget, pattern string) (*DFA, error) {
	t, err := parse(pattern)
	if err != nil {
		return nil, err
	}
	return determine(b, pattern, t)
}

// A Tree is an expression from which [Build] makes a language.
type Tree struct{ t *tree }

// Chars returns an expression for one character in ranges or, if not is set, for one character
// outside them.
func Chars(ranges [][2]rune, not bool) Tree {
	s := normal(ranges)
	if not {
		s = negate(s)
	}
	return Tree{&tree{set: s}}
}

// Seq returns an expression for a text of the first part, followed by one of the second part, and so on.
func Seq(parts ...Tree) Tree { return Tree{&tree{op: opSeq, parts: trees(parts)}} }

// Alt returns an expression for a text of any one of the parts. There must be at least one part.
func Alt(parts ...Tree) Tree { return Tree{&tree{op: opAlt, parts: trees(parts)}} }

// Repeat returns an expression for least to most texts of part; most < 0 means no maximum.
func Repeat(part Tree, least, most int) Tree {
	return Tree{&tree{op: opRepeat, parts: []*tree{part.t}, least: least, most: most}}
}

func trees(parts []Tree) (out []*tree) {
	for _, p := range parts {
		out = append(out, p.t)
	}
	return out
}

// Build returns the language of an expression. The error is the budget's, or an [*Error].
func Build(b *Budget, t Tree) (*DFA, error) {
	return determine(b, "", &tree{op: opSeq, parts: []*tree{{op: opBegin}, t.t, {op: opEnd}}})
}

func determine(b *Budget, pattern string, t *tree) (*DFA, error) {
	n := &nfa{b: b, pattern: pattern}
	match := n.node(nfaNode{kind: nfaMatch})
	start, err := n.build(t, match)
	if err != nil {
		return nil, err
	}
	d := n.determine(start)
	if b.Err() != nil {
		return nil, b.Err()
	}
	return d, nil
}

type nfaKind uint8

const (
	nfaSet   nfaKind = iota // a character of a set
	nfaSplit                // goes on at to and at or
	nfaBegin                // passed only at the beginning of the string
	nfaEnd                  // passed only at the end of the string
	nfaMatch                // the pattern has matched
)

type nfaNode struct {
	kind nfaKind
	set  int32
	to   int32
	or   int32 // of a split
}

// An nfa is a nondeterministic automaton, made from the end to the beginning by Thompson's
// construction.
type nfa struct {
	b       *Budget
	pattern string
	nodes   []nfaNode
	sets    []set
}

func (n *nfa) node(x nfaNode) int32 {
	n.b.Spend(16)
	n.nodes = append(n.nodes, x)
	return int32(len(n.nodes) - 1)
}

func (n *nfa) build(t *tree, next int32) (int32, error) {
	if len(n.nodes) > maxNodes {
		return 0, &Error{Pattern: n.pattern, Problem: "too large once its repetitions are written out"}
	}
	switch t.op {
	case opSet:
		n.sets = append(n.sets, t.set)
		return n.node(nfaNode{kind: nfaSet, set: int32(len(n.sets) - 1), to: next}), nil
	case opBegin:
		return n.node(nfaNode{kind: nfaBegin, to: next}), nil
	case opEnd:
		return n.node(nfaNode{kind: nfaEnd, to: next}), nil
	case opAlt:
		at := int32(-1)
		for _, p := range slices.Backward(t.parts) {
			way, err := n.build(p, next)
			if err != nil {
				return 0, err
			}
			if at < 0 {
				at = way
			} else {
				at = n.node(nfaNode{kind: nfaSplit, to: way, or: at})
			}
		}
		return at, nil
	case opSeq:
		var err error
		for _, p := range slices.Backward(t.parts) {
			if next, err = n.build(p, next); err != nil {
				return 0, err
			}
		}
		return next, nil
	case opRepeat:
		return n.repeat(t, next)
	}
	panic("internal error: a tree without an operation")
}

func (n *nfa) repeat(t *tree, next int32) (int32, error) {
	var err error
	at := next
	if t.most < 0 {
		at = n.node(nfaNode{kind: nfaSplit, or: next})
		body, err := n.build(t.parts[0], at)
		if err != nil {
			return 0, err
		}
		n.nodes[at].to = body
	}
	for range t.most - t.least {
		body, err := n.build(t.parts[0], at)
		if err != nil {
			return 0, err
		}
		at = n.node(nfaNode{kind: nfaSplit, to: body, or: next})
	}
	for range t.least {
		if at, err = n.build(t.parts[0], at); err != nil {
			return 0, err
		}
	}
	return at, nil
}

// A subset is the set of nodes that a text may have reached.
type subset struct {
	nodes []int32 // of characters and of ends, sorted
	done  bool    // the pattern has matched: any text may follow
	begin bool    // no character has been read
}

// determine returns the automaton of the strings that contain a match.
func (n *nfa) determine(start int32) *DFA {
	a, has := n.letters()
	d := &DFA{alphabet: a}
	c := &closer{n: n, seen: make([]int32, len(n.nodes))}
	index := make(map[string]int32)
	var all []subset
	var key []byte
	find := func(s subset) int32 {
		key = key[:0]
		if s.done {
			s.nodes = nil
			key = append(key, 1)
		}
		if s.begin {
			key = append(key, 2)
		}
		for _, i := range s.nodes {
			key = binary.LittleEndian.AppendUint32(key, uint32(i))
		}
		i, ok := index[string(key)]
		if !ok {
			i = int32(len(all))
			index[string(key)] = i
			s.nodes = slices.Clone(s.nodes)
			all = append(all, s)
			n.b.Spend(len(key)*2 + 4*d.classes + 80)
		}
		return i
	}
	restart := n.openAt(start)
	c.reset()
	c.add(start, true)
	first := c.take()
	first.begin = true
	find(first)
	for i := 0; i < len(all); i++ {
		if n.b.Err() != nil {
			return None()
		}
		d.accept = append(d.accept, all[i].done || n.ends(all[i]))
		for class := range int32(d.classes) {
			if all[i].done {
				d.next = append(d.next, int32(i))
				continue
			}
			c.reset()
			for _, at := range all[i].nodes {
				if x := &n.nodes[at]; x.kind == nfaSet && has[class][x.set>>6]>>(x.set&63)&1 != 0 {
					c.add(x.to, false)
				}
			}
			if restart {
				c.add(start, false)
			}
			n.b.Spend(0)
			d.next = append(d.next, find(c.take()))
		}
	}
	return d.trim(n.b)
}

// openAt reports whether a match may begin after the first character of the string. That is so if
// start leads to a character, an end or a match without passing ^.
func (n *nfa) openAt(start int32) bool {
	c := &closer{n: n, seen: make([]int32, len(n.nodes))}
	c.reset()
	c.add(start, false)
	s := c.take()
	return s.done || len(s.nodes) > 0
}

// A closer follows the nodes that take no character.
type closer struct {
	n    *nfa
	seen []int32 // the turn in which each node was last met
	turn int32
	work []int32
	out  []int32
	done bool
}

func (c *closer) reset() {
	c.turn++
	c.out, c.done = c.out[:0], false
}

// add adds to out the nodes of characters and of ends that are reached from node at without a character.
// It sets done if a match is reached. If begin is set, no character has been read, so ^ matches.
func (c *closer) add(at int32, begin bool) {
	c.work = append(c.work[:0], at)
	for len(c.work) > 0 {
		at := c.work[len(c.work)-1]
		c.work = c.work[:len(c.work)-1]
		if c.seen[at] == c.turn {
			continue
		}
		c.seen[at] = c.turn
		switch x := &c.n.nodes[at]; x.kind {
		case nfaSplit:
			c.work = append(c.work, x.to, x.or)
		case nfaBegin:
			if begin {
				c.work = append(c.work, x.to)
			}
		case nfaMatch:
			c.done = true
		case nfaSet, nfaEnd:
			c.out = append(c.out, at)
		}
	}
}

func (c *closer) take() subset {
	slices.Sort(c.out)
	return subset{nodes: c.out, done: c.done}
}

// ends reports whether the pattern matches if the string ends in s.
func (n *nfa) ends(s subset) bool {
	seen := make(map[int32]bool)
	var work []int32
	for _, at := range s.nodes {
		if n.nodes[at].kind == nfaEnd {
			work = append(work, at)
		}
	}
	for len(work) > 0 {
		at := work[len(work)-1]
		work = work[:len(work)-1]
		if seen[at] {
			continue
		}
		seen[at] = true
		switch x := &n.nodes[at]; x.kind {
		case nfaSplit:
			work = append(work, x.to, x.or)
		case nfaEnd:
			work = append(work, x.to)
		case nfaBegin: // follows $: both match in the empty text
			if s.begin {
				work = append(work, x.to)
			}
		case nfaMatch:
			return true
		case nfaSet:
		}
	}
	return false
}
