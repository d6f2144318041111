// Package gate is the state machine of admission. It decides which requests run, wait, are refused,
// or are preempted. Events are method calls; [Machine.Next] returns their effects. Waiting requests
// are served fairly between callers (see package sched), by the real cost of the answers, which is
// charged while they are generated.
//
// The package is pure: it reads no clock, takes no lock, starts no goroutine and calls no callback.
// It contains nothing about how requests are answered or how a backend is chosen.
package gate

import (
	"time"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/sched"
)

// Reasons to refuse or end a request.
var (
	ErrClosed    = infer.Errorf(infer.Unavailable, "admission closed")
	ErrQueueFull = infer.Errorf(infer.Busy, "queue full")
	// ErrUnread ends a stalled request if its caller has no place left in the queue, or no
	// memory.
	ErrUnread = infer.Errorf(infer.Busy, "queue full: the answer is not read, and too many requests wait already")
)

// Limits bound the requests at the gate.
type Limits struct {
	Active int // requests that run at once on all backends together; 0 means the sum of their slots
	Depth  int // places in the queue for one caller
	Total  int // places in the queue in all; a user may have half of them, or Depth if that is more
}

// A Backend is the destination of a request. Requests of one Name share its slots.
type Backend struct {
	Name  string
	Slots int // requests that run there at once; less than 1 means 1
	// Preemptible requests can give their slot to another request, and resume later.
	Preemptible bool
	// NoPreempt requests do not preempt other requests: they wait for a slot.
	NoPreempt bool
}

// A Route holds the inputs to the choice of a backend. At any time, the choice is the same for all
// requests of one route.
type Route struct {
	Model string
	Needs infer.Abilities
}

// A Request is one request at the gate. Its exported fields are set before
// [Machine.Arrive].
type Request[T any] struct {
	Item   T
	Flow   sched.Path // its user and program are the caller
	Exe    string     // path of the caller's executable
	Route  Route
	Prompt int // estimated tokens

	state   State
	backend Backend
	job     *sched.Job[*Request[T]] // job, caller and account are nil before the request arrives
	caller  *caller
	account *account  // of the backend
	route   *route[T] // nil unless the state is Arrived or Waiting
	member  int       // index in the members of route
	counted int64     // tokens that are in the rates
	charged int64     // tokens and cost that the queue has charged
}

// Caller returns the unit of limits that the request belongs to.
func (r *Request[T]) Caller() infer.Caller {
	return infer.Caller{User: r.Flow.User, Program: r.Flow.Program}
}

// State returns the state of the request.
func (r *Request[T]) State() State { return r.state }

// State is the state of a request. It is changed by Machine.set only.
//
//	New ─▶ Arrived ─▶ Waiting ─▶ Running ◀─▶ Parked
//	          │          │         │ ▲          │
//	          │          │         │ resumed: Parked first
//	          │          │       Stalled ◀──────┘
//	          ▼          ▼         ▼
//	         Ended ◀───────────────┘ (from every state)
//
// An arrived request may also run at once. A parked request has begun and waits for a slot. A
// stalled request has begun and has no slot; it waits for its client to read, not for a slot.
type State int

// States.
const (
	New     State = iota // not at the gate yet
	Arrived              // until the machine has decided about it
	Waiting
	Running
	Parked
	Stalled
	Ended
)

// Kind is the kind of an effect.
type Kind int

// Effects.
const (
	Begin  Kind = iota // the request runs for the first time
	Wait               // the request waits to begin
	Pause              // the request must stop generating until Resume
	Resume             // the request runs again
	Refuse             // the request ends with Err before it has begun
	Cancel             // the request ends with Err after it has begun
)

// An Effect is a decision about a request, which the machine's user carries out.
type Effect[T any] struct {
	Kind    Kind
	Request *Request[T]
	Err     error // of Refuse and Cancel
}

// Usage holds the number of tokens generated for a request so far, the cost of sampling them, and, for
// [Machine.Leave] and [Machine.Stall], the time for which the request has held a slot.
type Usage struct {
	Tokens int64
	Cost   int64 // of sampling, in tokens
	Held   time.Duration
}

// Final is the usage of a whole answer, in tokens.
type Final struct{ In, Cached, Out int }

// A Machine holds all requests at the gate. The zero value is empty. It is not safe for
// concurrent use.
//
// After each event, and before the next one, its user must choose backends and collect the effects:
//
//	for {
//		for r := m.Undecided(); r != nil; r = m.Undecided() {
//			// m.Assign or m.Reject
//		}
//		effect, ok := m.Next()
//		…
//	}
//
// Times that are passed to its methods must not decrease.
type Machine[T any] struct {
	Limits Limits

	closed    bool
	queue     sched.Queue[*Request[T]]
	running   []*Request[T]
	arriving  *Request[T] // in state Arrived
	unsettled bool        // a change may give another request a slot
	effects   []Effect[T] // for Next; those before the index next have been returned
	next      int

	routes []*route[T] // with members
	spare  *route[T]   // for reuse; nil if there is none
	round  uint64      // number of the present round, see Undecided

	all      tally
	users    map[string]*user
	callers  map[infer.Caller]*caller
	backends map[string]*account
	arrivals uint64

	// Buffers that candidates and Assign reuse.
	candidateBuf []*sched.Job[*Request[T]]
	moved        []*Request[T]
}

