// Package sched decides whose turn it is. It holds what waits and what runs in a tree of
// flows: the normal and the background, in them users, in those their programs, in those
// what the programs call their clients. On each level turns go to who has been served least:
// what runs is charged as it goes on, so what one does costs its own level and nobody beside
// it, however long it takes and however many pieces it is cut into.
//
// It is pure: it reads no clock, takes no lock and does not know what waits, or what a
// unit of cost is.
package sched

import (
	"cmp"
	"iter"
	"slices"
)

// A Flow says where in the tree something waits.
type Flow struct {
	Background            bool
	User, Program, Client string
}

// backgroundPrice is what a unit of cost counts for in the background. While both wait, the
// normal gets that many times as much.
const backgroundPrice = 15

// Quantum is how many units somebody gets before the next has a turn, as far as that is in
// our hands: it is what two flows that want all they can get differ by for each of their
// slots, and what bounds how often they change places.
const Quantum = 32

// A Queue holds what waits and what runs. The zero value is empty. It is used by one at a
// time.
type Queue[T any] struct {
	root   node[T]
	pushed uint64 // entries
	starts uint64
}

// An Entry is something that waits, runs, waits again and ends:
//
//	Push ─▶ waits ── Pop, Take ─▶ runs
//	        ▲ │  ◀──── Park ─────  │ Charge
//	 Resume │ ├── Suspend ─────────┤
//	        │ ▼                    │
//	    suspended ──── Done ───────┘
//
// Done ends an entry in any state. A suspended entry neither waits nor runs: its flow
// counts as idle without it.
type Entry[T any] struct {
	Item T

	flow    Flow
	leaf    *node[T] // nil while suspended, and once it is done
	last    *node[T] // the leaf before it was suspended
	running bool
	nth     uint64 // of those that were pushed
	newcome int    // level from which on nothing of its flow was there when it was pushed

	charged, used float64
	floor         float64 // least that is charged: the rest was charged to nodes that are gone
	started       uint64  // number of its last start; 0 if it has never run
	before        float64 // what it had used then
}

// Parked reports whether it waits after it has run.
func (e *Entry[T]) Parked() bool { return e.started > 0 && !e.running && e.leaf != nil }

// Len is how many wait.
func (q *Queue[T]) Len() int { return q.root.waiting }

// Push puts item at the end of its flow. The cost is what it takes to begin, and is charged
// when it does.
func (q *Queue[T]) Push(f Flow, cost int, item T) *Entry[T] {
	q.pushed++
	e := &Entry[T]{Item: item, flow: f, nth: q.pushed, used: float64(cost), newcome: levels}
	e.newcome = q.enter(e)
	return e
}

// enter has an entry wait in its flow, and returns the first level on which nothing of the
// flow was there before.
func (q *Queue[T]) enter(e *Entry[T]) (newcome int) {
	newcome = levels
	n := &q.root
	for level, key := range e.flow.path() {
		n = n.child(key, level)
		if n.idle() {
			newcome = min(newcome, level)
			n.parent.active = append(n.parent.active, n)
		}
		if n.waiting == 0 {
			n.join()
		}
	}
	e.leaf = n
	e.insert()
	for ; n != nil; n = n.parent {
		n.waiting++
	}
	return newcome
}

// insert puts an entry among those of its leaf, in the order in which they were pushed.
func (e *Entry[T]) insert() {
	at, _ := slices.BinarySearchFunc(e.leaf.entries, e.nth, func(other *Entry[T], nth uint64) int { return cmp.Compare(other.nth, nth) })
	e.leaf.entries = slices.Insert(e.leaf.entries, at, e)
}

// Pop lets the first entry run, in fair order, whose item is eligible. Those that are not
// keep their turn. It returns nil if there is none.
func (q *Queue[T]) Pop(eligible func(T) bool) *Entry[T] {
	for e := range q.Waiting() {
		if eligible(e.Item) {
			q.Take(e)
			return e
		}
	}
	return nil
}

