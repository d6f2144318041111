package engine

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/inferd-go/inferd/client/stats"
	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/link"
	"github.com/inferd-go/inferd/internal/status"
	"github.com/inferd-go/inferd/internal/watchdog"
)

// DefaultLoadTimeout bounds the time of a load without progress.
const DefaultLoadTimeout = 30 * time.Second

// A Child is an engine process that has been started.
type Child interface {
	// Conn is the daemon's end of the link to it.
	Conn() net.Conn
	// Kill ends the process at once, even if a signal has stopped it. It may be called at any time.
	Kill()
	// PID is its process id.
	PID() int
	// Wait returns when the process has ended.
	Wait() Exit
}

// An Exit describes how an engine process ended.
type Exit struct {
	Reason string // for an operator: "killed by SIGKILL"
	Final  bool   // the next start would end the same way
	Output string // the last part of its output; may be empty
	// Illegal is true if an illegal instruction ended it.
	Illegal bool
	// Changed is true if a file of its model was changed while it ran: the end is not its fault.
	Changed bool
}

// A Guarded is a [Child] with model files that are watched. The supervisor kills the engine when
// one of them changes; Wait then lets blocked writers of the files proceed.
type Guarded interface {
	// Changed returns a channel that is closed when a file has changed or is about to change. Nil means
	// that no change will be reported.
	Changed() <-chan struct{}
}

// A Supervisor is a Handler that answers with an engine process while [Supervisor.Run] runs.
type Supervisor struct {
	Name string // of the entry, for messages
	// Launch starts an engine. It passes the phases that precede the engine's own reports to phase. An
	// error means that the next start would fail the same way, unless [proc.OutOfResources] holds.
	Launch func(ctx context.Context, phase func(status.Phase)) (Child, error)
	// LoadTimeout bounds the time between two reports of a load, and the wait of a request for a
	// new engine. 0 means DefaultLoadTimeout.
	LoadTimeout time.Duration
	// Publish receives the phases of loading and restarting, and changes of the engine's liveness. It
	// is called from several goroutines.
	Publish func(status.Event)
	// Threads is the number of threads that compute a step; 0 means 1. The watchdog derives the wall
	// time of a step from it.
	Threads int
	// Avoid is called when an illegal instruction has ended an engine before it was ready, with the
	// CPU variant that it reported last. True means that later launches exclude the variant; the
	// death then does not count. Avoid must not return true twice for a variant. If it is nil, no
	// variant is avoided.
	Avoid func(ctx context.Context, variant string) bool
	// OnReady is called with the ready report of every engine. It must not be nil.
	OnReady func(context.Context, link.Report)
	Log     *slog.Logger

	mu      sync.Mutex // guards the fields below
	state   backend.State
	client  *link.Client  // while Ready
	reason  string        // while Down: why
	changed chan struct{} // closed when state changes; nil if no request waits for that
	served  bool          // an engine has been ready
	pid     int           // of the engine that loads or is ready, else 0
	starts  starts
	report  link.Report   // of the last engine that became ready
	retired *link.Client  // of an engine that gets no more requests; nil if there is none
	retry   chan struct{} // while Down: closed by Retry

	verdict  *verdict         // on the last engine that the watchdog killed
	kills    int              // by the watchdog
	lastKill string           // reason and time of the last kill; empty if there was none
	silence  watchdog.Silence // as last published
}

var _ infer.Handler = (*Supervisor)(nil)

func (s *Supervisor) loadTimeout() time.Duration {
	if s.LoadTimeout <= 0 {
		return DefaultLoadTimeout
	}
	return s.LoadTimeout
}

// State returns the engine's state, and while it is Down the reason.
func (s *Supervisor) State() (state backend.State, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, s.reason
}

// LastReport returns the ready report of the last engine that became ready, or the zero Report.
func (s *Supervisor) LastReport() link.Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.report
}

// Abilities returns the abilities of the last engine that became ready; known is false if none did.
func (s *Supervisor) Abilities() (can infer.Abilities, known bool) {
	r := s.LastReport()
	return r.Abilities, r.State == link.Ready
}

// A Status is the state of an engine, and its history.
type Status struct {
	State        backend.State
	PID          int    // of the engine; 0 while there is none
	Restarts     int    // since Run was called
	RestartsHour int    // restarts within the last hour
	WedgedKills  int    // engines that the watchdog killed
	LastKill     string // reason and time of the last kill; empty if there was none
}

// Status returns the current state and the counters.
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

// describe fills in the state and the history of the engine, and its own statistics. A ready engine
// that does not answer before ctx ends is marked as silent.
func (s *Supervisor) describe(ctx context.Context, into *stats.Backend) {
	now, report := s.Status(), s.LastReport()
	into.Model, into.Device, into.NCtx, into.CPUVariant = report.Model, report.Device, report.NCtx, report.Variant
	if report.Exact || report.Inexact != "" {
		into.Exact, into.Inexact = &report.Exact, report.Inexact
	}
	into.PID, into.Restarts, into.RestartsHour = now.PID, now.Restarts, now.RestartsHour
	into.WedgedKills, into.LastKill = now.WedgedKills, now.LastKill
	own, err := s.Stats(ctx)
	switch {
	case err == nil:
		into.Engine = own
	case now.State == backend.Ready && ctx.Err() != nil:
		into.Silent = true
	}
}

// becomeReady records the ready report of an engine. Unless the engine was retired, it gets requests
// from now on.
func (s *Supervisor) becomeReady(ctx context.Context, client *link.Client, r link.Report) {
	s.mu.Lock()
	s.served, s.report = true, r
	if s.retired != client {
		s.setLocked(backend.Ready, client, "")
	}
	s.mu.Unlock()
	s.setSilence(ctx, watchdog.Responding)
	s.OnReady(ctx, r)
}

func (s *Supervisor) set(state backend.State, client *link.Client, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setLocked(state, client, reason)
}

// setLocked changes the state and wakes the requests that wait for a change. No other code changes
// the state.
func (s *Supervisor) setLocked(state backend.State, client *link.Client, reason string) {
	s.state, s.client, s.reason = state, client, reason
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// retire keeps new requests from an engine, which may not be ready yet.
func (s *Supervisor) retire(client *link.Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retired = client
	if s.client == client {
		s.setLocked(backend.Loading, nil, "")
	}
}

func (s *Supervisor) hasServed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.served
}

// giveUp sets the state to Down and waits for a call of Retry. It returns false if ctx ends first.
func (s *Supervisor) giveUp(ctx context.Context, reason string) bool {
	retry := make(chan struct{})
	s.mu.Lock()
	s.retry = retry
	s.mu.Unlock()
	s.set(backend.Down, nil, reason)
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
	if s.state != backend.Down || s.retry == nil {
		return infer.Errorf(infer.Invalid, "invalid request: backend %q has not been given up", s.Name)
	}
	close(s.retry)
	s.retry = nil
	s.setLocked(backend.Loading, nil, "") // before the restart, so that the next request waits for the new engine
	return nil
}
