package exchange

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inferd-go/inferd/internal/infer"
)

// A Runner runs exchanges with one handler until it is stopped. A stopped runner cannot be used
// again.
type Runner struct {
	Handler infer.Handler
	Log     *slog.Logger
	// Journal records the outcome of every request; nil records nothing.
	Journal Journal
	// Grace is the time after Drain in which running requests may finish; 0 ends them at once.
	Grace time.Duration

	draining atomic.Bool // state is not open; read without mu

	mu      sync.Mutex // guards the fields below
	state   state
	running map[*exchange]struct{}
	grace   *time.Timer   // ends the grace; nil unless draining
	closed  chan struct{} // see Closed; nil before its first use
	rounds  rounds
}

// A state is a stage of the shutdown.
//
//	open ──Drain──▶ draining ──no request runs, or the grace is over──▶ stopped
//
// While the runner drains, requests may still begin: the gate in front of the engines refuses them.
// When the runner stops, running requests are canceled, and later requests are refused.
type state int

const (
	open state = iota
	draining
	stopped
)

// Drain begins to stop the runner, and returns at once. Further calls change nothing.
func (r *Runner) Drain() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state != open {
		return
	}
	r.state = draining
	r.draining.Store(true)
	if len(r.running) == 0 || r.Grace <= 0 {
		r.stopLocked()
		return
	}
	r.grace = time.AfterFunc(r.Grace, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.stopLocked()
	})
}

// Draining reports whether the runner is draining or stopped. If so, a connection must not read
// another request.
func (r *Runner) Draining() bool { return r.draining.Load() }

// Closed returns a channel that is closed when the runner stops. Running requests are canceled
// then, and no request can begin.
func (r *Runner) Closed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closedLocked()
}

func (r *Runner) closedLocked() chan struct{} {
	if r.closed == nil {
		r.closed = make(chan struct{})
	}
	return r.closed
}

// enter adds x to the running requests, until leave. It reports false if the runner has stopped.
func (r *Runner) enter(x *exchange) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state == stopped {
		return false
	}
	if r.running == nil {
		r.running = make(map[*exchange]struct{})
	}
	r.running[x] = struct{}{}
	return true
}

func (r *Runner) leave(x *exchange) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.running, x)
	if len(r.running) == 0 && r.state == draining {
		r.stopLocked()
	}
}

// stopLocked cancels the running requests, and closes the channel of Closed. It does nothing if the
// runner has stopped already.
func (r *Runner) stopLocked() {
	if r.state == stopped {
		return
	}
	r.state = stopped
	if r.grace != nil {
		r.grace.Stop()
	}
	for x := range r.running {
		x.cancel(errStopping)
	}
	close(r.closedLocked())
}
