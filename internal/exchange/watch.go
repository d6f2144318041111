package exchange

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// A Watcher is a [Client] that can report a hang-up. If a client is not a Watcher, only the end of
// Run's context and a failed write show its hang-up.
type Watcher interface {
	// AwaitHangUp returns nil when the client has hung up, or an error when ctx ends or the
	// hang-up cannot be noticed. Nothing else reads from the client meanwhile.
	AwaitHangUp(ctx context.Context) error
}

// A hang-up is noticed within 100 ms. The watch of a client costs more than a short answer, so it
// begins only when the handler has waited for at least short. One timer checks all requests, once
// in a lap, so the watch begins after short + lap at the latest.
const (
	short = 20 * time.Millisecond
	lap   = 40 * time.Millisecond
)

// watched is the context of a request, which ends when the client hangs up. The client is watched
// only if the handler calls Done. A handler that never calls it does not wait for the end of its
// context; it gets an error when it emits the next event.
type watched struct {
	context.Context //nolint:containedctx // a watched is itself a context

	runner  *Runner
	watcher Watcher // nil if the client is not a Watcher
	cancel  context.CancelCauseFunc
	settled atomic.Bool // Done was called, or the request has ended

	// Guarded by Runner.mu.
	since time.Time // when Done was called
	over  bool      // the request has ended

	watch sync.WaitGroup
}

// Done returns a channel that is closed when the request must end. The first call starts the watch
// of the client.
func (w *watched) Done() <-chan struct{} {
	if w.watcher != nil && !w.settled.Load() && w.settled.CompareAndSwap(false, true) {
		w.runner.await(w)
	}
	return w.Context.Done()
}

// run cancels the request if its client hangs up. It returns at the latest when the request ends.
func (w *watched) run() {
	if w.watcher.AwaitHangUp(w.Context) == nil {
		w.cancel(errHungUp)
	}
	// Otherwise the request has ended, or the client cannot be watched: then a failed write of an
	// event shows the hang-up.
}

// end stops the watch of a request that has ended. It waits until the watch no longer reads from
// the connection, because the next request is read there.
func (w *watched) end() {
	if w.settled.CompareAndSwap(false, true) {
		return // the client is not watched, and will not be
	}
	w.runner.mu.Lock()
	w.over = true
	delete(w.runner.rounds.waiting, w)
	w.runner.mu.Unlock()
	w.watch.Wait()
}

// rounds holds the requests for which a watch is to begin, and the timer that begins it. Guarded by
// Runner.mu.
type rounds struct {
	waiting map[*watched]struct{} // requests for which no watch has begun
	timer   *time.Timer           // nil before the first request that waits
	set     bool                  // the timer is set
	used    bool                  // a request was added since the last round
}

// await begins the watch of w after 20 to 60 ms, unless the request ends before.
func (r *Runner) await(w *watched) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if w.over {
		return
	}
	rounds := &r.rounds
	w.since, rounds.used = time.Now(), true
	if rounds.waiting == nil {
		rounds.waiting = make(map[*watched]struct{})
	}
	rounds.waiting[w] = struct{}{}
	switch {
	case rounds.set:
		return
	case rounds.timer == nil:
		rounds.timer = time.AfterFunc(lap, r.round)
	default:
		rounds.timer.Reset(lap)
	}
	rounds.set = true
}

// round begins to watch the requests that have waited for at least short. It sets the timer again if
// some still wait, or if one was added since the last round: otherwise the next one would have to set
// it, which costs more than an empty round, because it wakes a thread.
func (r *Runner) round() {
	r.mu.Lock()
	defer r.mu.Unlock()
	rounds := &r.rounds
	due := time.Now().Add(-short)
	for w := range rounds.waiting {
		if !w.since.After(due) {
			delete(rounds.waiting, w)
			w.watch.Go(w.run)
		}
	}
	rounds.set = rounds.used || len(rounds.waiting) > 0
	rounds.used = false
	if rounds.set {
		rounds.timer.Reset(lap)
	}
}
