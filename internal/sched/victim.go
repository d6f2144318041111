package sched

import "cmp"

// Victim returns which of some entries that run is to be parked so that w, which waits, can
// run; nil if none is. They are those whose place w could take.
//
// Two entries are compared where their paths through the tree part. Who has nothing running
// there does not wait for somebody else's answer to end: one who has just come gets a place at
// once, from the flow that runs most; so does one who has fewer places than that, and has not
// been served more, or hardly more if that is all it asks for: costs are known exactly only in
// the end. All others take turns, a quantum each.
func (q *Queue[T]) Victim(w *Entry[T], running []*Entry[T]) *Entry[T] {
	for _, r := range running {
		r.count(1)
	}
	var victim *Entry[T]
	for _, r := range running {
		if r.yields(w) && (victim == nil || r.first(victim) > 0) {
			victim = r
		}
	}
	for _, r := range running {
		r.count(-1)
	}
	return victim
}

func (e *Entry[T]) count(by int) {
	for n := e.leaf; n != nil; n = n.parent {
		n.here += by
	}
}

// yields reports whether r may be parked for w.
func (e *Entry[T]) yields(w *Entry[T]) bool {
	r, n := part(e.leaf, w.leaf) // r has e, n has w
	if r == nil {
		return false // one flow keeps its order
	}
	var (
		lead  = r.served - n.served
		rests = e.used-e.before >= Quantum             // it has had a quantum since it began to run
		comes = w.started == 0 && n.level >= w.newcome // nothing of its flow was there before
	)
	switch {
	case lead >= Quantum && rests:
		return true
	case n.price > r.price: // the background takes turns, and no more
		return false
	case n.price < r.price && lead >= Quantum*r.price: // it has had what it is due, and more
		return true
	case n.here > 0:
		return n.here+1 < r.here && (lead >= 0 || n.waiting == 1 && lead >= -Quantum)
	case r.here > 1:
		return lead >= -Quantum && (comes || rests)
	default:
		return comes && lead >= 0
	}
}

// first says which of two that run is to be parked first, where their paths part: of the flow
// that runs most, then of the one that has been served most, then who was let in last.
func (e *Entry[T]) first(other *Entry[T]) int {
	if a, b := part(e.leaf, other.leaf); a != nil {
		if by := cmp.Or(cmp.Compare(a.here, b.here), cmp.Compare(a.served, b.served)); by != 0 {
			return by
		}
	}
	return cmp.Compare(e.started, other.started)
}

// part returns the siblings in which the paths to two leaves part; nil if they are one.
func part[T any](a, b *node[T]) (*node[T], *node[T]) {
	if a == b {
		return nil, nil
	}
	for a.parent != b.parent {
		a, b = a.parent, b.parent
	}
	return a, b
}
