// Package admit is the one gate in front of the slots of all entries, for all surfaces:
// some requests run, some more may wait, the rest are refused at once. Waiting requests are
// served fairly between callers, which the kernel identifies (see package sched), and by the
// real cost of the answers, which is charged while they are written: where an entry can pause
// an answer, another request may have its slot for a while. The gate knows neither what an
// entry is made of nor how a request is answered.
package admit

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/quota"
	"github.com/inferd-go/inferd/internal/sched"
)

// A Place is where a request goes. Requests of one Name share its slots, whatever else their
// places say.
type Place struct {
	Name    string
	Kind    string // of backend, as [infer.Done] says it
	Slots   int    // requests that run there at once; less than 1 means 1
	Handler infer.Handler
	// Parks says that the handler obeys [infer.Request.Pause] for this request: it can be
	// preempted, so that another one has its slot, and resume later.
	Parks bool
	// NoPreempt says that the request does not preempt another: it waits for a slot.
	NoPreempt bool
	// Model, if not nil, is asked what the model there calls itself.
	Model func() string
	// Begin, if not nil, is called when a request gets a slot for the first time, and end when
	// it is over: with nil if it was answered to the end, with an [infer.Error] that says how the
	// handler failed, or with another error if the client left. Both are called with the gate
	// locked and must not block.
	Begin func() (end func(error))
}

// A Gate is a Handler that passes requests on when it is their turn. It owns no goroutine:
// a request that arrives, leaves, or has written a quantum lets the next one in.
type Gate struct {
	// Choose says where a request goes now. It is asked when one comes, and again when it
	// might run; its error is the answer. It is called with the gate locked and must not
	// block.
	Choose func(*infer.Request) (Place, error)
	Active int // requests that run at once in all places together; 0 is the sum of their slots
	Depth  int // requests of one caller that may wait
	Total  int // requests that may wait in all; a user may have half of them, or Depth
	// Memory bounds the text kept for clients that do not read; nil does not.
	Memory *quota.Quota

	mu      sync.Mutex // guards the fields below
	closed  bool
	queue   sched.Queue[*ticket]
	running []*ticket
	begun   map[string]int // by user: requests that are parked or stalled
	places  map[string]*Usage
	callers map[infer.Caller]*Caller
	seen    uint64 // requests, roughly

	once   sync.Once // makes queued
	queued quota.Quota
}

var _ infer.Handler = (*Gate)(nil)

// A ticket is a request at the gate. Its channel is closed when the wait is over.
type ticket struct {
	req    *infer.Request
	turn   chan struct{} // nil if it did not have to wait
	entry  *sched.Job[*ticket]
	caller *Caller
	prompt int // tokens, estimated
	// The text so far, as the handler reported it when it was written, and as the client has
	// taken it. A handler that does not report leaves the first at zero.
	reported, taken usage

	state   state
	place   Place
	end     func(error)             // what place.Begin has returned
	cancel  context.CancelCauseFunc // ends a request that has begun; nil if it cannot stall
	err     error                   // why it is refused
	counted int64                   // the part of tokens that is in the rates
	charged int64                   // the part of tokens and cost that the queue was charged

	admitted infer.Admitted // used by the goroutine of Handle only
}

// state is what a request at the gate is doing. [Gate.setLocked] changes it.
//
//	new ─▶ waiting ─▶ running ◀─▶ parked
//	 │        │         │ ▲          │
//	 └────────┼─────────┘ │ resumed: parked first
//	          │         stalled ◀────┘
//	          ▼           │
//	        ended ◀───────┘ (from every state)
//
// A parked request has begun and waits for a slot. A stalled one has begun and waits for
// its client to read: it has no slot and wants none.
type state int

const (
	fresh state = iota
	waiting
	running
	parked
	stalled
	ended
)

// A usage counts tokens of text, and the cost of sampling them, in tokens.
type usage struct{ tokens, cost atomic.Int64 }

func (u *usage) add(tokens, cost int) {
	u.tokens.Add(int64(tokens))
	u.cost.Add(int64(cost))
}

// written returns the tokens that have been written, and the cost of sampling them.
func (t *ticket) written() (tokens, cost int64) {
	return max(t.reported.tokens.Load(), t.taken.tokens.Load()), max(t.reported.cost.Load(), t.taken.cost.Load())
}

// over reports whether the wait to begin is over.
func (t *ticket) over() bool { return t.state > waiting }

// admission completes and returns the event that reports the admission.
func (t *ticket) admission() *infer.Admitted {
	t.admitted.Entry, t.admitted.Backend = t.place.Name, t.place.Kind
	if t.place.Model != nil {
		t.admitted.Model = t.place.Model()
	}
	return &t.admitted
}

// errClosed refuses requests that arrive or still wait once the gate is closed.
var errClosed = infer.Errorf(infer.Unavailable, "admission closed")

// Why a request with a deadline is refused.
var (
	errLate    = infer.Errorf(infer.Busy, "queue full: the deadline passed while the request waited")
	errTooLate = infer.Errorf(infer.Busy, "queue full: the deadline passed before the answer was there")
)

// errUnread ends a request whose client does not read, if the client has no room to wait.
var errUnread = infer.Errorf(infer.Busy, "queue full: the answer is not read, and too many requests wait already")

