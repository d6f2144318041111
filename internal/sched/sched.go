// Package sched is a fair queue. It holds waiting and running jobs in a tree of flows with four
// levels: band (normal or background), user, program, client. On each level the flow that has been
// served least goes first. Jobs are charged while they run, so the cost of a job counts against its
// own flows only, however long it takes and however often it is preempted.
//
// The package is pure: it reads no clock, takes no lock, and depends on neither the nature of a job
// nor the unit of cost.
package sched

import (
	"cmp"
	"iter"
	"slices"
)

// A Path names the flow of a job on each level.
type Path struct {
	Background            bool
	User, Program, Client string
}

// backgroundWeight multiplies the cost of background jobs. While both bands compete, the normal
// band gets this many times the service of the background.
const backgroundWeight = 15

// Quantum is the number of units that a flow is served before the next flow has its turn, as far as
// the queue controls that. For each slot, it bounds the difference in service between two flows with
// unlimited demand, and how often they preempt each other.
const Quantum = 32

// A Queue holds waiting and running jobs. The zero value is empty. It is not safe for
// concurrent use.
type Queue[T any] struct {
	root   node[T]
	pushed uint64 // jobs
	starts uint64
}

// A Job is pushed, waits, runs, possibly waits again, and ends:
//
//	Push ─▶ waits ── Pop, Start ─▶ runs
//	        ▲ │  ◀─── Preempt ────  │ Charge
//	 Resume │ ├── Suspend ──────────┤
//	        │ ▼                     │
//	    suspended ──── Done ────────┘
//
// Done ends a job in any state. A suspended job neither waits nor runs. A flow with only suspended
// jobs counts as idle.
type Job[T any] struct {
	Item T

	path          Path
	leaf          *node[T] // nil while suspended, and once it is done
	lastLeaf      *node[T] // the leaf before the job was suspended
	running       bool
	nth           uint64 // position in the order of Push
	firstNewLevel int    // first level on which the job's flow was new when the job was pushed

	charged, used float64
	minCharge     float64 // lower bound of the total charge: the amount charged to nodes that no longer exist
	started       uint64  // number of its latest start; 0 if it has never run
	usedAtStart   float64 // used at its latest start
}

// Len returns the number of waiting jobs.
func (q *Queue[T]) Len() int { return q.root.waiting }

// Push appends a job with an item to its flow. cost is charged when the job starts.
func (q *Queue[T]) Push(p Path, cost int, item T) *Job[T] {
	q.pushed++
	j := &Job[T]{Item: item, path: p, nth: q.pushed, used: float64(cost), firstNewLevel: levels}
	j.firstNewLevel = q.enqueue(j)
	return j
}

// enqueue makes a job wait in its flow, and returns the first level on which the flow was new
// or idle.
func (q *Queue[T]) enqueue(j *Job[T]) (firstNewLevel int) {
	firstNewLevel = levels
	n := &q.root
	for level, key := range j.path.keys() {
		n = n.child(key, level)
		if n.idle() {
			firstNewLevel = min(firstNewLevel, level)
			n.parent.active = append(n.parent.active, n)
		}
		if n.waiting == 0 {
			n.activate()
		}
	}
	j.leaf = n
	j.insert()
	for ; n != nil; n = n.parent {
		n.waiting++
	}
	return firstNewLevel
}

// insert adds a job to the waiting jobs of its leaf, in the order of Push.
func (j *Job[T]) insert() {
	at, _ := slices.BinarySearchFunc(j.leaf.jobs, j.nth, func(other *Job[T], nth uint64) int { return cmp.Compare(other.nth, nth) })
	j.leaf.jobs = slices.Insert(j.leaf.jobs, at, j)
}

// Pop starts the first waiting job, in fair order, that has an eligible item. The jobs before it
// keep their turn. It returns nil if there is no such job.
func (q *Queue[T]) Pop(eligible func(T) bool) *Job[T] {
	for j := range q.Waiting() {
		if eligible(j.Item) {
			q.Start(j)
			return j
		}
	}
	return nil
}

