package gate

import "slices"

// A route holds the requests of one [Route] that have not begun.
type route[T any] struct {
	Route
	backend Backend // of all members, except one that has just arrived
	members []*Request[T]
	round   uint64 // the round in which the backend was assigned
}

// Undecided returns a request whose backend must be chosen now, with [Machine.Assign] or
// [Machine.Reject], or nil if all choices are made. It returns one request for each route and
// round, however many requests wait, and only while one of them might run. A round begins with each
// event that may free a slot, and with each request that begins.
func (m *Machine[T]) Undecided() *Request[T] {
	if !m.unsettled || m.next < len(m.effects) {
		return nil
	}
	for _, rt := range m.routes {
		if rt.round != m.round {
			return rt.members[len(rt.members)-1]
		}
	}
	return nil
}

// Assign records that all requests with the route of r go to a backend. It returns the
// requests with a new backend. The slice is valid until the next call.
func (m *Machine[T]) Assign(r *Request[T], b Backend) (moved []*Request[T]) {
	b.Slots = max(b.Slots, 1)
	rt := r.route
	rt.round = m.round
	m.moved = m.moved[:0]
	if rt.backend == b { // the backend of all members, except a new one
		if a := m.arriving; a != nil && a.route == rt && a.backend != b {
			m.assign(a, b)
		}
		return m.moved
	}
	rt.backend = b
	for _, member := range rt.members {
		m.assign(member, b)
	}
	return m.moved
}

func (m *Machine[T]) assign(r *Request[T], b Backend) {
	state := r.state
	m.set(r, Arrived) // a state that is not counted
	r.backend, r.account = b, m.accountOf(b)
	if r.job == nil {
		r.caller = m.callerOf(r.Caller(), r.Exe)
		r.job = m.queue.Push(r.Flow, r.Prompt, r)
	}
	m.set(r, state)
	m.moved = append(m.moved, r)
}

// Reject refuses r with err, because no backend takes it.
func (m *Machine[T]) Reject(r *Request[T], err error) { m.end(r, Refuse, err) }

func (m *Machine[T]) join(r *Request[T]) {
	var rt *route[T]
	if i := slices.IndexFunc(m.routes, func(rt *route[T]) bool { return rt.Route == r.Route }); i >= 0 {
		rt = m.routes[i]
	} else {
		if rt, m.spare = m.spare, nil; rt == nil {
			rt = new(route[T])
		}
		rt.Route = r.Route
		m.routes = append(m.routes, rt)
	}
	r.route, r.member = rt, len(rt.members)
	rt.members = append(rt.members, r)
}

func (m *Machine[T]) quit(r *Request[T]) {
	rt := r.route
	r.route = nil
	last := len(rt.members) - 1
	rt.members[r.member] = rt.members[last]
	rt.members[r.member].member = r.member
	rt.members[last] = nil
	if rt.members = rt.members[:last]; last == 0 {
		i := slices.Index(m.routes, rt)
		m.routes = slices.Delete(m.routes, i, i+1)
		*rt = route[T]{members: rt.members}
		m.spare = rt
	}
}
