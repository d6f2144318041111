package sched

import (
	"cmp"
	"math"
	"slices"
)

// levels is the number of levels below the root.
const levels = 4

// maxChildren is the number of children at which a node drops idle flows before it adds another
// child, even flows that have been served more than their share.
const maxChildren = 1024

// A node is a flow, or the root. Flows are scheduled by virtual time: a flow's served cost is
// a point on its parent's clock, and the flow furthest behind goes first.
type node[T any] struct {
	parent   *node[T]
	key      string
	level    int
	weight   float64
	children map[string]*node[T]
	active   []*node[T] // children with waiting or running jobs, in no order
	jobs     []*Job[T]  // waiting jobs, in the order of Push; leaves only

	waiting, running int     // jobs in this subtree
	served           float64 // cost times weight, on the parent's clock
	virtualTime      float64 // clock of the children: a child that becomes active is never placed behind it
	candidates       int     // jobs in this subtree that [Queue.Victim] considers
}

// The keys of the bands, which are the children of the root.
const (
	normal     = "normal"
	background = "background"
)

// keys returns the keys of the path's nodes, from the band to the leaf.
func (p Path) keys() [levels]string {
	band := normal
	if p.Background {
		band = background
	}
	return [levels]string{band, p.User, p.Program, p.Client}
}

// child returns the child of n with the given key, and creates it if there is none.
func (n *node[T]) child(key string, level int) *node[T] {
	if c := n.children[key]; c != nil {
		return c
	}
	if n.children == nil {
		n.children = make(map[string]*node[T])
	}
	if len(n.children) >= maxChildren {
		n.evict()
	}
	c := &node[T]{parent: n, key: key, level: level, weight: 1}
	if level == 0 && key == background {
		c.weight = backgroundWeight
	}
	n.children[key] = c
	return c
}

func (n *node[T]) idle() bool { return n.waiting == 0 && n.running == 0 }

// virtualStart returns the value by which flows are ordered; the flow with the smallest value goes
// next. The value includes one quantum in advance for each running job.
func (n *node[T]) virtualStart() float64 {
	return n.served + n.weight*Quantum*float64(n.running)
}

// catchUp returns the position one quantum behind n. A sibling that becomes active is placed there
// rather than level with n, so it is served a quantum before n is served the next one.
func (n *node[T]) catchUp() float64 { return n.served - n.weight*Quantum }

// activate sets the position of a flow that begins to wait among its siblings. A flow earns no
// credit while it is idle or uses less than its share.
//
// If no sibling waits, earlier use has delayed no other flow. It is therefore not a debt, and all
// active flows start level. Otherwise the flow is placed beside its competitors: the waiting
// siblings, which may be in debt, and the sibling with the most running jobs, from which it would
// take a slot.
func (n *node[T]) activate() {
	p := n.parent
	waits := math.Inf(1)
	var busiest *node[T]
	for _, c := range p.active {
		if c == n {
			continue
		}
		if c.waiting > 0 {
			waits = min(waits, c.catchUp())
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
				p.virtualTime = max(p.virtualTime, c.catchUp())
			}
		}
	case busiest != nil:
		p.virtualTime = max(p.virtualTime, min(waits, busiest.catchUp()))
	default:
		p.virtualTime = max(p.virtualTime, waits)
	}
	for _, c := range p.active {
		if c == n || alone && c.running > 0 {
			c.served = max(c.served, p.virtualTime)
		}
	}
}

// minServed returns the minimum service, in cost times weight, among the children with waiting
// jobs.
func (n *node[T]) minServed() float64 {
	least := math.Inf(1)
	for _, c := range n.active {
		if c.waiting > 0 {
			least = min(least, c.served)
		}
	}
	return least
}

// each yields the waiting jobs of the subtree: all jobs of the child that goes next, then all jobs of
// the child after it, and so on. It reports false if yield has stopped the iteration.
func (n *node[T]) each(yield func(*Job[T]) bool) bool {
	for _, j := range n.jobs {
		if !yield(j) {
			return false
		}
	}
	for _, c := range n.waitingChildren() {
		if !c.each(yield) {
			return false
		}
	}
	return true
}

// waitingChildren returns the children with waiting jobs in the order of their virtual starts.
// Among equal ones, the child with the oldest job is first.
func (n *node[T]) waitingChildren() []*node[T] {
	var all []*node[T]
	for _, c := range n.active {
		if c.waiting > 0 {
			all = append(all, c)
		}
	}
	if len(all) > 1 {
		slices.SortFunc(all, func(a, b *node[T]) int {
			return cmp.Or(cmp.Compare(a.virtualStart(), b.virtualStart()), cmp.Compare(a.oldest(), b.oldest()))
		})
	}
	return all
}

// oldest returns the field nth of the waiting job in the subtree that was pushed first.
func (n *node[T]) oldest() uint64 {
	if len(n.jobs) > 0 {
		return n.jobs[0].nth
	}
	least := ^uint64(0)
	for _, c := range n.active {
		if c.waiting > 0 {
			least = min(least, c.oldest())
		}
	}
	return least
}

// prune removes the idle nodes among the leaf n and its ancestors. An idle flow that has been served
// more than its share stays in the tree, but is no longer active. If the whole tree is idle, all flows
// are removed.
func (n *node[T]) prune() {
	for ; n.parent != nil; n = n.parent {
		if !n.idle() {
			continue
		}
		i := slices.Index(n.parent.active, n)
		n.parent.active = slices.Delete(n.parent.active, i, i+1)
		if n.served <= n.parent.virtualTime {
			delete(n.parent.children, n.key)
		}
	}
	if n.idle() {
		*n = node[T]{}
	}
}

// attached reports whether n is still in the tree.
func (n *node[T]) attached() bool {
	for ; n.parent != nil; n = n.parent {
		if n.parent.children[n.key] != n {
			return false
		}
	}
	return true
}

// evict makes room for another child: it drops the idle children that have no debt, or, if
// that is not enough, the idle child with the least debt.
func (n *node[T]) evict() {
	var least *node[T]
	for key, c := range n.children {
		switch {
		case !c.idle():
		case c.served <= n.virtualTime:
			delete(n.children, key)
		case least == nil || c.served < least.served:
			least = c
		}
	}
	if len(n.children) >= maxChildren && least != nil {
		delete(n.children, least.key)
	}
}