// Waiting yields the waiting jobs in fair order. The queue must not be changed meanwhile.
func (q *Queue[T]) Waiting() iter.Seq[*Job[T]] {
	return func(yield func(*Job[T]) bool) { q.root.each(yield) }
}

// Heads yields, in fair order, the first waiting job of each kind of each leaf flow: a job must not
// overtake earlier jobs of its flow and kind. The queue must not be changed meanwhile.
func (q *Queue[T]) Heads(kind func(T) string) iter.Seq[*Job[T]] {
	return func(yield func(*Job[T]) bool) {
		var leaf *node[T]
		var seen []string
		for j := range q.Waiting() {
			if j.leaf != leaf {
				leaf, seen = j.leaf, seen[:0]
			}
			k := kind(j.Item)
			if slices.Contains(seen, k) {
				continue
			}
			seen = append(seen, k)
			if !yield(j) {
				return
			}
		}
	}
}

// Start moves a waiting job to running, and charges its usage so far.
func (q *Queue[T]) Start(j *Job[T]) {
	q.starts++
	j.started, j.usedAtStart = q.starts, j.used
	for n := j.leaf; n.parent != nil; n = n.parent {
		n.parent.virtualTime = max(n.parent.virtualTime, n.parent.minServed())
	}
	j.dequeue()
	j.running = true
	for n := j.leaf; n != nil; n = n.parent {
		n.running++
	}
	j.charge(j.used)
}

// Charge sets the total usage of a running job since Push, including the cost that Push was given.
// A value below the present usage changes nothing.
func (q *Queue[T]) Charge(j *Job[T], used int) {
	j.used = max(j.used, float64(used))
	j.charge(j.used)
}

// Preempt makes a running job wait again, before all later jobs of its flow.
func (q *Queue[T]) Preempt(j *Job[T]) {
	j.running = false
	j.insert()
	for n := j.leaf; n != nil; n = n.parent {
		n.running--
		n.waiting++
	}
}

// Suspend takes a waiting or running job out of the tree until [Queue.Resume] or [Queue.Done].
func (q *Queue[T]) Suspend(j *Job[T]) {
	j.lastLeaf = j.leaf
	j.remove()
}

// Resume makes a suspended job wait again, before all later jobs of its flow.
func (q *Queue[T]) Resume(j *Job[T]) {
	q.enqueue(j)
	if j.leaf != j.lastLeaf { // the flow was dropped meanwhile, and its charges with it
		j.minCharge = j.charged
	}
}

// Done ends a job in any state. used is its final usage, which may be less than the amount charged
// so far; a job that has never run is not charged. The queue keeps the usage of a flow while any job
// waits or runs: otherwise a flow that has just received a long answer would be first again.
func (q *Queue[T]) Done(j *Job[T], used int) {
	if j.leaf == nil { // suspended
		if j.lastLeaf.attached() {
			j.leaf = j.lastLeaf
			j.charge(float64(used))
			j.leaf = nil
		}
		return
	}
	if j.started > 0 {
		j.charge(float64(used))
	}
	j.remove()
}

// remove takes a job out of the tree.
func (j *Job[T]) remove() {
	if j.running {
		j.running = false
		for n := j.leaf; n != nil; n = n.parent {
			n.running--
		}
	} else {
		j.dequeue()
	}
	j.leaf.prune()
	j.leaf = nil
}

// charge sets the job's charge, on all levels, to total, or to minCharge if that is more.
func (j *Job[T]) charge(total float64) {
	total = max(total, j.minCharge)
	if total == j.charged {
		return
	}
	for n := j.leaf; n.parent != nil; n = n.parent {
		n.served += (total - j.charged) * n.weight
	}
	j.charged = total
}

// dequeue takes a job out of the waiting jobs.
func (j *Job[T]) dequeue() {
	i := slices.Index(j.leaf.jobs, j)
	j.leaf.jobs = slices.Delete(j.leaf.jobs, i, i+1)
	for n := j.leaf; n != nil; n = n.parent {
		n.waiting--
	}
}
