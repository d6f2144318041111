// Package admit is the handler in front of all entries, for all surfaces. It passes a request on
// when the request gets a slot. Package gate makes the decisions; this package adds the lock, the
// clock and the channels, and counts the text of the answers. It depends neither on the engine of
// an entry nor on the way in which a request is answered.
package admit

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/gate"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/quota"
	"github.com/inferd-go/inferd/internal/sched"
)

// A Destination is the backend of a request, with the rules by which the request takes and gives up
// a slot. The requests of one backend share its slots.
type Destination struct {
	*backend.Backend
	// Pausable requests can give their slot to another request, and resume later: the handler
	// obeys [infer.Request.Pause].
	Pausable bool
	// NoPreempt requests do not preempt other requests: they wait for a slot.
	NoPreempt bool
}

// A Gate is a Handler that passes requests on when it is their turn. It owns no goroutine: the
// goroutine of a request that arrives, leaves, stalls, reads again, or has generated a quantum
// starts the next requests.
type Gate struct {
	// Choose returns the present destination of a request; its error refuses the request. At any
	// time, it must return the same destination for all requests with the same model and the same
	// [infer.Needs]: when several of them might run, it is called for only one. It is called with
	// the gate locked and must not block.
	Choose func(*infer.Request) (Destination, error)
	// Begin, if not nil, is called when a request gets a slot for the first time, and end when
	// the request is over: with nil after a complete answer, with an [infer.Error] if the
	// handler failed, or with another error if the client left. Both are called with the gate
	// locked and must not block.
	Begin  func(*backend.Backend) (end func(error))
	Active int // requests that run at once on all backends together; 0 means the sum of their slots
	Depth  int // requests of one caller that may wait
	Total  int // requests that may wait in all; a user may have half of them, or Depth if that is more
	// Memory bounds the text that is buffered for clients that do not read; nil means no bound.
	Memory *quota.Quota

	mu      sync.Mutex // guards machine, and the lower fields of tickets
	machine gate.Machine[*ticket]
}

var _ infer.Handler = (*Gate)(nil)

// Results of [Gate.Stats].
type (
	// Stats are the requests at a gate.
	Stats = gate.Stats
	// Counts are the requests and tokens of a caller or a backend.
	Counts = gate.Counts
	// Caller has the counts of a program of a user.
	Caller = gate.Caller
	// BackendCounts are the counts of a backend.
	BackendCounts = gate.BackendCounts
)

// A ticket is the state of a request at the gate.
type ticket struct {
	req *infer.Request
	// reported counts the tokens that the handler has reported as generated; it stays zero if the
	// handler does not report tokens. taken counts the tokens in the events of the answer.
	reported, taken usage
	admission       infer.Admitted // written and read by the goroutine of Handle only

	// The gate's lock guards the fields below. After the wait, to and refused do not change, and
	// are read without the lock.
	gate.Request[*ticket]
	turn    chan struct{} // closed when the wait is over; nil if there is none
	began   time.Time     // when it got its slot; zero if it has none
	held    time.Duration // time with a slot, without the time since began
	to      Destination
	end     func(error)             // of Gate.Begin; nil once it has been called
	cancel  context.CancelCauseFunc // ends a request that has begun; nil if it cannot stall
	refused error
	memory  bool // the request holds MaxUntaken bytes of the gate's memory
}

// A usage counts generated tokens, and the cost of sampling them in units of one token.
type usage struct{ tokens, cost atomic.Int64 }

func (u *usage) add(tokens, cost int) {
	u.tokens.Add(int64(tokens))
	u.cost.Add(int64(cost))
}

// generated returns the tokens generated so far, with their cost.
func (t *ticket) generated() gate.Usage {
	return gate.Usage{
		Tokens: max(t.reported.tokens.Load(), t.taken.tokens.Load()),
		Cost:   max(t.reported.cost.Load(), t.taken.cost.Load()),
	}
}

// Close refuses all requests that wait to begin or arrive from now on. Requests that have
// begun may finish; parked ones resume when there is a slot.
func (g *Gate) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.machine.Close()
	g.settleLocked()
}

// Stats returns the counts at this moment.
func (g *Gate) Stats() Stats {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.chargeRunningLocked()
	return g.machine.Stats(now)
}

// flowOf returns the path to the flow of a request in the fair queue.
func flowOf(req *infer.Request) sched.Path {
	return sched.Path{Background: req.Background, User: req.Peer.User, Program: req.Peer.Program, Client: req.Client}
}

// enter returns the ticket of req, which has been admitted or waits, or the error that refuses it.
func (g *Gate) enter(req *infer.Request) (*ticket, error) {
	if req.Needs == nil {
		req.Needs = new(infer.Needs(req.Task))
	}
	t := &ticket{req: req, Request: gate.Request[*ticket]{
		Exe: req.Peer.Exe, Prompt: promptTokens(req.Task),
		Route: gate.Route{Model: infer.ModelOf(req.Task), Needs: *req.Needs},
		Flow:  flowOf(req),
	}}
	t.Item = t
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.machine.Closed() {
		return nil, gate.ErrClosed
	}
	to, err := g.Choose(req)
	if err != nil {
		return nil, err
	}
	g.chargeRunningLocked()
	g.machine.Limits = gate.Limits{Active: g.Active, Depth: g.Depth, Total: g.Total}
	direct(g.machine.Arrive(&t.Request, to.backend()), to)
	g.settleLocked()
	return t, t.refused
}

