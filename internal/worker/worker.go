// Package worker keeps one engine process running: it starts it, watches it load,
// hands requests to it, replaces it when it dies, and gives up on it when there is
// no use. It knows neither how a process is started (see [Supervisor.Launch]) nor
// what is said to it (see package link).
//
// The states of a [Supervisor] and what changes them:
//
//	Loading ──ready──▶ Ready ──death──▶ Loading       (at once, or after a pause)
//	   │ └──death, up to three in a row, or while a CPU variant is left to try──┘
//	   └──third death──▶ GivenUp ──Retry──▶ Loading
//
// Before it has been ready once, what would be GivenUp ends Run with an error, and so
// does a start that the engine itself reports as hopeless.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/link"
	"github.com/inferd-go/inferd/internal/proc"
	"github.com/inferd-go/inferd/internal/status"
	"github.com/inferd-go/inferd/internal/watchdog"
)

// DefaultPatience is how long an engine may load without a sign of progress.
const DefaultPatience = 30 * time.Second

// A Child is an engine process that has been started.
type Child interface {
	// Conn is the daemon's end of the link to it.
	Conn() net.Conn
	// Kill ends it at once, also while it is stopped. It may be called at any time.
	Kill()
	// PID is its number.
	PID() int
	// Wait returns once it has gone.
	Wait() Exit
}

// An Exit is how an engine process ended.
type Exit struct {
	Reason string // for an operator: "killed by SIGKILL"
	Final  bool   // the next start would end the same way
	Output string // the end of its output; it may be empty
	// Illegal says that an illegal instruction ended it.
	Illegal bool
}

// State is what a supervisor's engine is doing. The set is closed.
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
	// Patience is how long a load may go on without a report, and how long a request
	// waits for a new engine. 0 means DefaultPatience.
	Patience time.Duration
	// Publish receives the phases of loading and restarting, and whether the engine is
	// silent. It is called from several goroutines.
	Publish func(status.Event)
	// Threads is how many threads compute a step; 0 means 1. The watchdog derives the wall
	// time of a step from it.
	Threads int
	// Avoid is called when an illegal instruction has ended an engine before it was ready, with
	// the CPU variant that it reported last. True means that the next launch leaves that variant
	// out; the death then does not count. It must not be true twice for a variant. Nil avoids
	// none.
	Avoid func(ctx context.Context, variant string) bool
	// OnReady is called whenever an engine has become ready, with what it reported.
	OnReady func(link.Report)
	Log     *slog.Logger

	mu      sync.Mutex // guards the fields below
	state   State
	client  *link.Client  // while Ready
	reason  string        // while GivenUp: why
	changed chan struct{} // closed when state changes; nil if nobody waits
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

func (s *Supervisor) patience() time.Duration {
	if s.Patience <= 0 {
		return DefaultPatience
	}
	return s.Patience
}

// State returns what the engine is doing.
func (s *Supervisor) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// LastReport is what the engine said of itself when it became ready, or the one before it;
// the zero Report if none ever was.
func (s *Supervisor) LastReport() link.Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.report
}

// A Life says how an engine lives.
type Life struct {
	State        State
	PID          int    // of the engine; 0 while there is none
	Restarts     int    // since Run was called
	RestartsHour int    // of those, within the last hour
	WedgedKills  int    // engines that the watchdog killed
	LastKill     string // reason and time of the last of them; empty if there was none
}

// Life returns how the engine lives.
func (s *Supervisor) Life() Life {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := Life{State: s.state, PID: s.pid, WedgedKills: s.kills, LastKill: s.lastKill}
	l.Restarts, l.RestartsHour = s.starts.again(time.Now())
	return l
}

// Stats asks the engine how it is. It fails with [infer.Unavailable] if there is none that
// is ready, and with the cause of ctx if that ends before the engine has answered.
func (s *Supervisor) Stats(ctx context.Context) (*link.Stats, error) {
	s.mu.Lock()
	client := s.client
	s.mu.Unlock()
	if client == nil {
		return nil, infer.Errorf(infer.Unavailable, "backend not ready")
	}
	stats, err := client.Stats(ctx)
	if errors.Is(err, link.ErrClosed) || errors.Is(err, link.ErrGone) {
		return nil, infer.Errorf(infer.Unavailable, "the engine of %q stopped", s.Name)
	}
	return stats, err
}

