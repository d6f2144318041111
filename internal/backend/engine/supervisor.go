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
	// Kill ends it at once, even if it is stopped. It may be called at any time.
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
	// Illegal reports that an illegal instruction ended it.
	Illegal bool
	// Changed says that its model's file was changed under it: the end is not the engine's fault.
	Changed bool
}

// A Guarded is a [Child] whose model's files are watched. It is stopped when they change; its Wait
// then gives the writers way.
type Guarded interface {
	// Changed is closed when a file has changed, or is about to; nil: never.
	Changed() <-chan struct{}
}

// A Supervisor is a Handler that answers with an engine process. [Supervisor.Run]
// must be running.
type Supervisor struct {
	Name string // of the entry, for messages
	// Launch starts an engine. The phases before the engine itself can report go to
	// phase. An error means that the next start would fail the same way.
	Launch func(ctx context.Context, phase func(status.Phase)) (Child, error)
	// LoadTimeout bounds the time between two reports of a load, and the wait of a request for a
	// new engine. 0 means DefaultLoadTimeout.
	LoadTimeout time.Duration
	// Publish receives the phases of loading and restarting, and the changes of the
	// engine's liveness. It is called from several goroutines.
	Publish func(status.Event)
	// Threads is the number of threads that compute a step; 0 means 1. The watchdog derives the wall
	// time of a step from it.
	Threads int
	// Avoid is called when an illegal instruction has ended an engine before it was ready, with the
	// CPU variant that it reported last. True means that later launches exclude the variant; the
	// death then does not count. Avoid must not return true twice for a variant. If it is nil, no
	// variant is avoided.
	Avoid func(ctx context.Context, variant string) bool
	// OnReady is called with the report of every engine that becomes ready.
	OnReady func(context.Context, link.Report)
	Log     *slog.Logger

	mu      sync.Mutex // guards the fields below
	state   backend.State
	client  *link.Client  // while Ready
	reason  string        // while Down: why
	changed chan struct{} // closed when state changes; nil if no request waits for that
	served  bool          // has been ready once
	pid     int           // of the engine that loads or is ready
	starts  starts
	report  link.Report   // of the last engine that became ready
	retired *link.Client  // of an engine that gets no more requests; nil if there is none
	retry   chan struct{} // while Down: closed by Retry

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

// State returns the engine's state, and while it is Down the reason.
func (s *Supervisor) State() (state backend.State, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, s.reason
}

// LastReport is the report of the last engine that became ready; the zero Report if none
// did.
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

// describe fills in the state and the history of the engine, and its own statistics. An engine that
// is ready and does not answer until ctx ends is silent.
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

// setLocked is the one place where the state changes.
func (s *Supervisor) setLocked(state backend.State, client *link.Client, reason string) {
	s.state, s.client, s.reason = state, client, reason
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// retire hands no more requests to an engine, which may not be ready yet.
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

// giveUp waits until Retry is called. It reports false if ctx ends first.
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
	s.setLocked(backend.Loading, nil, "") // at once: the next request waits for the new engine
	return nil
}
