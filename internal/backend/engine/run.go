package engine

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/link"
	"github.com/inferd-go/inferd/internal/proc"
	"github.com/inferd-go/inferd/internal/status"
	"github.com/inferd-go/inferd/internal/watchdog"
)

// Run keeps an engine running until ctx ends; the engine has ended when Run returns. It returns an
// error only if no engine has become ready.
func (s *Supervisor) Run(ctx context.Context) error {
	var (
		policy restartPolicy
		edits  restartPolicy  // for changes of the model's file, which do not count as deaths
		watch  watchdog.State // the watchdog's first state for the next engine
	)
	for {
		end := s.runOnce(ctx, watch)
		watch = watchdog.State{}
		if end.wedged {
			watch = watchdog.Replaced()
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the ordinary end
		}
		if end.Illegal && !end.ready && s.Avoid != nil && s.Avoid(ctx, end.variant) {
			s.publish(status.EngineExited{Reason: end.Reason})
			continue
		}
		if end.Changed {
			pause, _ := edits.next(time.Now(), true)
			s.Log.LogAttrs(ctx, slog.LevelWarn, "model file changed, restarting its engine", slog.String("backend", s.Name),
				slog.String("reason", end.Reason), slog.Duration("restart_in", pause))
			s.publish(status.EngineExited{Reason: end.Reason})
			if !sleep(ctx, pause) {
				return nil
			}
			continue
		}
		pause, giveUp := policy.next(time.Now(), end.ready)
		if !s.hasServed() && (end.Final || giveUp) {
			return fmt.Errorf("engine of %s: %s", s.Name, end.Reason)
		}
		s.Log.LogAttrs(ctx, slog.LevelWarn, "engine ended", slog.String("backend", s.Name),
			slog.String("reason", end.Reason), slog.Duration("restart_in", pause), slog.Bool("given_up", giveUp))
		if giveUp {
			if !s.giveUp(ctx, end.Reason) {
				return nil
			}
			policy.reset()
			continue
		}
		s.publish(status.EngineExited{Reason: end.Reason})
		if !sleep(ctx, pause) {
			return nil
		}
	}
}

// publish publishes a phase: of a restart if an engine has been ready before, else of the boot.
func (s *Supervisor) publish(phase status.Phase) {
	if s.hasServed() {
		s.Publish(status.Restarting{Backend: s.Name, Phase: phase})
	} else {
		s.Publish(status.Loading{Backend: s.Name, Phase: phase})
	}
}

// An engineEnd is the end of an engine.
type engineEnd struct {
	Exit
	ready   bool   // the engine had been ready
	wedged  bool   // the watchdog killed it
	variant string // CPU variant that the engine reported last
}

// resourceWait is the time between two attempts of a launch that lacks a resource.
const resourceWait = 250 * time.Millisecond

// launch starts an engine. A lack of descriptors, processes or memory is not the engine's fault, so
// launch retries until they are available or ctx ends.
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
			if _, first := p.(status.CheckingLocal); !first { // published at the first attempt
				s.publish(p)
			}
		})
	}
	return child, err
}

// runOnce starts an engine and waits for its end. watching is the watchdog's first state once the
// engine is ready.
func (s *Supervisor) runOnce(ctx context.Context, watching watchdog.State) engineEnd {
	child, err := s.launch(ctx)
	if err != nil {
		return engineEnd{Exit: Exit{Reason: err.Error(), Final: true}}
	}
	stop := context.AfterFunc(ctx, child.Kill)
	defer stop()
	s.setPID(child.PID())
	defer s.setPID(0)

	r := &engineRun{sup: s, child: child, client: link.NewClient(child.Conn()), watching: watching}
	unguard := r.guard(ctx)
	linkErr := r.serve(ctx)
	child.Kill()
	unguard()
	exit := child.Wait()
	end := r.end
	switch {
	case exit.Changed:
		end.Exit = exit
		return end
	case r.wedged != nil:
		s.Log.LogAttrs(ctx, slog.LevelWarn, "wedged engine ended", slog.String("backend", s.Name),
			slog.String("exit", exit.Reason), slog.String("output", exit.Output))
		return engineEnd{Exit: Exit{Reason: "wedged: " + r.wedged.reason}, ready: true, wedged: true}
	case r.late.Load():
		end.Reason, end.Final = fmt.Sprintf("backend not ready within %s", s.loadTimeout()), true
		return end
	case end.Reason == "":
		end.Exit = exit
	}
	end.Illegal = exit.Illegal
	if linkErr != nil {
		end.Reason = fmt.Sprintf("%v (%s)", linkErr, exit.Reason)
	}
	return end
}

