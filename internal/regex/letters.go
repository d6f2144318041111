package regex

import (
	"encoding/binary"
	"slices"
)

// letters divides the characters into classes, such that every set of the pattern contains all
// characters of a class or none. has holds, for each class, a bit for each set that contains it.
func (n *nfa) letters() (a alphabet, has [][]uint64) {
	n.unite()
	type event struct {
		at  rune
		set int32
		in  bool
	}
	var events []event
	for i, s := range n.sets {
		for _, r := range s {
			events = append(events, event{r[0], int32(i), true}, event{r[1] + 1, int32(i), false})
		}
	}
	slices.SortFunc(events, func(x, y event) int { return int(x.at - y.at) })
	words := (len(n.sets) + 63) / 64
	var key []byte
	now := make([]uint64, words)
	classes := make(map[string]int32)
	add := func(start rune) {
		key = key[:0]
		for _, w := range now {
			key = binary.LittleEndian.AppendUint64(key, w)
		}
		c, ok := classes[string(key)]
		if !ok {
			c = int32(len(has))
			classes[string(key)] = c
			has = append(has, slices.Clone(now))
		}
		if k := len(a.class); k == 0 || a.class[k-1] != c {
			a.starts, a.class = append(a.starts, start), append(a.class, c)
		}
	}
	for i, at := 0, rune(0); at <= maxRune; {
		for ; i < len(events) && events[i].at == at; i++ {
			e := events[i]
			if e.in {
				now[e.set>>6] |= 1 << (e.set & 63)
			} else {
				now[e.set>>6] &^= 1 << (e.set & 63)
			}
		}
		n.b.Spend(8)
		add(at)
		if i == len(events) {
			break
		}
		at = events[i].at
	}
	a.classes = len(has)
	return a, has
}

// unite replaces equal sets of the nodes by one.
func (n *nfa) unite() {
	index := make(map[string]int32, len(n.sets))
	unique := make([]int32, len(n.sets))
	var sets []set
	var key []byte
	for i, s := range n.sets {
		key = key[:0]
		for _, r := range s {
			key = binary.LittleEndian.AppendUint64(key, uint64(r[0])<<32|uint64(r[1]))
		}
		j, ok := index[string(key)]
		if !ok {
			j = int32(len(sets))
			index[string(key)] = j
			sets = append(sets, s)
		}
		unique[i] = j
	}
	for i := range n.nodes {
		if n.nodes[i].kind == nfaSet {
			n.nodes[i].set = unique[n.nodes[i].set]
		}
	}
	n.sets = sets
}
