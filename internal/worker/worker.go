// Package worker keeps one engine process running: it starts the process, observes its
// load, hands requests to it, replaces it when it dies, and gives up when restarts are
// hopeless. It knows neither how a process is started (see [Supervisor.Launch]) nor
// the protocol of its connection (see package link).
//
// The states of a [Supervisor] and what changes them:
//
//	Loading ──ready──▶ Ready ──death──▶ Loading       (at once, or after a pause)
//	   │ └──death, up to three in a row, or while a CPU variant is left to try──┘
//	   └──third death──▶ GivenUp ──Retry──▶ Loading
//
// Before the engine has been ready once, the third death ends Run with an error instead,
// and so does a start that the engine itself reports as hopeless.
package worker

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/inferd-go/inferd/client/stats"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/link"
	"github.com/inferd-go/inferd/internal/status"
	"github.com/inferd-go/inferd/internal/watchdog"
)

// DefaultLoadTimeout is how long an engine may load without a sign of progress.
const DefaultLoadTimeout = 30 * time.Second

// A Child is an engine process that has been started.
type Child interface {
	// Conn is the daemon's end of the link to it.
	Conn() net.Conn
	// Kill ends it at once, also while it is stopped. It may be called at any time.
	Kill()
	// PID is its process id.
	PID() int
	// Wait returns once it has ended.
	Wait() Exit
}

// An Exit is the end of an engine process.
type Exit struct {
	Reason string // for an operator: "killed by SIGKILL"
	Final  bool   // the next start would end the same way
	Output string // the end of its output; it may be empty
	// Illegal says that an illegal instruction ended it.
	Illegal bool
}

// State is the state of a supervisor's engine. The set is closed.
type State int

// States.
const (
	Loading State = iota // it is being started, or waits to be
	Ready                // it answers
	GivenUp              // it died too often while loading; only Retry starts it again
)

// A Supervisor is a Handler that answers with an engine process. [Supervisor.Run]
// must be running.
type Supervisor struct {
	Name string // of the entry, for messages
	// Launch starts an engine. The phases before the engine itself can report go to
	// phase. An error means that the next start would fail the same way.
	Launch func(ctx context.Context, phase func(status.Phase)) (Child, error)
	// LoadTimeout is how long a load may go on without a report, and how long a request
	// waits for a new engine. 0 means DefaultLoadTimeout.
	LoadTimeout time.Duration
	// Publish receives the phases of loading and restarting, and the changes of the
	// engine's liveness. It is called from several goroutines.
	Publish func(status.Event)
	// Threads is how many threads compute a step; 0 means 1. The watchdog derives the wall
	// time of a step from it.
	Threads int
	// Avoid is called when an illegal instruction has ended an engine before it was ready, with
	// the CPU variant that it reported last. True means that the next launch leaves that variant
	// out; the death then does not count. It must not be true twice for a variant. Nil avoids
	// none.
	Avoid func(ctx context.Context, variant string) bool
	// OnReady is called with the report of every engine that becomes ready.
	OnReady func(link.Report)
	Log     *slog.Logger

	mu      sync.Mutex // guards the fields below
	state   State
	client  *link.Client  // while Ready
	reason  string        // while GivenUp: why
	changed chan struct{} // closed when state changes; nil if no request waits for that
	served  bool          // has been ready once
	pid     int           // of the engine that loads or is ready
	starts  starts
	report  link.Report   // of the last engine that became ready
	retry   chan struct{} // while GivenUp: closed by Retry

	verdict  *verdict         // of the last engine that the watchdog killed
	kills    int              // by the watchdog
	lastKill string           // reason and time; empty if there was none
	silence  watchdog.Silence // as published last
}

var _ infer.Handler = (*Supervisor)(nil)

func (s *Supervisor) loadTimeout() time.Duration {
	if s.LoadTimeout <= 0 {
		return DefaultLoadTimeout
	}
	return s.LoadTimeout
}

// State returns the engine's state.
func (s *Supervisor) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// LastReport is the report of the last engine that became ready; the zero Report if none
// did.
func (s *Supervisor) LastReport() link.Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.report
}

// Abilities are those of the last engine that became ready; known is false if none did.
func (s *Supervisor) Abilities() (can infer.Abilities, known bool) {
	r := s.LastReport()
	return r.Abilities, r.State == link.Ready
}

// A Status is the state of an engine, and its history.
type Status struct {
	State        State
	PID          int    // of the engine; 0 while there is none
	Restarts     int    // since Run was called
	RestartsHour int    // of those, within the last hour
	WedgedKills  int    // engines that the watchdog killed
	LastKill     string // reason and time of the last of them; empty if there was none
}

// Status returns the present state and the counters.
func (s *Supervisor) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := Status{State: s.state, PID: s.pid, WedgedKills: s.kills, LastKill: s.lastKill}
	now.Restarts, now.RestartsHour = s.starts.restarts(time.Now())
	return now
}

// Stats returns the statistics of the engine. It fails with [infer.Unavailable] if none is
// ready, and with the cause of ctx if that ends before the engine answers.
func (s *Supervisor) Stats(ctx context.Context) (*stats.Engine, error) {
	s.mu.Lock()
	client := s.client
	s.mu.Unlock()
	if client == nil {
		return nil, infer.Errorf(infer.Unavailable, "backend not ready")
	}
	report, err := client.Stats(ctx)
	if errors.Is(err, link.ErrClosed) || errors.Is(err, link.ErrGone) {
		return nil, infer.Errorf(infer.Unavailable, "the engine of %q stopped", s.Name)
	}
	return report, err
}

// WasGivenUp reports whether the engine has been given up, and why.
func (s *Supervisor) WasGivenUp() (reason string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reason, s.state == GivenUp
}

func (s *Supervisor) becomeReady(ctx context.Context, client *link.Client, r link.Report) {
	s.mu.Lock()
	s.served, s.report = true, r
	s.setLocked(Ready, client, "")
	s.mu.Unlock()
	s.setSilence(ctx, watchdog.Responding)
	s.OnReady(r)
}

func (s *Supervisor) set(state State, client *link.Client, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setLocked(state, client, reason)
}

// setLocked is the one place where the state changes.
func (s *Supervisor) setLocked(state State, client *link.Client, reason string) {
	s.state, s.client, s.reason = state, client, reason
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

func (s *Supervisor) hasServed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.served
}

// giveUp waits until Retry is called. It reports false if ctx ends first.
func (s *Supervisor) giveUp(ctx context.Context, reason string) bool {
	retry := make(chan struct{})
	s.mu.Lock()
	s.retry = retry
	s.mu.Unlock()
	s.set(GivenUp, nil, reason)
	s.publish(status.GaveUp{Reason: reason})
	select {
	case <-retry:
		return true
	case <-ctx.Done():
		return false
	}
}

// Retry restarts an engine that was given up. It fails with [infer.Invalid] if it was not.
func (s *Supervisor) Retry() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != GivenUp || s.retry == nil {
		return infer.Errorf(infer.Invalid, "invalid request: backend %q has not been given up", s.Name)
	}
	close(s.retry)
	s.retry = nil
	s.setLocked(Loading, nil, "") // at once: the next request waits for the new engine
	return nil
}
