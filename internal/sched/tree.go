package sched

import (
	"cmp"
	"math"
	"slices"
)

// levels is how many there are below the root.
const levels = 4

// maxIdle is how many flows of a level are remembered that neither wait nor run, but have
// had more than their share of late.
const maxIdle = 1024

// A node is a flow, or a level of them.
type node[T any] struct {
	parent   *node[T]
	key      string
	level    int
	price    float64
	children map[string]*node[T]
	active   []*node[T]  // the children that wait or run, in no order
	entries  []*Entry[T] // of a leaf: those that wait, oldest first

	waiting, running int     // here and below
	served           float64 // units of cost times price, on the clock of the parent
	now              float64 // the clock of the children: nobody who comes is behind it
	here             int     // how many run here and below of those that [Queue.Victim] is asked about
}

// The keys of the bands.
const (
	normal     = "normal"
	background = "background"
)

// path are the keys from the root to a leaf.
func (f Flow) path() [levels]string {
	band := normal
	if f.Background {
		band = background
	}
	return [levels]string{band, f.User, f.Program, f.Client}
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
	c := &node[T]{parent: n, key: key, level: level, price: 1}
	if level == 0 && key == background {
		c.price = backgroundPrice
	}
	n.children[key] = c
	return c
}

func (n *node[T]) idle() bool { return n.waiting == 0 && n.running == 0 }

// turn is what the next turn goes by: what has been served, and a quantum for each that runs,
// which is on its way to be.
func (n *node[T]) turn() float64 { return n.served + n.price*Quantum*float64(n.running) }

// begun is where a flow was a quantum ago. Who comes is put there, not level with it, so that
// it has its quantum before the other has the next.
func (n *node[T]) begun() float64 { return n.served - n.price*Quantum }

// join sets the clock of a flow that begins to wait among its siblings: who was away, or was
// content with what it had, has no credit for it.
//
// If nobody else waits, then what anybody has used has cost nobody anything: it is no debt,
// and all who are there begin together. Else who comes is put beside those it competes with:
// those who wait, who may be in debt, and the one who runs most, from whom it would get a
// place.
func (n *node[T]) join() {
	p := n.parent
	waits := math.Inf(1)
	var busiest *node[T]
	for _, c := range p.active {
		if c == n {
			continue
		}
		if c.waiting > 0 {
			waits = min(waits, c.begun())
		}
		if c.running > 0 && (busiest == nil || cmp.Or(cmp.Compare(c.running, busiest.running), cmp.Compare(busiest.served, c.served)) > 0) {
			busiest = c
		}
	}
	alone := math.IsInf(waits, 1)
	switch {
	case alone:
		for _, c := range p.active {
			if c.running > 0 {
				p.now = max(p.now, c.begun())
			}
		}
	case busiest != nil:
		p.now = max(p.now, min(waits, busiest.begun()))
	default:
		p.now = max(p.now, waits)
	}
	for _, c := range p.active {
		if c == n || alone && c.running > 0 {
			c.served = max(c.served, p.now)
		}
	}
}

// least is what has been served of the child that waits and has had least.
func (n *node[T]) least() float64 {
	least := math.Inf(1)
	for _, c := range n.active {
		if c.waiting > 0 {
			least = min(least, c.served)
		}
	}
	return least
}

// each yields what waits here and below: all of the child whose turn it is, then of the next.
func (n *node[T]) each(yield func(*Entry[T]) bool) bool {
	for _, e := range n.entries {
		if !yield(e) {
			return false
		}
	}
	for _, c := range n.turns() {
		if !c.each(yield) {
			return false
		}
	}
	return true
}

// turns returns the children that wait, in the order of their turns; if that is equal, by who
// came first.
func (n *node[T]) turns() []*node[T] {
	var all []*node[T]
	for _, c := range n.active {
		if c.waiting > 0 {
			all = append(all, c)
		}
	}
	if len(all) > 1 {
		slices.SortFunc(all, func(a, b *node[T]) int {
			return cmp.Or(cmp.Compare(a.turn(), b.turn()), cmp.Compare(a.oldest(), b.oldest()))
		})
	}
	return all
}

// oldest is the number of the entry that came first of those that wait.
func (n *node[T]) oldest() uint64 {
	if len(n.entries) > 0 {
		return n.entries[0].nth
	}
	least := ^uint64(0)
	for _, c := range n.active {
		if c.waiting > 0 {
			least = min(least, c.oldest())
		}
	}
	return least
}

// tidy drops what need not be remembered, from a leaf upwards of which something has gone.
func (n *node[T]) tidy() {
	for ; n.parent != nil; n = n.parent {
		if !n.idle() {
			continue
		}
		i := slices.Index(n.parent.active, n)
		n.parent.active = slices.Delete(n.parent.active, i, i+1)
		if n.served <= n.parent.now {
			delete(n.parent.children, n.key)
		}
	}
	if n.idle() {
		*n = node[T]{}
	}
}

// attached reports whether the tree still has n.
func (n *node[T]) attached() bool {
	for ; n.parent != nil; n = n.parent {
		if n.parent.children[n.key] != n {
			return false
		}
	}
	return true
}

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
		case c.served <= n.now:
			delete(n.children, key)
		case least == nil || c.served < least.served:
			least = c
		}
	}
	if len(n.children) >= maxIdle && least != nil {
		delete(n.children, least.key)
	}
}