// WasGivenUp reports whether the engine has been given up, and why.
func (s *Supervisor) WasGivenUp() (reason string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reason, s.state == GivenUp
}

// Run starts the engine and keeps it running until ctx ends; the engine has gone when
// it returns. It returns an error only if the engine never became ready.
func (s *Supervisor) Run(ctx context.Context) error {
	var (
		deaths record
		watch  watchdog.State // of the next engine
	)
	for {
		end := s.live(ctx, watch)
		watch = watchdog.State{}
		if end.wedged {
			watch = watchdog.Replaced()
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // that is how it ends
		}
		if end.Illegal && !end.ready && s.Avoid != nil && s.Avoid(ctx, end.variant) {
			s.publish(status.EngineExited{Reason: end.Reason})
			continue
		}
		pause, giveUp := deaths.died(time.Now(), end.ready)
		if !s.hasServed() && (end.Final || giveUp) {
			return fmt.Errorf("engine of %s: %s", s.Name, end.Reason)
		}
		s.Log.LogAttrs(ctx, slog.LevelWarn, "engine ended", slog.String("backend", s.Name),
			slog.String("reason", end.Reason), slog.Duration("restart_in", pause), slog.Bool("given_up", giveUp))
		if giveUp {
			if !s.giveUp(ctx, end.Reason) {
				return nil
			}
			deaths.forgive()
			continue
		}
		s.publish(status.EngineExited{Reason: end.Reason})
		if !sleep(ctx, pause) {
			return nil
		}
	}
}

// publish makes a phase known, as part of the boot or of a restart.
func (s *Supervisor) publish(phase status.Phase) {
	if s.hasServed() {
		s.Publish(status.Restarting{Backend: s.Name, Phase: phase})
	} else {
		s.Publish(status.Loading{Backend: s.Name, Phase: phase})
	}
}

// A death is how a life ended.
type death struct {
	Exit
	ready   bool   // it had been ready
	wedged  bool   // the watchdog killed it
	variant string // CPU variant of the libraries that it reported last
}

// resourceWait is how long to wait before a launch that lacked a resource is tried again.
const resourceWait = 250 * time.Millisecond

// launch starts an engine. A lack of descriptors, processes or memory is no fault of the
// engine: it waits until there are some again, or ctx ends.
func (s *Supervisor) launch(ctx context.Context) (Child, error) {
	child, err := s.Launch(ctx, s.publish)
	if err == nil || !proc.OutOfResources(err) {
		return child, err
	}
	s.Log.LogAttrs(ctx, slog.LevelWarn, "engine not started yet", slog.String("backend", s.Name), slog.Any("err", err))
	s.publish(status.Waiting{Reason: err.Error()})
	for proc.OutOfResources(err) {
		if !sleep(ctx, resourceWait) {
			return nil, context.Cause(ctx)
		}
		child, err = s.Launch(ctx, func(p status.Phase) {
			if _, first := p.(status.CheckingLocal); !first { // that comes with every try
				s.publish(p)
			}
		})
	}
	return child, err
}

