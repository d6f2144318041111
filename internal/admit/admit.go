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

// A Place is where a request goes.
type Place struct {
	Name    string
	Kind    string // of backend, as [infer.Done] says it
	Slots   int    // requests that run there at once; less than 1 means 1
	Handler infer.Handler
	// Parks says that the handler obeys [infer.Request.Pause]: a request that runs there can be
	// preempted, so that another one has its slot, and resume later.
	Parks bool
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

// admitted says in the request that it has been let in, and where.
func (t *ticket) admitted() {
	t.req.Admitted, t.req.Entry, t.req.By = true, t.place.Name, t.place.Kind
	if t.place.Model != nil {
		t.req.Model = t.place.Model()
	}
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

// Handle passes req on when it is its turn. It refuses with [infer.Busy] at once if too
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
	t.admitted()
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
		t.req.Queued = time.Since(came)
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
		case *infer.Thinking, *infer.ToolCall:
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

// charger returns a function that adds text with add, and settles after each quantum. It is
// used by one goroutine at a time.
func (g *Gate) charger(add func(tokens, cost int)) func(tokens, cost int) {
	fresh := 0
	return func(tokens, cost int) {
		add(tokens, cost)
		if fresh += tokens + cost; fresh >= sched.Quantum {
			fresh = 0
			g.settle()
		}
	}
}

// settle charges the running requests for what they have used, and lets in the next.
func (g *Gate) settle() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.settleLocked()
	g.admitLocked()
}

func (g *Gate) settleLocked() {
	now := time.Now()
	for _, t := range g.running {
		g.chargeLocked(t, now)
	}
}

// chargeLocked charges a request for the tokens it has written and the cost of sampling.
func (g *Gate) chargeLocked(t *ticket, now time.Time) {
	written, cost := t.written()
	used := written + cost
	if used == t.charged {
		return
	}
	g.writtenLocked(t, now, written)
	t.charged = used
	g.queue.Charge(t.entry, t.prompt+int(used))
}

// writtenLocked notes how many tokens t has written in all.
func (g *Gate) writtenLocked(t *ticket, now time.Time, written int64) {
	n := float64(written - t.counted)
	if n == 0 {
		return
	}
	t.counted = written
	t.caller.written.add(now, n)
	g.placeLocked(t.place.Name).written.add(now, n)
}

// admitLocked lets in all requests that have room, in fair order.
func (g *Gate) admitLocked() {
	for {
		e := g.queue.Pop(g.fitsLocked)
		switch {
		case e == nil && !g.rotateLocked():
			return
		case e == nil:
		case e.Item.err != nil:
			g.refuseLocked(e.Item, e.Item.err)
		default:
			g.runLocked(e.Item)
		}
	}
}

// rotateLocked preempts a running request in favour of one whose turn it is.
func (g *Gate) rotateLocked() bool {
	if g.queue.Len() == 0 || !slices.ContainsFunc(g.running, func(t *ticket) bool { return t.place.Parks }) {
		return false
	}
	for e := range g.queue.Heads(func(t *ticket) string { return t.place.Name }) {
		if e.Item.state != parked && g.crowdsLocked(e.Item) {
			continue
		}
		victim := g.queue.Victim(e, g.rivalsLocked(e.Item))
		if victim == nil {
			continue
		}
		g.parkLocked(victim.Item)
		g.queue.Start(e)
		g.runLocked(e.Item)
		return true
	}
	return false
}

// rivalsLocked returns the running requests whose slot t could have.
func (g *Gate) rivalsLocked(t *ticket) (all []*sched.Job[*ticket]) {
	full := g.fullLocked(t.place)
	for _, r := range g.running {
		if r.place.Parks && (!full || r.place.Name == t.place.Name) {
			all = append(all, r.entry)
		}
	}
	return all
}

// crowdsLocked reports whether a caller or its user has so many parked and stalled requests
// that a new one must not preempt another. Otherwise a caller could bypass its queue limit
// by posing as many clients or programs, and every request that has begun takes room in an
// engine.
func (g *Gate) crowdsLocked(t *ticket) bool {
	most := max(g.Depth, t.place.Slots)
	return t.caller.Parked+t.caller.Stalled >= most || g.begun[t.req.Peer.User] >= max(most, g.Total/2)
}

func (g *Gate) fullLocked(p Place) bool {
	return g.placeLocked(p.Name).Running >= max(p.Slots, 1)
}

// fitsLocked reports whether t may leave the queue: to run, or to be refused. A parked request
// stays at the place where it began.
func (g *Gate) fitsLocked(t *ticket) bool {
	if t.state == parked {
		return g.roomLocked(t.place)
	}
	place, err := g.Choose(t.req)
	if err != nil {
		t.err = err
		return true
	}
	if place.Name != t.place.Name {
		g.placeLocked(t.place.Name).count(t.state, -1)
		g.placeLocked(place.Name).count(t.state, 1)
	}
	t.place = place
	return g.roomLocked(place)
}

func (g *Gate) roomLocked(p Place) bool {
	return !g.fullLocked(p) && (g.Active <= 0 || len(g.running) < g.Active)
}

// setLocked is the one place where the state of a request changes, and all counts with it.
func (g *Gate) setLocked(t *ticket, s state) {
	for _, c := range g.countsLocked(t) {
		c.count(t.state, -1)
		c.count(s, 1)
	}
	idle := func(s state) bool { return s == parked || s == stalled }
	user := t.req.Peer.User
	if idle(t.state) {
		if g.begun[user]--; g.begun[user] == 0 {
			delete(g.begun, user)
		}
	}
	if idle(s) {
		if g.begun == nil {
			g.begun = make(map[string]int)
		}
		g.begun[user]++
	}
	if t.state == running {
		i := slices.Index(g.running, t)
		g.running = slices.Delete(g.running, i, i+1)
	}
	if s == running {
		g.running = append(g.running, t)
	}
	if t.state == waiting {
		g.queued.Release(t.req.Peer.Caller(), 1)
	}
	if t.state == stalled {
		g.queued.Release(t.req.Peer.Caller(), 1)
		if g.Memory != nil {
			g.Memory.Release(t.req.Peer.Caller(), infer.MaxUntaken)
		}
	}
	t.state = s
}

// runLocked has t run, which the queue has released: it begins, or resumes.
func (g *Gate) runLocked(t *ticket) {
	begins := t.state != parked
	g.setLocked(t, running)
	if !begins {
		t.req.Pause.Preempted.Set(false)
		return
	}
	if t.place.Begin != nil {
		t.end = t.place.Begin()
	}
	t.endWait()
}

// parkLocked has a running request wait again.
func (g *Gate) parkLocked(t *ticket) {
	g.queue.Preempt(t.entry)
	g.setLocked(t, parked)
	t.req.Pause.Preempted.Set(true)
}

// stall takes a request that has begun out of the running while its client does not read,
// and parks it when the client reads again. Meanwhile it takes a place in its caller's queue
// and memory for its text; without room for either it ends.
func (g *Gate) stall(t *ticket, on bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case t.state == ended || (t.state == stalled) == on:
	case !on:
		g.queue.Resume(t.entry)
		g.setLocked(t, parked)
		g.admitLocked()
	case !g.roomToStallLocked(t):
		t.cancel(errUnread)
		g.leaveLocked(t, nil, errGone)
	default:
		g.chargeLocked(t, time.Now())
		g.queue.Suspend(t.entry)
		g.setLocked(t, stalled)
		t.req.Pause.Preempted.Set(true) // until it has a slot again
		g.admitLocked()
	}
}

