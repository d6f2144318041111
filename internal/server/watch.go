package server

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inferd-go/inferd/internal/listen"
)

// A hang-up is noticed within 100 ms. The watch of a connection costs more than a short answer,
// so it begins only when a request has waited for at least short. One timer looks at all
// requests every lap: the watch begins after short + lap at the latest.
const (
	short = 20 * time.Millisecond
	lap   = 40 * time.Millisecond
)

// watched is the context of a request, which ends when the client hangs up. The client is
// watched only for a handler that asks for Done: no other waits for the end of its context, and
// the next write of an event tells it.
type watched struct {
	context.Context //nolint:containedctx // it is one

	srv    *Server
	nc     net.Conn
	cancel context.CancelCauseFunc
	asked  atomic.Bool // for Done

	// Guarded by Server.mu.
	since time.Time // Done was asked for
	over  bool      // the request has ended

	watch sync.WaitGroup
}

// Done returns the channel that is closed when the request is to end.
func (w *watched) Done() <-chan struct{} {
	if !w.asked.Load() && w.asked.CompareAndSwap(false, true) {
		w.srv.await(w)
	}
	return w.Context.Done()
}

// run cancels the request when its client hangs up. It returns when the request ends.
func (w *watched) run() {
	await := w.srv.AwaitHangUp
	if await == nil {
		await = listen.AwaitHangUp
	}
	if await(w.Context, w.nc) == nil {
		w.cancel(errHungUp)
	}
	// Else the request has ended, or the connection cannot tell: then a lost client
	// shows when an event cannot be written.
}

// end stops the watch of a request that has been canceled, and waits for it: it must not read
// the connection beside the codec.
func (w *watched) end() {
	w.srv.mu.Lock()
	w.over = true
	delete(w.srv.rounds.waiting, w)
	w.srv.mu.Unlock()
	w.watch.Wait()
}

// rounds look after the requests that wait and are not watched yet. Guarded by Server.mu.
type rounds struct {
	waiting map[*watched]struct{}
	timer   *time.Timer // nil before the first request that waits
	set     bool        // the timer is
	used    bool        // a request has come since the last round
}

// await has a request watched soon.
func (srv *Server) await(w *watched) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if w.over {
		return
	}
	r := &srv.rounds
	w.since, r.used = time.Now(), true
	if r.waiting == nil {
		r.waiting = make(map[*watched]struct{})
	}
	r.waiting[w] = struct{}{}
	switch {
	case r.set:
		return
	case r.timer == nil:
		r.timer = time.AfterFunc(lap, srv.round)
	default:
		r.timer.Reset(lap)
	}
	r.set = true
}

// round watches the requests that have waited for long enough. The timer stays set while
// requests come in a row: to set it costs more than a round with nothing to do, since it wakes
// a thread.
func (srv *Server) round() {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	r := &srv.rounds
	due := time.Now().Add(-short)
	for w := range r.waiting {
		if !w.since.After(due) {
			delete(r.waiting, w)
			w.watch.Go(w.run)
		}
	}
	r.set = r.used || len(r.waiting) > 0
	r.used = false
	if r.set {
		r.timer.Reset(lap)
	}
}