// Waiting yields what waits, in fair order. It must not be changed meanwhile.
func (q *Queue[T]) Waiting() iter.Seq[*Entry[T]] {
	return func(yield func(*Entry[T]) bool) { q.root.each(yield) }
}

// Heads yields, in fair order, what waits, but of each flow only the first of a kind: whom the
// others of it do not overtake. It must not be changed meanwhile.
func (q *Queue[T]) Heads(kind func(T) string) iter.Seq[*Entry[T]] {
	return func(yield func(*Entry[T]) bool) {
		var leaf *node[T]
		var seen []string
		for e := range q.Waiting() {
			if e.leaf != leaf {
				leaf, seen = e.leaf, seen[:0]
			}
			k := kind(e.Item)
			if slices.Contains(seen, k) {
				continue
			}
			seen = append(seen, k)
			if !yield(e) {
				return
			}
		}
	}
}

// Take lets an entry run that waits.
func (q *Queue[T]) Take(e *Entry[T]) {
	q.starts++
	e.started, e.before = q.starts, e.used
	for n := e.leaf; n.parent != nil; n = n.parent {
		n.parent.now = max(n.parent.now, n.parent.least())
	}
	e.leave()
	e.running = true
	for n := e.leaf; n != nil; n = n.parent {
		n.running++
	}
	e.charge(e.used)
}

// Charge says that an entry that runs has used that much since it was pushed, its first cost
// included.
func (q *Queue[T]) Charge(e *Entry[T], used int) {
	e.used = max(e.used, float64(used))
	e.charge(e.used)
}

// Park has an entry that runs wait again, before all of its flow that came after it.
func (q *Queue[T]) Park(e *Entry[T]) {
	e.running = false
	e.insert()
	for n := e.leaf; n != nil; n = n.parent {
		n.running--
		n.waiting++
	}
}

// Suspend takes an entry that waits or runs out of the tree until [Queue.Resume].
func (q *Queue[T]) Suspend(e *Entry[T]) {
	e.last = e.leaf
	e.exit()
}

// Resume has a suspended entry wait again, before all of its flow that came after it.
func (q *Queue[T]) Resume(e *Entry[T]) {
	q.enter(e)
	if e.leaf != e.last { // the tree has forgotten the flow, and what it was charged
		e.floor = e.charged
	}
}

// Done takes an entry out, in whatever state it is. In the end it has used that much, which
// may be less than what it was charged; if it has never run, nothing. A flow's usage is kept
// as long as anything waits or runs: otherwise a flow that just had a long answer would be
// first again.
func (q *Queue[T]) Done(e *Entry[T], used int) {
	if e.leaf == nil { // suspended
		if e.last.attached() {
			e.leaf = e.last
			e.charge(float64(used))
			e.leaf = nil
		}
		return
	}
	if e.started > 0 {
		e.charge(float64(used))
	}
	e.exit()
}

// exit takes an entry out of the tree.
func (e *Entry[T]) exit() {
	if e.running {
		e.running = false
		for n := e.leaf; n != nil; n = n.parent {
			n.running--
		}
	} else {
		e.leave()
	}
	e.leaf.tidy()
	e.leaf = nil
}

// charge brings what all levels are charged for e to that much.
func (e *Entry[T]) charge(total float64) {
	total = max(total, e.floor)
	if total == e.charged {
		return
	}
	for n := e.leaf; n.parent != nil; n = n.parent {
		n.served += (total - e.charged) * n.price
	}
	e.charged = total
}

// leave takes an entry out of what waits.
func (e *Entry[T]) leave() {
	i := slices.Index(e.leaf.entries, e)
	e.leaf.entries = slices.Delete(e.leaf.entries, i, i+1)
	for n := e.leaf; n != nil; n = n.parent {
		n.waiting--
	}
}

// Remembered is how many flows, on all levels, the queue knows of.
func (q *Queue[T]) Remembered() int { return q.root.size() - 1 }
