package vocab

import (
	"slices"

	"github.com/inferd-go/inferd/internal/automaton"
)

// keptBytes bounds the memory of the kept masks of a grammar. Half of it is for the younger
// generation of masks, half for the older one.
const keptBytes = 2 << 20

// A mask is kept whole if it has more than mostFound tokens per word in addition to its ready mask.
const mostFound = 2

// kept holds masks by state, in two generations. A mask of the older generation moves to the
// younger one when it is used. When the younger generation is full, it becomes the older one.
type kept struct {
	young, old map[automaton.State]*keptMask
	bytes      int // of the young ones
	oldBytes   int
}

// A keptMask is a ready mask and the tokens that it lacks, or, if these are many, a whole mask.
type keptMask struct {
	base    int     // the group of the ready mask; -1 if there is none
	tokens  []int32 // the tokens that the ready mask lacks, with flags
	whole   []uint64
	guarded []int32 // tokens that the guard must check
}

// size returns the number of bytes that a mask occupies, including its entry in the map.
func (k *keptMask) size() int { return 160 + 4*cap(k.tokens) + 8*cap(k.whole) + 4*cap(k.guarded) }

func (k *kept) forget() { *k = kept{} }

// find returns the mask of a state, or nil.
func (k *kept) find(s automaton.State) *keptMask {
	if m, ok := k.young[s]; ok {
		return m
	}
	m, ok := k.old[s]
	if ok {
		k.add(s, m)
	}
	return m
}

func (k *kept) add(s automaton.State, m *keptMask) {
	if size := m.size(); k.young == nil || k.bytes+size > keptBytes/2 {
		k.old, k.oldBytes = k.young, k.bytes
		k.young, k.bytes = make(map[automaton.State]*keptMask), 0
	}
	k.young[s] = m
	k.bytes += m.size()
}

// keep stores the mask of the last walk for a state.
func (m *Masks) keep(s automaton.State, mask []uint64) *keptMask {
	k := &keptMask{base: m.base, guarded: slices.Clone(m.guarded)}
	if m.count < len(m.found) {
		k.tokens = slices.Clone(m.found[:m.count])
	} else {
		k.whole = slices.Clone(mask)
	}
	m.kept.add(s, k)
	return k
}

// restore copies a kept mask to mask.
func (m *Masks) restore(k *keptMask, mask []uint64) {
	switch {
	case k.whole != nil:
		copy(mask, k.whole)
		return
	case k.base >= 0:
		copy(mask, m.v.ready[k.base])
	default:
		clear(mask)
	}
	for _, id := range k.tokens {
		m.v.set(mask, id)
	}
}

// Bytes returns the number of bytes that the kept masks and counts and the tokens of the last walk occupy.
func (m *Masks) Bytes() int {
	const count = 20 // bytes of one count, with its place in the map and in the path
	return m.kept.bytes + m.kept.oldBytes + 4*len(m.found) + count*len(m.counts.byState)
}

// Forget drops the kept masks and counts.
func (m *Masks) Forget() {
	m.kept.forget()
	m.counts = counts{}
}
