package sched

import "cmp"

// Victim returns the running job to preempt so that the waiting job w can run, or nil. The
// candidates are the running jobs with a slot that w could use.
//
// Two jobs are compared by the sibling flows at which their paths through the tree diverge:
//
//   - If the flow of w has no candidate and was idle until w was pushed, it gets a slot at once, from
//     the flow with the most candidates. If it was not idle, a flow with several candidates yields a
//     slot after the victim has run for a quantum.
//   - If the flow of w has candidates, but at least two fewer than the other flow, it gets a slot at
//     once.
//   - Otherwise the flows alternate, one quantum each. The background gets slots of the normal band
//     only in this way.
//
// The first two rules do not hold for a flow that has been served more than the other one; in some
// cases a quantum more is allowed, because exact costs are known only at the end of a job.
func (q *Queue[T]) Victim(w *Job[T], candidates []*Job[T]) *Job[T] {
	for _, r := range candidates {
		r.countCandidate(1)
	}
	var victim *Job[T]
	for _, r := range candidates {
		if r.yieldsTo(w) && (victim == nil || r.compareVictim(victim) > 0) {
			victim = r
		}
	}
	for _, r := range candidates {
		r.countCandidate(-1)
	}
	return victim
}

func (j *Job[T]) countCandidate(by int) {
	for n := j.leaf; n != nil; n = n.parent {
		n.candidates += by
	}
}

// yieldsTo reports whether the running job j may be preempted for the waiting job w.
func (j *Job[T]) yieldsTo(w *Job[T]) bool {
	r, n := divergence(j.leaf, w.leaf) // r is above j, n is above w
	if r == nil {
		return false // jobs of one flow keep their order
	}
	var (
		lead        = r.served - n.served
		hadQuantum  = j.used-j.usedAtStart >= Quantum              // j has run for a quantum since its latest start
		newlyActive = w.started == 0 && n.level >= w.firstNewLevel // the flow of w was idle when w was pushed
	)
	switch {
	case lead >= Quantum && hadQuantum:
		return true
	case n.weight > r.weight: // background work waits for its turn
		return false
	case n.weight < r.weight && lead >= Quantum*r.weight: // background work has had more than its share
		return true
	case n.candidates > 0:
		return n.candidates+1 < r.candidates && (lead >= 0 || n.waiting == 1 && lead >= -Quantum)
	case r.candidates > 1:
		return lead >= -Quantum && (newlyActive || hadQuantum)
	default:
		return newlyActive && lead >= 0
	}
}

// compareVictim orders two running jobs for preemption; the greater one is preempted first. It
// compares, at the level where their paths diverge, the number of candidates in the flows, then the
// service of the flows. Of equal ones, the job that was started last is greater.
func (j *Job[T]) compareVictim(other *Job[T]) int {
	if a, b := divergence(j.leaf, other.leaf); a != nil {
		if by := cmp.Or(cmp.Compare(a.candidates, b.candidates), cmp.Compare(a.served, b.served)); by != 0 {
			return by
		}
	}
	return cmp.Compare(j.started, other.started)
}

// divergence returns the siblings at which the paths to two leaves diverge. It returns nil twice if
// both are the same leaf.
func divergence[T any](a, b *node[T]) (*node[T], *node[T]) {
	if a == b {
		return nil, nil
	}
	for a.parent != b.parent {
		a, b = a.parent, b.parent
	}
	return a, b
}