// settle charges the running requests, and starts the next ones.
func (g *Gate) settle() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.chargeRunningLocked()
	g.settleLocked()
}

// leave ends a request that has begun, unless it has ended already, and starts the next one. done
// is nil if the answer is incomplete; then why is the reason.
func (g *Gate) leave(t *ticket, done *infer.Done, why error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.leaveLocked(t, done, why)
}

func (g *Gate) leaveLocked(t *ticket, done *infer.Done, why error) {
	if t.State() == gate.Ended {
		return
	}
	t.report(why)
	now := g.chargeRunningLocked()
	var final *gate.Final
	if done != nil {
		final = &gate.Final{In: done.In, Cached: done.Cached, Out: done.Out}
	}
	t.pauseLocked(now)
	u := t.generated()
	u.Held = t.held
	g.machine.Leave(now, &t.Request, u, final)
	g.releaseLocked(t)
	g.settleLocked()
}

// withdraw ends a request that waits, or that was admitted after its goroutine stopped waiting.
func (g *Gate) withdraw(t *ticket) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t.State() == gate.Waiting { // it has no slot that another request could get
		g.machine.Leave(time.Now(), &t.Request, gate.Usage{}, nil)
		return
	}
	g.leaveLocked(t, nil, errGone)
}

// stall starts or ends the stall of a request. The stall starts when the client does not read, and
// takes the slot of the request. When the client reads again, the request is parked until it gets a
// slot. While it is stalled, it holds MaxUntaken bytes of the gate's memory for its text, if they
// are available.
func (g *Gate) stall(t *ticket, on bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch s := t.State(); {
	case s == gate.Ended || (s == gate.Stalled) == on:
		return
	case on:
		now := time.Now()
		t.pauseLocked(now)
		u := t.generated()
		u.Held = t.held
		t.memory = g.Memory == nil || g.Memory.TryAcquire(t.Caller(), infer.MaxUntaken)
		g.machine.Stall(now, &t.Request, u, t.memory)
	default:
		g.machine.Resume(&t.Request)
	}
	g.releaseLocked(t)
	g.settleLocked()
}

// releaseLocked gives back the memory that t holds, unless t is stalled.
func (g *Gate) releaseLocked(t *ticket) {
	if t.memory && t.State() != gate.Stalled {
		t.memory = false
		if g.Memory != nil {
			g.Memory.Release(t.Caller(), infer.MaxUntaken)
		}
	}
}

// chargeRunningLocked charges the running requests for the text generated so far.
func (g *Gate) chargeRunningLocked() (now time.Time) {
	now = time.Now()
	for _, r := range g.machine.Running() {
		g.machine.Charge(now, r, r.Item.generated())
	}
	return now
}

// settleLocked carries out the decisions that follow from the latest event. It calls Choose again
// after each request that begins, because the breaker of a failed backend may let only one request
// through.
func (g *Gate) settleLocked() {
	for {
		for r := g.machine.Undecided(); r != nil; r = g.machine.Undecided() {
			to, err := g.Choose(r.Item.req)
			if err != nil {
				g.machine.Reject(r, err)
				continue
			}
			direct(g.machine.Assign(r, to.backend()), to)
		}
		e, ok := g.machine.Next()
		if !ok {
			return
		}
		g.obeyLocked(e.Request.Item, e.Kind, e.Err)
	}
}

// direct sets the destination of moved, the requests with a new backend.
func direct(moved []*gate.Request[*ticket], to Destination) {
	for _, r := range moved {
		r.Item.to = to
	}
}

func (d *Destination) backend() gate.Backend {
	return gate.Backend{Name: d.Name, Slots: d.Slots, Preemptible: d.Pausable, NoPreempt: d.NoPreempt}
}

// obeyLocked carries out the decision k about t. err is the reason if k refuses or cancels t.
func (g *Gate) obeyLocked(t *ticket, k gate.Kind, err error) {
	switch k {
	case gate.Begin:
		t.began = time.Now()
		if g.Begin != nil {
			t.end = g.Begin(t.to.Backend)
		}
		t.endWait()
	case gate.Wait:
		t.turn = make(chan struct{})
	case gate.Pause:
		t.pauseLocked(time.Now())
		t.req.Pause.Preempted.Set(true)
	case gate.Resume:
		t.began = time.Now()
		t.req.Pause.Preempted.Set(false)
	case gate.Refuse:
		t.refused = err
		t.endWait()
	case gate.Cancel:
		t.cancel(err)
		t.report(errGone)
	}
}

func (t *ticket) endWait() {
	if t.turn != nil {
		close(t.turn)
	}
}

// report passes the outcome of the request to the function that Gate.Begin returned, at most once.
// why is nil after a complete answer. The gate must be locked.
func (t *ticket) report(why error) {
	if t.end != nil {
		t.end(why)
		t.end = nil
	}
}
