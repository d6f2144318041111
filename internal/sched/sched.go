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
//	          │  ◀──── Park ─────  │ Charge
//	          └────────┬───────────┘
//	                  Done
type Entry[T any] struct {
	Item T

	leaf    *node[T] // nil once it is done
	running bool
	nth     uint64 // of those that were pushed
	newcome int    // level from which on nothing of its flow was there when it was pushed

	charged, used float64
	started       uint64  // number of its last start; 0 if it has never run
	before        float64 // what it had used then
}

// Parked reports whether it waits after it has run.
func (e *Entry[T]) Parked() bool { return e.started > 0 && !e.running }

// Len is how many wait.
func (q *Queue[T]) Len() int { return q.root.waiting }

// Push puts item at the end of its flow. The cost is what it takes to begin, and is charged
// when it does.
func (q *Queue[T]) Push(f Flow, cost int, item T) *Entry[T] {
	q.pushed++
	e := &Entry[T]{Item: item, nth: q.pushed, used: float64(cost), newcome: levels}
	n := &q.root
	for level, key := range f.path() {
		n = n.child(key, level)
		if n.idle() {
			e.newcome = min(e.newcome, level)
			n.parent.active = append(n.parent.active, n)
		}
		if n.waiting == 0 {
			n.join()
		}
	}
	e.leaf = n
	n.entries = append(n.entries, e)
	for ; n != nil; n = n.parent {
		n.waiting++
	}
	return e
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
	at, _ := slices.BinarySearchFunc(e.leaf.entries, e.nth, func(other *Entry[T], nth uint64) int { return cmp.Compare(other.nth, nth) })
	e.leaf.entries = slices.Insert(e.leaf.entries, at, e)
	for n := e.leaf; n != nil; n = n.parent {
		n.running--
		n.waiting++
	}
}

// Done takes an entry out, whether it waits or runs. In the end it has used that much, which
// may be less than what it was charged; if it has never run, nothing. What a flow has had is
// remembered as long as anything waits or runs: else whoever has just had a long answer would
// be first again.
func (q *Queue[T]) Done(e *Entry[T], used int) {
	if e.started > 0 {
		e.charge(float64(used))
	}
	if e.running {
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
