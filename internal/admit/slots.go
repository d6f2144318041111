package admit

import (
	"slices"
	"time"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/sched"
)

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
	for e := range g.queue.Heads(kindOf) {
		if e.Item.place.NoPreempt || e.Item.state != parked && g.crowdsLocked(e.Item) {
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

// kindOf names the requests of a flow that keep their order when one preempts another: those of a
// place. A request that does not preempt holds up none that does.
func kindOf(t *ticket) string {
	if t.place.NoPreempt {
		return t.place.Name + " without preemption"
	}
	return t.place.Name
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
