package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/link"
	"github.com/inferd-go/inferd/internal/proc"
	"github.com/inferd-go/inferd/internal/status"
	"github.com/inferd-go/inferd/internal/watchdog"
)

// An Observed is a [Child] with an observable process; see the methods of [proc.Child]. The watchdog
// never kills an engine that is not Observed.
type Observed interface {
	Usage() (proc.Usage, error)
	Frozen() (bool, error)
}

// A Signaled is a [Child] that can be resumed after a stop, and can be made to end with the stacks of
// its goroutines in its output; see the methods of [proc.Child].
type Signaled interface {
	Resume()
	Dump()
}

const (
	activeInterval = time.Second // the shortest time between two samples
	dumpTime       = time.Second // from SIGQUIT to SIGKILL
	keptSamples    = 10          // samples that are logged at a kill
	leastSuspend   = time.Second // a shorter suspension of the machine is taken as a measurement error
)

// A watch feeds the watchdog with samples of one ready engine and carries out its actions.
// It is used by one goroutine.
type watch struct {
	sup    *Supervisor
	child  Child
	client *link.Client
	state  watchdog.State

	last     look
	standing *link.Beat // the last beat since steps or frames moved; nil if there was none
	samples  []string   // the last keptSamples, as text

	canaries sync.WaitGroup
	canary   atomic.Bool // a canary is open
}

// A look has the readings at one time; a sample is the difference of two looks.
type look struct {
	at        time.Time
	suspended time.Duration
	pulse     link.Pulse
	known     bool // usage and frozen are valid
	usage     proc.Usage
	frozen    bool
}

// A verdict is the watchdog's finding about an engine that it kills: the reason, and the calls that
// are suspected as the cause.
type verdict struct {
	client   *link.Client
	reason   string
	stopped  bool     // the process was stopped: no call is suspected
	suspects []uint64 // numbers of the calls in the step that did not end; empty if unknown
}

// spares reports whether a call that has no event yet may be sent to the next engine. If the
// process was not stopped and the suspects are unknown, no call may.
func (v *verdict) spares(call uint64) bool {
	return v.stopped || len(v.suspects) > 0 && !slices.Contains(v.suspects, call)
}

// run takes samples until ctx ends or it has killed the engine. It returns the verdict on the
// killed engine, or nil if ctx has ended. The canaries (see sendCanary) have ended when it returns.
func (w *watch) run(ctx context.Context) *verdict {
	ctx, cancel := context.WithCancel(ctx)
	defer w.canaries.Wait()
	defer cancel()
	for ; ; w.pause(ctx, activeInterval) {
		now, err := w.look(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			w.last = now
			break
		}
	}
	for {
		planned := w.state.Interval(w.last.pulse.Active > 0)
		w.client.AskBeat()
		w.pause(ctx, planned)
		now, err := w.look(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			continue // the next sample covers this interval, too, and may count as late
		}
		x := w.sample(now, planned)
		var action watchdog.Action
		w.state, action = w.state.Next(x)
		w.last = now
		w.sup.setSilence(ctx, w.state.Silence())
		switch action.Verb {
		case watchdog.Nothing:
		case watchdog.Resume:
			w.sup.Log.LogAttrs(ctx, slog.LevelWarn, "engine is stopped, sending SIGCONT", slog.String("backend", w.sup.Name), slog.Int("pid", w.child.PID()))
			if c, ok := w.child.(Signaled); ok {
				c.Resume()
			}
		case watchdog.Canary:
			w.sendCanary(ctx)
		case watchdog.Kill:
			return w.kill(ctx, action.Reason, &x)
		}
	}
}

