// Package admit is the one gate in front of the slots of all entries, for all surfaces:
// so many requests run, so many more may wait, the rest are refused at once. Who waits is
// served fairly, by who asks as the kernel says (see package sched) and by what a request
// is likely to cost. The gate does not know what an entry is made of, nor how a request is
// answered.
package admit

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/quota"
	"github.com/inferd-go/inferd/internal/sched"
)

// A Place is where a request goes.
type Place struct {
	Name    string
	Slots   int // requests that run there at once; less than 1 means 1
	Handler infer.Handler
	// Begin, if not nil, is called when a request gets a slot, and end when it gives that
	// back: with nil if it was answered to the end, with an [infer.Error] that says how the
	// handler failed, or with another error if nobody waited for an answer any more. Both are
	// called with the gate locked and must not block.
	Begin func() (end func(error))
}

// A Gate is a Handler that passes requests on when it is their turn. It owns no goroutine:
// whoever leaves lets the next one in.
type Gate struct {
	// Choose says where a request goes now. It is asked when one comes, and again when it
	// might run; its error is the answer. It is called with the gate locked and must not
	// block.
	Choose func(*infer.Request) (Place, error)
	Active int // requests that run at once in all places together; 0 is as many as those have slots
	Depth  int // requests of one caller that may wait
	Total  int // requests that may wait in all; a user may have half of them, or Depth

	mu      sync.Mutex // guards the fields below
	closed  bool
	running int
	waiting sched.Queue[*ticket]
	places  map[string]*Usage
	callers map[infer.Caller]*Caller
	seen    uint64 // requests, roughly

	once   sync.Once // makes queued
	queued quota.Quota
}

var _ infer.Handler = (*Gate)(nil)

// A ticket is a request at the gate. Its channel is closed when the wait is over.
type ticket struct {
	req   *infer.Request
	turn  chan struct{} // nil if it did not have to wait
	entry *sched.Entry[*ticket]

	over  bool // it has been let in or refused
	place Place
	end   func(error) // what place.Begin has returned
	err   error       // why it is refused
}

// errClosed is told to those who come, or still wait, once the gate is closed.
var errClosed = infer.Errorf(infer.Unavailable, "admission closed")

// Handle passes req on when it is its turn. It refuses with [infer.Busy] at once if too
// many wait already, and with [infer.Unavailable] once the gate is closed.
func (g *Gate) Handle(ctx context.Context, req *infer.Request, emit infer.Sink) error {
	t, err := g.enter(req)
	if err != nil {
		return err
	}
	if t.turn != nil {
		came := time.Now()
		select {
		case <-t.turn:
			req.Queued = time.Since(came)
		case <-ctx.Done():
			g.withdraw(t)
			return context.Cause(ctx)
		}
		if t.err != nil {
			return t.err
		}
	}
	req.Admitted = true
	// The slot is free before the last message goes out: who has read that may ask again
	// at once.
	left := false
	leave := func(in, out int, why error) {
		if !left {
			left = true
			g.leave(t, in, out, why)
		}
	}
	why := errNoEnd // unless it is known better; so it is after a panic
	defer func() { leave(0, 0, why) }()
	var lost error // of the way to the client
	err = t.place.Handler.Handle(ctx, req, func(ev infer.Event) error {
		if done, ok := ev.(*infer.Done); ok {
			leave(done.In, done.Out, nil)
		}
		err := emit(ev)
		if err != nil && lost == nil {
			lost = err
		}
		return err
	})
	switch _, told := errors.AsType[*infer.Error](cmp.Or(lost, err)); {
	case ctx.Err() != nil:
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

// Close refuses everybody who waits, and everybody who comes from now on. Those who
// run may finish.
func (g *Gate) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	for {
		t, ok := g.waiting.Pop(func(*ticket) bool { return true })
		if !ok {
			return
		}
		g.waiting.Done(flowOf(t.req))
		g.refuseLocked(t, errClosed)
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
	t := &ticket{req: req, place: place}
	t.entry = g.waiting.Push(flowOf(req), cost(req.Task), t)
	g.admitLocked()
	switch {
	case t.over && t.err != nil:
		return nil, t.err
	case t.over:
		return t, nil
	case !g.queued.Take(req.Peer.Caller(), 1):
		g.waiting.Remove(t.entry)
		g.callerLocked(req).Refused++
		return nil, infer.Errorf(infer.Busy, "queue full")
	}
	t.turn = make(chan struct{})
	g.callerLocked(req).Waiting++
	g.placeLocked(place.Name).Waiting++
	return t, nil
}

// admitLocked lets in whoever can be, in fair order.
func (g *Gate) admitLocked() {
	for {
		t, ok := g.waiting.Pop(g.fitsLocked)
		if !ok {
			return
		}
		if t.err != nil {
			g.waiting.Done(flowOf(t.req))
			g.refuseLocked(t, t.err)
			continue
		}
		g.endWaitLocked(t)
		g.running++
		if t.place.Begin != nil {
			t.end = t.place.Begin()
		}
		g.callerLocked(t.req).Running++
		g.placeLocked(t.place.Name).Running++
	}
}

// fitsLocked reports whether t may leave the queue: to run, or because it cannot.
func (g *Gate) fitsLocked(t *ticket) bool {
	place, err := g.Choose(t.req)
	if err != nil {
		t.err = err
		return true
	}
	if g.Active > 0 && g.running >= g.Active || g.placeLocked(place.Name).Running >= max(place.Slots, 1) {
		return false
	}
	if t.turn != nil && place.Name != t.place.Name {
		g.placeLocked(t.place.Name).Waiting--
		g.placeLocked(place.Name).Waiting++
	}
	t.place = place
	return true
}

// refuseLocked answers somebody who has been taken out of the queue.
func (g *Gate) refuseLocked(t *ticket, err error) {
	t.err = err
	g.endWaitLocked(t)
}

// endWaitLocked tells a ticket that its wait is over.
func (g *Gate) endWaitLocked(t *ticket) {
	t.over = true
	if t.turn == nil {
		return // it has not begun to
	}
	g.queued.Give(t.req.Peer.Caller(), 1)
	g.callerLocked(t.req).Waiting--
	g.placeLocked(t.place.Name).Waiting--
	close(t.turn)
}

// withdraw is the end of a request whose client has gone while it waited.
func (g *Gate) withdraw(t *ticket) {
	g.mu.Lock()
	if !t.over {
		g.waiting.Remove(t.entry)
		g.endWaitLocked(t)
		g.mu.Unlock()
		return
	}
	g.mu.Unlock()
	if t.err == nil { // its turn had just come
		g.leave(t, 0, 0, errGone)
	}
}

// leave ends a request that ran, and lets the next one in. The error says why it was not
// answered to the end.
func (g *Gate) leave(t *ticket, in, out int, why error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t.end != nil {
		t.end(why)
	}
	g.running--
	g.waiting.Done(flowOf(t.req))
	for _, c := range []*Counts{&g.callerLocked(t.req).Counts, &g.placeLocked(t.place.Name).Counts} {
		c.Running--
		c.Requests++
		c.In += int64(in)
		c.Out += int64(out)
	}
	g.admitLocked()
}

func flowOf(req *infer.Request) sched.Flow {
	return sched.Flow{
		Background: req.Background, User: req.Peer.User, Program: req.Peer.Program, Client: req.Client,
	}
}