// lateness is how long an answer whose deadline has passed may take to end by itself.
const lateness = time.Second

// Handle passes req on when it is its turn, and emits [infer.Admitted] before. It refuses with [infer.Busy] at once if too
// many wait already, or when the deadline of req passes while it waits, and with
// [infer.Unavailable] once the gate is closed.
func (g *Gate) Handle(ctx context.Context, req *infer.Request, emit infer.Sink) error {
	t, err := g.enter(req)
	if err != nil {
		return err
	}
	if t.turn != nil {
		if err := g.wait(ctx, t); err != nil {
			return err
		}
	}
	return g.serve(ctx, t, emit)
}

// wait returns nil when t has been admitted.
func (g *Gate) wait(ctx context.Context, t *ticket) error {
	came := time.Now()
	var late <-chan time.Time
	if at := t.req.Deadline; !at.IsZero() {
		timer := time.NewTimer(at.Sub(came))
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-t.turn:
		t.admitted.Queued = time.Since(came)
		return t.err
	case <-late:
		g.withdraw(t)
		return errLate
	case <-ctx.Done():
		g.withdraw(t)
		return context.Cause(ctx)
	}
}

// serve passes on t, which has been admitted.
func (g *Gate) serve(ctx context.Context, t *ticket, emit infer.Sink) error {
	client := ctx
	if at := t.req.Deadline; !at.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, at.Add(lateness), errTooLate)
		defer cancel()
	}
	// The slot is free before the last message goes out: a client that has read that may
	// ask again at once.
	why := errNoEnd // unless it is known better; so it is after a panic
	defer func() { g.leave(t, nil, why) }()
	if t.place.Parks {
		var cancel context.CancelCauseFunc
		ctx, cancel = context.WithCancelCause(ctx)
		defer cancel(nil)
		t.cancel = cancel
		stop := t.req.Pause.Stalled.OnChange(func(on bool) { g.stall(t, on) })
		defer stop()
		t.req.Written = g.charger(t.reported.add)
	}
	var (
		lost   error       // of the way to the client
		result infer.Event // complete vectors or scores, before their Done
	)
	if err := emit(t.admission()); err != nil {
		why = errGone // the backend is not to blame
		return err
	}
	take := t.taken.add
	if t.place.Parks {
		take = g.charger(take)
	}
	send := func(ev infer.Event) error {
		err := emit(ev)
		if err != nil && lost == nil {
			lost = err
		}
		return err
	}
	err := t.place.Handler.Handle(ctx, t.req, func(ev infer.Event) error {
		switch ev := ev.(type) {
		case *infer.Text:
			take(ev.Tokens, ev.Cost)
		case *infer.Thinking:
			take(ev.Tokens, ev.Cost)
		case *infer.ToolCall:
			take(ev.Tokens, ev.Cost)
		case *infer.Admitted:
			return nil // the gate has emitted its own
		case *infer.Prompt: // no piece of the answer
		case *infer.Vectors:
			result = &infer.Vectors{Values: ev.Values}
			return nil // Done follows; until then a client that reads slowly would keep the slot
		case *infer.Scores:
			result = &infer.Scores{Values: ev.Values}
			return nil
		case *infer.Done:
			g.leave(t, ev, nil)
			if result != nil {
				if err := send(result); err != nil {
					return err
				}
			}
		}
		return send(ev)
	})
	switch _, told := errors.AsType[*infer.Error](cmp.Or(lost, err)); {
	case client.Err() != nil:
		why = errGone
	case lost != nil && !told:
		why = errGone
	case told:
		why = cmp.Or(lost, err)
	}
	return err
}

// Why a request that ran was not answered to the end.
var (
	errGone        = errors.New("nobody waits for the answer")
	errNoEnd error = infer.Errorf(infer.Internal, "an answer without an end")
)

// Close refuses all requests that wait to begin or arrive from now on. Requests that have
// begun may finish; parked ones resume when there is room.
func (g *Gate) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	for _, e := range slices.Collect(g.queue.Waiting()) {
		if e.Item.state != parked {
			g.refuseLocked(e.Item, errClosed)
		}
	}
}

// enter takes a place in the queue, which may be over at once.
func (g *Gate) enter(req *infer.Request) (*ticket, error) {
	g.once.Do(func() {
		g.queued.PerCaller, g.queued.Total = int64(g.Depth), int64(g.Total)
	})
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, errClosed
	}
	place, err := g.Choose(req)
	if err != nil {
		return nil, err
	}
	g.settleLocked()
	t := &ticket{req: req, caller: g.callerLocked(req), place: place, prompt: promptTokens(req.Task)}
	t.entry = g.queue.Push(flowOf(req), t.prompt, t)
	g.admitLocked()
	switch {
	case t.err != nil:
		return nil, t.err
	case t.over():
		return t, nil
	case !g.queued.TryAcquire(req.Peer.Caller(), 1):
		g.queue.Done(t.entry, 0)
		t.caller.Refused++
		return nil, infer.Errorf(infer.Busy, "queue full")
	}
	t.turn = make(chan struct{})
	g.setLocked(t, waiting)
	return t, nil
}