// live is one life of an engine, from its start to its end. Once it is ready, the watchdog
// begins with the state watching.
func (s *Supervisor) live(ctx context.Context, watching watchdog.State) death {
	child, err := s.launch(ctx)
	if err != nil {
		return death{Exit: Exit{Reason: err.Error(), Final: true}}
	}
	stop := context.AfterFunc(ctx, child.Kill)
	defer stop()
	s.born(child.PID())
	defer s.born(0)

	var (
		end     death
		stalled = make(chan struct{})
		client  = link.NewClient(child.Conn())
		watcher sync.WaitGroup
		wedged  *verdict // written by watcher
	)
	watchCtx, stopWatch := context.WithCancel(ctx)
	defer stopWatch()
	patience := time.AfterFunc(s.patience(), func() {
		close(stalled)
		child.Kill()
	})
	linkErr := client.Run(func(r link.Report) {
		switch r.State {
		case link.Ready:
			if patience.Stop() {
				end.ready = true
				s.becomeReady(ctx, client, r)
				w := &watch{sup: s, child: child, client: client, state: watching}
				watcher.Go(func() { wedged = w.run(watchCtx) })
			}
		case link.Failed:
			end.Reason, end.Final = r.Problem, true
			child.Kill()
		case link.Selecting:
			patience.Reset(s.patience())
			end.variant = r.Variant
		case link.Mapping:
			patience.Reset(s.patience())
			s.publish(status.Mmap{Path: r.Path, Progress: r.Progress})
		case link.Caching:
			patience.Reset(s.patience())
			s.publish(status.KVCache{NCtx: r.NCtx})
		}
	})
	patience.Stop()
	s.set(Loading, nil, "")
	stopWatch()
	watcher.Wait()
	child.Kill()
	exit := child.Wait()
	if wedged != nil {
		s.Log.LogAttrs(ctx, slog.LevelWarn, "wedged engine ended", slog.String("backend", s.Name),
			slog.String("exit", exit.Reason), slog.String("output", exit.Output))
		return death{Exit: Exit{Reason: "wedged: " + wedged.reason}, ready: true, wedged: true}
	}
	select {
	case <-stalled:
		end.Reason = fmt.Sprintf("backend not ready within %s", s.patience())
		end.Final = true
		return end
	default:
	}
	if end.Reason == "" {
		end.Exit = exit
	}
	end.Illegal = exit.Illegal
	if linkErr != nil {
		end.Reason = fmt.Sprintf("%v (%s)", linkErr, exit.Reason)
	}
	return end
}

// born notes that there is an engine, or none any more.
func (s *Supervisor) born(pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pid = pid
	if pid != 0 {
		s.starts.note(time.Now())
	}
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

// Retry starts an engine again that had been given up. It fails with [infer.Invalid]
// if it has not been.
func (s *Supervisor) Retry() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != GivenUp || s.retry == nil {
		return infer.Errorf(infer.Invalid, "invalid request: backend %q has not been given up", s.Name)
	}
	close(s.retry)
	s.retry = nil
	s.setLocked(Loading, nil, "") // at once: who comes next waits for the new engine
	return nil
}

// WaitReady returns nil once an engine is ready, or the cause of ctx.
func (s *Supervisor) WaitReady(ctx context.Context) error {
	_, err := s.await(ctx, nil, nil)
	return err
}

// Handle answers req with the engine. While the engine is being replaced the request
// waits, up to Patience; it fails with [infer.Unavailable] then, and also if the engine
// dies while it answers. If the watchdog killed the engine, a request whose answer had not
// begun and that is not to blame is sent to the next engine, once.
func (s *Supervisor) Handle(ctx context.Context, req *infer.Request, emit infer.Sink) error {
	var client *link.Client
	for resent := false; ; {
		var err error
		if client, err = s.ready(ctx, client); err != nil {
			return err
		}
		err = client.Handle(ctx, req, emit)
		gone, isGone := errors.AsType[*link.GoneError](err)
		switch {
		case errors.Is(err, link.ErrClosed): // it never got there
			continue
		case isGone && !resent && s.spares(client, gone):
			resent = true
			continue
		case errors.Is(err, link.ErrGone):
			return infer.Errorf(infer.Unavailable, "backend ended stream without terminal frame: the engine of %q stopped", s.Name)
		}
		return err
	}
}

// ready returns an engine other than dead. It starts a timer only if it has to wait.
func (s *Supervisor) ready(ctx context.Context, dead *link.Client) (*link.Client, error) {
	s.mu.Lock()
	client := s.client
	s.mu.Unlock()
	if client != nil && client != dead {
		return client, nil
	}
	timer := time.NewTimer(s.patience())
	defer timer.Stop()
	return s.await(ctx, dead, timer.C)
}

func (s *Supervisor) await(ctx context.Context, dead *link.Client, timeout <-chan time.Time) (*link.Client, error) {
	for {
		s.mu.Lock()
		state, client, reason := s.state, s.client, s.reason
		if s.changed == nil {
			s.changed = make(chan struct{})
		}
		changed := s.changed
		s.mu.Unlock()
		switch {
		case state == Ready && client != dead:
			return client, nil
		case state == GivenUp:
			return nil, infer.Errorf(infer.Unavailable, "backend %q was given up: %s", s.Name, reason)
		}
		select {
		case <-changed:
		case <-timeout:
			return nil, infer.Errorf(infer.Unavailable, "backend not ready")
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// sleep reports false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