// roomToStallLocked takes what a stalled request holds, see setLocked, or reports false.
func (g *Gate) roomToStallLocked(t *ticket) bool {
	caller := t.req.Peer.Caller()
	if !g.queued.TryAcquire(caller, 1) {
		return false
	}
	if g.Memory != nil && !g.Memory.TryAcquire(caller, infer.MaxUntaken) {
		g.queued.Release(caller, 1)
		return false
	}
	return true
}

// refuseLocked answers a request that has not begun.
func (g *Gate) refuseLocked(t *ticket, err error) {
	t.err = err
	g.queue.Done(t.entry, 0)
	g.setLocked(t, ended)
	t.endWait()
}

// endWait tells a ticket that its wait is over.
func (t *ticket) endWait() {
	if t.turn != nil {
		close(t.turn)
	}
}

// withdraw is the end of a request that is not to wait any longer.
func (g *Gate) withdraw(t *ticket) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case !t.over():
		g.queue.Done(t.entry, 0)
		g.setLocked(t, ended)
	case t.err == nil: // its turn had just come
		t.admitted()
		g.leaveLocked(t, nil, errGone)
	}
}

// leave ends a request that has begun, unless that has happened, and lets the next one in. If
// it was not answered to the end, done is nil, and the error says why.
func (g *Gate) leave(t *ticket, done *infer.Done, why error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t.state != ended {
		g.leaveLocked(t, done, why)
	}
}

func (g *Gate) leaveLocked(t *ticket, done *infer.Done, why error) {
	if t.end != nil {
		t.end(why)
	}
	g.settleLocked()
	written, cost := t.written()
	used := t.prompt + int(written+cost)
	if done == nil {
		done = &infer.Done{}
	} else {
		written = max(written, int64(done.Out))
		used = done.In - done.Cached + done.Out + int(cost)
	}
	g.writtenLocked(t, time.Now(), written)
	g.setLocked(t, ended)
	g.queue.Done(t.entry, max(used, 1)) // nothing is free, or a flow that asks for nothing would always be first
	for _, c := range g.countsLocked(t) {
		c.Requests++
		c.In += int64(done.In)
		c.Cached += int64(done.Cached)
		c.Out += int64(done.Out)
	}
	g.admitLocked()
}

func flowOf(req *infer.Request) sched.Path {
	return sched.Path{
		Background: req.Background, User: req.Peer.User, Program: req.Peer.Program, Client: req.Client,
	}
}