// Times of the drain of an engine after a change of its model.
const (
	drainTime = time.Second // short, because a writer of the model's file may be blocked meanwhile
	drainPoll = 10 * time.Millisecond
)

// guard stops the engine when its model's files change: new requests wait for the next engine, and
// running ones get drainTime to end. unguard ends the guard and waits for its goroutine.
func (r *engineRun) guard(ctx context.Context) (unguard func()) {
	child, ok := r.child.(Guarded)
	if !ok || child.Changed() == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var guard sync.WaitGroup
	guard.Go(func() {
		select {
		case <-ctx.Done():
			return
		case <-child.Changed():
		}
		r.sup.retire(r.client)
		for end := time.Now().Add(drainTime); time.Now().Before(end) && r.client.Pulse().Active > 0 && sleep(ctx, drainPoll); {
		}
		r.child.Kill()
	})
	return func() {
		cancel()
		guard.Wait()
	}
}

// An engineRun is one engine process from its start to its end.
type engineRun struct {
	sup      *Supervisor
	child    Child
	client   *link.Client
	watching watchdog.State

	timeout *time.Timer // of the load
	late    atomic.Bool // the load timed out
	end     engineEnd
	watcher sync.WaitGroup
	wedged  *verdict // written by watcher; nil if the watchdog did not kill the engine
}

// serve handles the reports of the engine until the link ends. It returns the error of the link.
func (r *engineRun) serve(ctx context.Context) error {
	ctx, stopWatch := context.WithCancel(ctx)
	defer r.watcher.Wait()
	defer stopWatch()
	r.timeout = time.AfterFunc(r.sup.loadTimeout(), func() {
		r.late.Store(true)
		r.child.Kill()
	})
	defer r.sup.set(backend.Loading, nil, "")
	defer r.timeout.Stop()
	return r.client.Run(func(report link.Report) { r.onReport(ctx, report) })
}

func (r *engineRun) onReport(ctx context.Context, report link.Report) {
	switch report.State {
	case link.Ready:
		if r.timeout.Stop() {
			r.end.ready = true
			r.sup.becomeReady(ctx, r.client, report)
			w := &watch{sup: r.sup, child: r.child, client: r.client, state: r.watching}
			r.watcher.Go(func() { r.wedged = w.run(ctx) })
		}
	case link.Failed:
		r.end.Reason, r.end.Final = report.Problem, true
		r.child.Kill()
	case link.Selecting:
		r.timeout.Reset(r.sup.loadTimeout())
		r.end.variant = report.Variant
	case link.Mapping:
		r.timeout.Reset(r.sup.loadTimeout())
		r.sup.publish(status.Mmap{Path: report.Path, Progress: report.Progress})
	case link.Caching:
		r.timeout.Reset(r.sup.loadTimeout())
		r.sup.publish(status.KVCache{NCtx: report.NCtx})
	}
}

// setPID records the start of an engine, or with 0 its end.
func (s *Supervisor) setPID(pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pid = pid
	if pid != 0 {
		s.starts.note(time.Now())
	}
}

// sleep waits d and returns true, or false if ctx ends first.
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