// Closed reports whether Close has been called.
func (m *Machine[T]) Closed() bool { return m.closed }

// Arrive admits r, makes it wait, or refuses it. b is the present choice for its route; the result
// is that of [Machine.Assign].
func (m *Machine[T]) Arrive(r *Request[T], b Backend) (moved []*Request[T]) {
	if m.closed {
		m.end(r, Refuse, ErrClosed)
		return nil
	}
	m.set(r, Arrived)
	m.arriving = r
	m.unsettle()
	return m.Assign(r, b)
}

// Charge charges a running or parked request for the tokens and the sampling cost that it has used
// so far.
func (m *Machine[T]) Charge(now time.Time, r *Request[T], u Usage) {
	used := u.Tokens + u.Cost
	if used == r.charged || r.state != Running && r.state != Parked {
		return
	}
	r.charged = used
	r.countTokens(now, u.Tokens)
	m.queue.Charge(r.job, r.Prompt+int(used))
	m.unsettle()
}

// Running returns the requests that have a slot. The slice is valid until the next event.
func (m *Machine[T]) Running() []*Request[T] { return m.running }

// ChargeFlow charges a flow for work that needed no slot, in tokens. The charge is forgotten once
// no request waits or runs.
func (m *Machine[T]) ChargeFlow(p sched.Path, tokens int) {
	job := m.queue.Push(p, tokens, nil)
	m.queue.Start(job)
	m.queue.Done(job, tokens)
}

// Leave ends a request that waits, runs, is parked or is stalled. u is its usage so far. If it was
// answered to the end, final is the usage of the whole answer; otherwise final is nil. Leave has no
// effect on a request that has not arrived or has ended.
func (m *Machine[T]) Leave(now time.Time, r *Request[T], u Usage, final *Final) {
	switch r.state {
	case New, Ended:
		return
	case Arrived, Waiting:
		if m.arriving == r {
			m.arriving = nil
		}
		m.queue.Done(r.job, 0)
		m.set(r, Ended)
		return
	case Running, Parked, Stalled:
	}
	used := r.Prompt + int(u.Tokens+u.Cost)
	if final == nil {
		final = &Final{}
	} else {
		u.Tokens = max(u.Tokens, int64(final.Out))
		used = final.In - final.Cached + final.Out + int(u.Cost)
	}
	r.countTokens(now, u.Tokens)
	m.set(r, Ended)
	// Every request is charged at least 1: otherwise a flow of empty requests would always go
	// first.
	m.queue.Done(r.job, max(used, 1))
	r.account.held.add(u.Held)
	for _, a := range [...]*account{&r.caller.account, r.account} {
		a.requests++
		a.in += int64(final.In)
		a.cached += int64(final.Cached)
		a.out += int64(final.Out)
	}
	m.unsettle()
}

// Stall takes the slot of a request because its client does not read. The request takes a place in
// the queue of its caller. If there is none, or if memory is false because there is no memory for
// its text, the request ends.
func (m *Machine[T]) Stall(now time.Time, r *Request[T], u Usage, memory bool) {
	if r.state != Running && r.state != Parked {
		return
	}
	m.Charge(now, r, u)
	if !memory || m.queueFull(r) {
		m.emit(Cancel, r, ErrUnread)
		m.Leave(now, r, u, nil)
		return
	}
	m.queue.Suspend(r.job)
	m.set(r, Stalled)
	m.emit(Pause, r, nil)
	m.unsettle()
}

// Resume parks a stalled request because its client reads again.
func (m *Machine[T]) Resume(r *Request[T]) {
	if r.state != Stalled {
		return
	}
	m.queue.Resume(r.job)
	m.set(r, Parked)
	m.unsettle()
}

// Close refuses all requests that wait to begin or arrive from now on. Requests that have
// begun may finish; parked ones still get a slot.
func (m *Machine[T]) Close() {
	m.closed = true
	for len(m.routes) > 0 {
		m.end(m.routes[0].members[0], Refuse, ErrClosed)
	}
}

// end ends a request that has not begun.
func (m *Machine[T]) end(r *Request[T], k Kind, err error) {
	if r.job != nil {
		m.queue.Done(r.job, 0)
	}
	if m.arriving == r {
		m.arriving = nil
	}
	m.set(r, Ended)
	m.emit(k, r, err)
}

func (m *Machine[T]) emit(k Kind, r *Request[T], err error) {
	m.effects = append(m.effects, Effect[T]{k, r, err})
}

// unsettle records a change that may give another request a slot.
func (m *Machine[T]) unsettle() {
	m.unsettled = true
	m.round++
}
