package gate

import (
	"slices"

	"github.com/inferd-go/inferd/internal/sched"
)

// Next decides on the next effect and returns it. It reports false if there is none until the next
// event. Before the call, [Machine.Undecided] must have returned nil.
func (m *Machine[T]) Next() (Effect[T], bool) {
	for m.unsettled && m.next == len(m.effects) {
		m.decide()
	}
	if m.next == len(m.effects) {
		return Effect[T]{}, false
	}
	e := m.effects[m.next]
	m.effects[m.next] = Effect[T]{}
	if m.next++; m.next == len(m.effects) {
		m.effects, m.next = m.effects[:0], 0
	}
	return e, true
}

// decide starts one request. If no waiting request can have a slot, the machine is settled: a
// request that has just arrived takes a place in the queue or is refused.
func (m *Machine[T]) decide() {
	if m.fill() || m.preempt() {
		return
	}
	m.unsettled = false
	r := m.arriving
	switch {
	case r == nil:
	case m.queueFull(r):
		r.caller.refused++
		m.end(r, Refuse, ErrQueueFull)
	default:
		m.arriving = nil
		m.set(r, Waiting)
		m.emit(Wait, r, nil)
	}
}

// fill gives a free slot to the first request in fair order that can use it, and reports whether
// there was one.
func (m *Machine[T]) fill() bool {
	if !m.anySlot() {
		return false
	}
	j := m.queue.Pop(m.runnable)
	if j == nil {
		return false
	}
	m.run(j.Item)
	return true
}

// anySlot reports whether any waiting request could have a slot. It looks at backends, not at each
// request.
func (m *Machine[T]) anySlot() bool {
	if m.queue.Len() == 0 || m.noPermit() {
		return false
	}
	if m.arriving != nil && !m.arriving.account.full() {
		return true
	}
	for _, b := range m.backends {
		if b.waiting > 0 && !b.full() {
			return true
		}
	}
	return false
}

func (m *Machine[T]) runnable(r *Request[T]) bool { return !r.account.full() && !m.noPermit() }

// noPermit reports whether Limits.Active requests are running, so that no other request may start.
func (m *Machine[T]) noPermit() bool {
	return m.Limits.Active > 0 && len(m.running) >= m.Limits.Active
}

// run begins or resumes a request that the queue has started.
func (m *Machine[T]) run(r *Request[T]) {
	if r.state == Parked {
		m.set(r, Running)
		m.emit(Resume, r, nil)
		return
	}
	if m.arriving == r {
		m.arriving = nil
	}
	m.set(r, Running)
	m.emit(Begin, r, nil)
	m.round++ // the breaker of a failed backend may let only this request through
}

// preempt gives the slot of a running request to a waiting request ahead of it in fair order. It
// reports whether there were two such requests.
func (m *Machine[T]) preempt() bool {
	if m.queue.Len() == 0 || !slices.ContainsFunc(m.running, func(r *Request[T]) bool { return r.backend.Preemptible }) {
		return false
	}
	for j := range m.queue.Heads((*Request[T]).kind) {
		r := j.Item
		if r.backend.NoPreempt || r.state != Parked && m.overParkLimit(r) {
			continue
		}
		victim := m.queue.Victim(j, m.candidates(r))
		if victim == nil {
			continue
		}
		m.queue.Preempt(victim)
		m.set(victim.Item, Parked)
		m.emit(Pause, victim.Item, nil)
		m.queue.Start(j)
		m.run(r)
		return true
	}
	return false
}

// kind returns the name of r's group. Of the requests of one flow and one group, only the first may
// preempt. Each backend has a group, and a second one for requests that never preempt, so that
// these do not delay requests that do.
func (r *Request[T]) kind() string {
	if r.backend.NoPreempt {
		return r.backend.Name + " without preemption"
	}
	return r.backend.Name
}

// candidates returns the running requests that can be preempted for r: each has a slot that r could
// use. The slice is valid until the next call.
func (m *Machine[T]) candidates(r *Request[T]) []*sched.Job[*Request[T]] {
	full := r.account.full()
	all := m.candidateBuf[:0]
	for _, c := range m.running {
		if c.backend.Preemptible && (!full || c.account == r.account) {
			all = append(all, c.job)
		}
	}
	m.candidateBuf = all
	return all
}

// overParkLimit reports whether the caller of r or its user has so many parked and stalled requests
// that r must not preempt another request. Otherwise a caller could bypass its queue limit with
// many client names, or a user with many programs, and every request that has begun holds KV in an
// engine.
func (m *Machine[T]) overParkLimit(r *Request[T]) bool {
	limit := max(m.Limits.Depth, r.account.slots)
	return r.caller.slotless() >= limit || r.caller.user.slotless() >= max(limit, m.Limits.Total/2)
}

// queueFull reports whether there is no place in the queue for r.
func (m *Machine[T]) queueFull(r *Request[T]) bool {
	l := m.Limits
	return r.caller.places() >= l.Depth || r.caller.user.places() >= max(l.Depth, l.Total/2) || m.all.places() >= l.Total
}
