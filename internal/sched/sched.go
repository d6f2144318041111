// Package sched decides whose turn it is. It holds what waits in a tree of flows: the
// normal and the background, in them users, in those their programs, in those what the
// programs call their clients. On each level turns are given by start-time fair queueing
// over the cost of what was let through, so what one does costs its own level and nobody
// beside it.
//
// It is pure: it reads no clock, takes no lock and does not know what waits, or what a
// unit of cost is.
package sched

import (
	"cmp"
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

// maxIdle is how many flows of a level are remembered that neither wait nor run, but have
// had more than their share of late.
const maxIdle = 1024

// A Queue holds what waits. The zero value is empty. It is used by one at a time.
type Queue[T any] struct {
	root  node[T]
	count uint64
}

// An Entry is a place in a queue.
type Entry[T any] struct {
	Item T

	leaf *node[T] // nil once it does not wait any more
	cost float64
	nth  uint64
}

// A node is a flow, or a level of them. Its tags are in units of cost times price, on the
// clock of its parent.
type node[T any] struct {
	parent   *node[T]
	key      string
	price    float64
	children map[string]*node[T]
	entries  []*Entry[T] // of a leaf, oldest first

	waiting, running int     // here and below
	now              float64 // the clock of the children: the start of who was served last
	start            float64 // tag of what waits first
	finish           float64 // tag of what was served last
}

// The keys of the bands.
const (
	normal     = "normal"
	background = "background"
)

// path are the keys from the root to a leaf.
func (f Flow) path() [4]string {
	band := normal
	if f.Background {
		band = background
	}
	return [4]string{band, f.User, f.Program, f.Client}
}

// Len is how many wait.
func (q *Queue[T]) Len() int { return q.root.waiting }

// Push puts item at the end of its flow. Its cost is at least 1.
func (q *Queue[T]) Push(f Flow, cost int, item T) *Entry[T] {
	n := &q.root
	n.waiting++
	for level, key := range f.path() {
		n = n.child(key, level)
		if n.waiting++; n.waiting == 1 {
			n.start = max(n.parent.now, n.finish)
		}
	}
	q.count++
	e := &Entry[T]{Item: item, leaf: n, cost: float64(max(cost, 1)), nth: q.count}
	n.entries = append(n.entries, e)
	return e
}

// child returns the node of that key, new or old.
func (n *node[T]) child(key string, level int) *node[T] {
	if c := n.children[key]; c != nil {
		return c
	}
	if n.children == nil {
		n.children = make(map[string]*node[T])
	}
	if len(n.children) >= maxIdle {
		n.forget()
	}
	c := &node[T]{parent: n, key: key, price: 1}
	if level == 0 && key == background {
		c.price = backgroundPrice
	}
	n.children[key] = c
	return c
}

// Pop takes out the first entry, in fair order, whose item is eligible, and counts it as
// running until Done. Those that are not keep their turn.
func (q *Queue[T]) Pop(eligible func(T) bool) (item T, ok bool) {
	e := q.root.first(eligible)
	if e == nil {
		return item, false
	}
	n := e.leaf
	e.detach()
	for ; n.parent != nil; n = n.parent {
		n.running++
		n.parent.now = max(n.parent.now, n.start)
		n.finish = n.start + e.cost*n.price
		n.start = n.finish
	}
	n.running++
	return e.Item, true
}

// first returns the first entry that is eligible: of the child whose turn it is, or else
// of the next.
func (n *node[T]) first(eligible func(T) bool) *Entry[T] {
	for _, e := range n.entries {
		if eligible(e.Item) {
			return e
		}
	}
	for _, c := range n.turns() {
		if e := c.first(eligible); e != nil {
			return e
		}
	}
	return nil
}

// turns returns the children that wait, by start; if that is equal, by who came first.
func (n *node[T]) turns() []*node[T] {
	var all []*node[T]
	for _, c := range n.children {
		if c.waiting > 0 {
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b *node[T]) int {
		return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.oldest(), b.oldest()))
	})
	return all
}

// oldest is the number of the entry that waits longest.
func (n *node[T]) oldest() uint64 {
	if len(n.entries) > 0 {
		return n.entries[0].nth
	}
	least := ^uint64(0)
	for _, c := range n.children {
		if c.waiting > 0 {
			least = min(least, c.oldest())
		}
	}
	return least
}

// Remove takes an entry out that nobody waits for any more. It reports false if it had
// been taken out before.
func (q *Queue[T]) Remove(e *Entry[T]) bool {
	if e.leaf == nil {
		return false
	}
	n := e.leaf
	e.detach()
	n.tidy()
	return true
}

// detach takes an entry out of its flow.
func (e *Entry[T]) detach() {
	i := slices.Index(e.leaf.entries, e)
	e.leaf.entries = slices.Delete(e.leaf.entries, i, i+1)
	for n := e.leaf; n != nil; n = n.parent {
		n.waiting--
	}
	e.leaf = nil
}

// Done says that something of a flow that Pop had let through has ended. What it has cost
// is remembered as long as anything waits or runs: else whoever has just had a long answer
// would be first again.
func (q *Queue[T]) Done(f Flow) {
	n := &q.root
	n.running--
	for _, key := range f.path() {
		n = n.children[key]
		n.running--
	}
	n.tidy()
}

// tidy drops what need not be remembered, from a leaf upwards.
func (n *node[T]) tidy() {
	for ; n.parent != nil; n = n.parent {
		if n.idle() && n.finish <= n.parent.now {
			delete(n.parent.children, n.key)
		}
	}
	if n.idle() {
		*n = node[T]{}
	}
}

func (n *node[T]) idle() bool { return n.waiting == 0 && n.running == 0 }

// Remembered is how many flows, on all levels, the queue knows of.
func (q *Queue[T]) Remembered() int { return q.root.size() - 1 }

func (n *node[T]) size() int {
	size := 1
	for _, c := range n.children {
		size += c.size()
	}
	return size
}

// forget makes room for another child: it drops those whose time is over, and else the one
// that owes least.
func (n *node[T]) forget() {
	var least *node[T]
	for key, c := range n.children {
		switch {
		case !c.idle():
		case c.finish <= n.now:
			delete(n.children, key)
		case least == nil || c.finish < least.finish:
			least = c
		}
	}
	if len(n.children) >= maxIdle && least != nil {
		delete(n.children, least.key)
	}
}