// pause waits d, or until ctx ends. A call that opens on an idle engine shortens the wait, but not to
// less than activeInterval after the last sample.
func (w *watch) pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	opened := w.client.Opened()
	for {
		select {
		case <-opened:
			opened = nil
			timer.Reset(max(0, min(d, activeInterval)-time.Since(w.last.at)))
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// look takes the readings for a sample. It fails if one of them fails; a platform without usage
// reports is no failure.
func (w *watch) look(ctx context.Context) (look, error) {
	l := look{at: time.Now(), suspended: proc.SuspendedTime(), pulse: w.client.Pulse()}
	child, ok := w.child.(Observed)
	if !ok {
		return l, nil
	}
	usage, err := child.Usage()
	if errors.Is(err, errors.ErrUnsupported) {
		return l, nil
	}
	if err == nil && w.state.Suspicious() {
		l.frozen, err = child.Frozen()
	}
	if err != nil {
		w.sup.Log.LogAttrs(ctx, slog.LevelDebug, "engine not sampled", slog.String("backend", w.sup.Name), slog.Any("err", err))
		return l, err
	}
	l.known, l.usage = true, usage
	return l, nil
}

// sample returns the difference between now and the last look, and notes it for the log. planned is
// the planned time between both.
func (w *watch) sample(now look, planned time.Duration) watchdog.Sample {
	beat, last := now.pulse.Beat, w.last
	fresh := now.pulse.Beats > last.pulse.Beats
	step := time.Duration(beat.StepCPUMS) * time.Millisecond
	x := watchdog.Sample{
		Elapsed: now.at.Sub(last.at), Planned: planned, Suspended: now.suspended-last.suspended >= leastSuspend,
		Active: now.pulse.Active, Answered: now.pulse.Answered,
		Moved: moved(last.pulse, now.pulse),
		Beat:  fresh, Locked: fresh && beat.Phase == "lock",
		StepCPU: step, StepWall: step / time.Duration(max(1, w.sup.Threads)),
		Overrun: time.Duration(beat.OverrunCPUMS) * time.Millisecond, OverrunPhase: beat.Overrun,
	}
	if now.known && last.known {
		x.Known, x.Process, x.Traced, x.Frozen = true, processOf(now.usage.State), now.usage.Tracer != 0, now.frozen
		x.CPU, x.Wait, x.Faults = now.usage.CPU-last.usage.CPU, now.usage.Wait-last.usage.Wait, now.usage.Faults-last.usage.Faults
	}
	switch {
	case x.Moved || x.Active == 0:
		w.standing = nil
	case fresh:
		w.standing = &beat
	}
	w.note(&x, &now)
	return x
}

// moved reports whether the engine made progress between two pulses. With several loops, a beat
// describes the loop whose phase has lasted longest, and only that loop counts: frames and steps of
// the others would hide that it hangs. A beat about a different loop is progress, because the former
// loop has ended its phase.
func moved(last, now link.Pulse) bool {
	if now.Beat.Loop != last.Beat.Loop || now.Beat.Steps > last.Beat.Steps {
		return true
	}
	ofOne := now.Beats > last.Beats && now.Beat.Loop > 0
	return now.Frames > last.Frames && !ofOne
}

func processOf(state byte) watchdog.Process {
	switch state {
	case 'R':
		return watchdog.Running
	case 'S', 'I':
		return watchdog.Sleeping
	case 'D':
		return watchdog.Disk
	case 'T', 't':
		return watchdog.Stopped
	}
	return watchdog.Other
}

// note records a sample for the log.
func (w *watch) note(x *watchdog.Sample, now *look) {
	if len(w.samples) == keptSamples {
		w.samples = slices.Delete(w.samples, 0, 1)
	}
	state := "unknown"
	if x.Known {
		state = string(rune(now.usage.State))
	}
	beat := "none"
	if x.Beat {
		beat = fmt.Sprintf("%s for %dms", now.pulse.Beat.Phase, now.pulse.Beat.SinceMS)
	}
	w.samples = append(w.samples, fmt.Sprintf("%s: state %s, cpu %s, wait %s, faults %d, calls %d, steps %d, frames %d, step cpu %s, beat %s",
		x.Elapsed.Round(time.Millisecond), state, x.CPU.Round(time.Millisecond), x.Wait.Round(time.Millisecond), x.Faults,
		x.Active, now.pulse.Beat.Steps, now.pulse.Frames, x.StepCPU, beat))
}

// kill ends the engine and returns the verdict. It sends SIGQUIT first, at which a Go program prints
// its stacks; a stopped process cannot.
func (w *watch) kill(ctx context.Context, reason string, x *watchdog.Sample) *verdict {
	v := &verdict{client: w.client, reason: reason, stopped: x.Process == watchdog.Stopped}
	if w.standing != nil {
		v.suspects = w.standing.Calls
	}
	w.sup.condemn(v)
	w.sup.Log.LogAttrs(ctx, slog.LevelWarn, "engine is wedged, killing it", slog.String("backend", w.sup.Name), slog.Int("pid", w.child.PID()),
		slog.String("reason", reason), slog.String("samples", strings.Join(w.samples, "; ")))
	if c, ok := w.child.(Signaled); ok && !v.stopped {
		c.Dump()
		timer := time.NewTimer(dumpTime)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done(): // the link has ended, or the daemon ends
		}
	}
	w.child.Kill()
	return v
}

// sendCanary sends a tiny request that belongs to no user, unless another canary is open. It counts as
// an active call until it is answered, so the watchdog's ordinary rules apply to it.
func (w *watch) sendCanary(ctx context.Context) {
	var task infer.Task
	switch can := w.sup.LastReport().Abilities; {
	case can.Generate:
		task = &infer.Generate{Messages: []infer.Message{infer.TextMessage(infer.User, "a")}, MaxTokens: 1}
	case can.Embed:
		task = &infer.Embed{Inputs: []string{"a"}}
	case can.Rerank:
		task = &infer.Rerank{Query: "a", Documents: []string{"a"}}
	}
	if task == nil || !w.canary.CompareAndSwap(false, true) {
		return
	}
	w.sup.Log.LogAttrs(ctx, slog.LevelWarn, "engine computes without a request, sending one", slog.String("backend", w.sup.Name))
	w.canaries.Go(func() {
		defer w.canary.Store(false)
		err := w.client.Handle(ctx, &infer.Request{Task: task}, func(infer.Event) error { return nil })
		w.sup.Log.LogAttrs(ctx, slog.LevelDebug, "canary ended", slog.String("backend", w.sup.Name), slog.Any("err", err))
	})
}

// condemn records a verdict. From then on requests wait for the next engine.
func (s *Supervisor) condemn(v *verdict) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.verdict = v
	s.kills++
	s.lastKill = fmt.Sprintf("%s, at %s", v.reason, time.Now().UTC().Format(time.RFC3339))
	s.setLocked(backend.Loading, nil, "")
}

// spares reports whether a call of a dead engine may be sent to the next one.
func (s *Supervisor) spares(client *link.Client, gone *link.GoneError) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !gone.Emitted && s.verdict != nil && s.verdict.client == client && s.verdict.spares(gone.Call)
}

// setSilence records the engine's liveness, and logs and publishes it if it has changed.
func (s *Supervisor) setSilence(ctx context.Context, why watchdog.Silence) {
	s.mu.Lock()
	changed := s.silence != why
	s.silence = why
	s.mu.Unlock()
	if !changed {
		return
	}
	if why == watchdog.Responding {
		s.Log.LogAttrs(ctx, slog.LevelInfo, "engine responds", slog.String("backend", s.Name))
	} else {
		s.Log.LogAttrs(ctx, slog.LevelWarn, "engine is silent", slog.String("backend", s.Name), slog.String("reason", string(why)))
	}
	s.Publish(status.Liveness{Backend: s.Name, Silent: why != watchdog.Responding, Reason: string(why)})
}
