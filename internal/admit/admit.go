// Package admit is the one gate in front of the slots of all entries, for all surfaces:
// so many requests run, so many more may wait, the rest are refused at once. Who waits is
// served fairly, by who asks as the kernel says (see package sched) and by what the answers
// really cost, while they are written: where an entry can pause an answer, somebody else may
// have its slot for a while. The gate does not know what an entry is made of, nor how a
// request is answered.
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
	// handler failed, or with another error if nobody waited for an answer any more. Both are
	// called with the gate locked and must not block.
	Begin func() (end func(error))
}

// A Gate is a Handler that passes requests on when it is their turn. It owns no goroutine:
// whoever comes, leaves, or has written a while lets the next one in.
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
	queue   sched.Queue[*ticket]
	running []*ticket
	parked  map[string]int // by user
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
	entry  *sched.Entry[*ticket]
	caller *Caller
	prompt int          // tokens, estimated
	tokens atomic.Int64 // that have been written

	over    bool // it has been let in or refused
	place   Place
	end     func(error) // what place.Begin has returned
	err     error       // why it is refused
	counted int64       // of tokens, those that have been accounted for
}

// admitted says in the request that it has been let in, and where.
func (t *ticket) admitted() {
	t.req.Admitted, t.req.Entry, t.req.By = true, t.place.Name, t.place.Kind
	if t.place.Model != nil {
		t.req.Model = t.place.Model()
	}
}

// errClosed is told to those who come, or still wait, once the gate is closed.
var errClosed = infer.Errorf(infer.Unavailable, "admission closed")

// Why a request with a deadline is refused.
var (
	errLate    = infer.Errorf(infer.Busy, "queue full: the deadline passed while the request waited")
	errTooLate = infer.Errorf(infer.Busy, "queue full: the deadline passed before the answer was there")
)

// lateness is what an answer whose deadline has passed may take to end by itself.
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

// wait returns nil when t has been let in.
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

// serve has t answered, which has been let in.
func (g *Gate) serve(ctx context.Context, t *ticket, emit infer.Sink) error {
	client := ctx
	if at := t.req.Deadline; !at.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, at.Add(lateness), errTooLate)
		defer cancel()
	}
	// The slot is free before the last message goes out: who has read that may ask again
	// at once.
	left := false
	leave := func(done *infer.Done, why error) {
		if !left {
			left = true
			g.leave(t, done, why)
		}
	}
	why := errNoEnd // unless it is known better; so it is after a panic
	defer func() { leave(nil, why) }()
	var lost error // of the way to the client
	fresh := 0     // tokens since the gate has looked
	err := t.place.Handler.Handle(ctx, t.req, func(ev infer.Event) error {
		switch ev := ev.(type) {
		case *infer.Text:
			t.tokens.Add(int64(ev.Tokens))
			if fresh += ev.Tokens; fresh >= sched.Quantum && t.place.Parks {
				fresh = 0
				g.settle()
			}
		case *infer.Done:
			leave(ev, nil)
		case *infer.Thinking, *infer.ToolCall, *infer.Vectors, *infer.Scores:
		}
		err := emit(ev)
		if err != nil && lost == nil {
			lost = err
		}
		return err
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

// Close refuses everybody who waits to begin, and everybody who comes from now on. Those who
// have begun may finish, and those of them who are parked go on when there is room.
func (g *Gate) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	for _, e := range slices.Collect(g.queue.Waiting()) {
		if !e.Parked() {
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
	case t.over && t.err != nil:
		return nil, t.err
	case t.over:
		return t, nil
	case !g.queued.Take(req.Peer.Caller(), 1):
		g.queue.Done(t.entry, 0)
		t.caller.Refused++
		return nil, infer.Errorf(infer.Busy, "queue full")
	}
	t.turn = make(chan struct{})
	for _, c := range g.countsLocked(t) {
		c.Waiting++
	}
	return t, nil
}

// settle charges those who run for what they have written, and looks whose turn it is.
func (g *Gate) settle() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.settleLocked()
	g.admitLocked()
}

func (g *Gate) settleLocked() {
	now := time.Now()
	for _, t := range g.running {
		written := t.tokens.Load()
		if written == t.counted {
			continue
		}
		g.writtenLocked(t, now, written)
		g.queue.Charge(t.entry, t.prompt+int(written))
	}
}

// writtenLocked notes how many tokens t has written in all.
func (g *Gate) writtenLocked(t *ticket, now time.Time, written int64) {
	n := float64(written - t.counted)
	t.counted = written
	t.caller.written.add(now, n)
	g.placeLocked(t.place.Name).written.add(now, n)
}

// admitLocked lets in whoever can be, in fair order.
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

// rotateLocked lets somebody in whose turn it is, in the place of somebody who runs.
func (g *Gate) rotateLocked() bool {
	if g.queue.Len() == 0 || !slices.ContainsFunc(g.running, func(t *ticket) bool { return t.place.Parks }) {
		return false
	}
	for e := range g.queue.Heads(func(t *ticket) string { return t.place.Name }) {
		if !e.Parked() && g.crowdsLocked(e.Item) {
			continue
		}
		victim := g.queue.Victim(e, g.rivalsLocked(e.Item))
		if victim == nil {
			continue
		}
		g.parkLocked(victim.Item)
		g.queue.Take(e)
		g.runLocked(e.Item)
		return true
	}
	return false
}

// rivalsLocked are those who run and whose slot t could have.
func (g *Gate) rivalsLocked(t *ticket) (all []*sched.Entry[*ticket]) {
	full := g.fullLocked(t.place)
	for _, r := range g.running {
		if r.place.Parks && (!full || r.place.Name == t.place.Name) {
			all = append(all, r.entry)
		}
	}
	return all
}

// crowdsLocked reports whether so much of who asks is parked that nothing more of it begins in
// another one's place: else each of its clients, or programs, would get past the queue, and what
// has begun takes room in an engine.
func (g *Gate) crowdsLocked(t *ticket) bool {
	most := max(g.Depth, t.place.Slots)
	return t.caller.Parked >= most || g.parked[t.req.Peer.User] >= max(most, g.Total/2)
}

func (g *Gate) fullLocked(p Place) bool {
	return g.placeLocked(p.Name).Running >= max(p.Slots, 1)
}

// fitsLocked reports whether t may leave the queue: to run, or because it cannot. One that is
// parked belongs where it has begun.
func (g *Gate) fitsLocked(t *ticket) bool {
	if t.entry.Parked() {
		return g.roomLocked(t.place)
	}
	place, err := g.Choose(t.req)
	if err != nil {
		t.err = err
		return true
	}
	if t.turn != nil && place.Name != t.place.Name {
		g.placeLocked(t.place.Name).Waiting--
		g.placeLocked(place.Name).Waiting++
	}
	t.place = place
	return g.roomLocked(place)
}

func (g *Gate) roomLocked(p Place) bool {
	return !g.fullLocked(p) && (g.Active <= 0 || len(g.running) < g.Active)
}

// runLocked has t run, which has been taken out of the queue: it begins, or goes on.
func (g *Gate) runLocked(t *ticket) {
	g.running = append(g.running, t)
	for _, c := range g.countsLocked(t) {
		c.Running++
	}
	if t.over { // it was parked
		g.unparkedLocked(t)
		t.req.Pause.Preempted.Set(false)
		return
	}
	if t.place.Begin != nil {
		t.end = t.place.Begin()
	}
	g.endWaitLocked(t)
}

// parkLocked has t wait again, which runs.
func (g *Gate) parkLocked(t *ticket) {
	g.stopLocked(t)
	g.queue.Park(t.entry)
	for _, c := range g.countsLocked(t) {
		c.Waiting++
		c.Parked++
	}
	if g.parked == nil {
		g.parked = make(map[string]int)
	}
	g.parked[t.req.Peer.User]++
	t.req.Pause.Preempted.Set(true)
}

// unparkedLocked counts t no more among those who are parked.
func (g *Gate) unparkedLocked(t *ticket) {
	for _, c := range g.countsLocked(t) {
		c.Waiting--
		c.Parked--
	}
	if g.parked[t.req.Peer.User]--; g.parked[t.req.Peer.User] == 0 {
		delete(g.parked, t.req.Peer.User)
	}
}

// stopLocked takes t out of those who run.
func (g *Gate) stopLocked(t *ticket) {
	i := slices.Index(g.running, t)
	g.running = slices.Delete(g.running, i, i+1)
	for _, c := range g.countsLocked(t) {
		c.Running--
	}
}

// refuseLocked answers somebody who has not begun.
func (g *Gate) refuseLocked(t *ticket, err error) {
	t.err = err
	g.queue.Done(t.entry, 0)
	g.endWaitLocked(t)
}

// endWaitLocked tells a ticket that its wait is over.
func (g *Gate) endWaitLocked(t *ticket) {
	t.over = true
	if t.turn == nil {
		return // it has not begun to
	}
	g.queued.Give(t.req.Peer.Caller(), 1)
	for _, c := range g.countsLocked(t) {
		c.Waiting--
	}
	close(t.turn)
}

// withdraw is the end of a request that is not to wait any longer.
func (g *Gate) withdraw(t *ticket) {
	g.mu.Lock()
	if !t.over {
		g.queue.Done(t.entry, 0)
		g.endWaitLocked(t)
		g.mu.Unlock()
		return
	}
	g.mu.Unlock()
	if t.err == nil { // its turn had just come
		t.admitted()
		g.leave(t, nil, errGone)
	}
}

// leave ends a request that has begun, and lets the next one in. If it was not answered to the
// end, done is nil, and the error says why.
func (g *Gate) leave(t *ticket, done *infer.Done, why error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t.end != nil {
		t.end(why)
	}
	g.settleLocked()
	written := t.tokens.Load()
	used := t.prompt + int(written)
	if done == nil {
		done = &infer.Done{}
	} else {
		written = max(written, int64(done.Out))
		used = done.In - done.Cached + done.Out
	}
	g.writtenLocked(t, time.Now(), written)
	if t.entry.Parked() {
		g.unparkedLocked(t)
	} else {
		g.stopLocked(t)
	}
	g.queue.Done(t.entry, max(used, 1)) // nothing is free, or who asks for nothing would always be first
	for _, c := range g.countsLocked(t) {
		c.Requests++
		c.In += int64(done.In)
		c.Cached += int64(done.Cached)
		c.Out += int64(done.Out)
	}
	g.admitLocked()
}

func flowOf(req *infer.Request) sched.Flow {
	return sched.Flow{
		Background: req.Background, User: req.Peer.User, Program: req.Peer.Program, Client: req.Client,
	}
}
