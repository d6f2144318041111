package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd-go/inferd/internal/backend/engine"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/link"
	"github.com/inferd-go/inferd/internal/proc"
	"github.com/inferd-go/inferd/internal/status"
)

// A process is a simulated process of an engine: state and figures as the kernel would report
// them.
type process struct {
	mu      sync.Mutex // guards the fields below
	state   byte
	cores   int // number of cores on which it computes
	tracer  int
	frozen  bool
	err     error // of every reading
	beat    link.Beat
	resumes int
	dumps   int

	at  time.Time // of the last reading
	cpu time.Duration
}

// set changes the process from now on; the CPU time until now is computed with the former state.
func (b *process) set(change func(b *process)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.readLocked()
	change(b)
}

func (b *process) readLocked() {
	b.cpu += time.Duration(b.cores) * time.Since(b.at)
	b.at = time.Now()
}

func (b *process) Usage() (proc.Usage, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.readLocked()
	return proc.Usage{State: b.state, Tracer: b.tracer, CPU: b.cpu}, b.err
}

func (b *process) Frozen() (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.frozen, b.err
}

func (b *process) Resume() { b.set(func(b *process) { b.state, b.resumes = 'S', b.resumes+1 }) }
func (b *process) Dump()   { b.set(func(b *process) { b.dumps++ }) }

// signals returns the number of calls of Resume (SIGCONT) and of Dump (SIGQUIT).
func (b *process) signals() (conts, quits int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.resumes, b.dumps
}

func (b *process) pulse() link.Beat {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.beat
}

// An observedChild is a child with a process.
type observedChild struct {
	*child
	*process
}

// A logBuffer keeps a log. It may be used from any goroutine.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// A watchedFixture is a fixture with engines that have a process each. The first engine answers a request for one
// token, blocks after one event if more tokens are requested, and blocks without an event if MaxTokens is 0. Later
// engines answer every request.
type watchedFixture struct {
	*fixture
	processes []*process // of the engines
	log       logBuffer
}

func newWatchedFixture(t *testing.T) *watchedFixture {
	t.Helper()
	w := &watchedFixture{}
	w.fixture = newFixture(t, w.live)
	w.Log = slog.New(slog.NewTextHandler(&w.log, nil))
	launch := w.Launch
	w.Launch = func(ctx context.Context, phase func(status.Phase)) (engine.Child, error) {
		b := &process{state: 'S', at: time.Now()}
		w.mu.Lock()
		w.processes = append(w.processes, b)
		w.mu.Unlock()
		c, err := launch(ctx, phase)
		return observedChild{c.(*child), b}, err
	}
	w.open()
	if err := w.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w
}

// live is the behaviour of every engine of the fixture.
func (w *watchedFixture) live(ctx context.Context, srv *link.Server) string {
	b, first := w.current(), w.starts() == 1
	srv.Beat = b.pulse
	srv.Handler = infer.HandlerFunc(func(ctx context.Context, req *infer.Request, emit infer.Sink) error {
		most := req.Task.(*infer.Generate).MaxTokens
		if most > 0 {
			if err := emit(&infer.Text{Delta: []byte("hi")}); err != nil {
				return err
			}
		}
		if first && most != 1 {
			<-ctx.Done()
			return ctx.Err()
		}
		return emit(&infer.Done{})
	})
	_ = srv.Report(link.Report{State: link.Ready, Abilities: infer.Abilities{Generate: true}})
	_ = srv.Serve(ctx)
	return "killed by SIGKILL"
}

// current returns the process of the engine that was started last.
func (w *watchedFixture) current() *process {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.processes[len(w.processes)-1]
}

// call sends a request for at most that many tokens. Its outcome arrives on the channel.
func (w *watchedFixture) call(most int) <-chan error {
	over := make(chan error, 1)
	go func() { over <- w.ask(most) }()
	synctest.Wait()
	return over
}

// ended returns the outcome of a call: "done", the code of its error, or "open" if it has not ended.
func ended(call <-chan error) string {
	select {
	case err := <-call:
		if err != nil {
			return string(infer.CodeOf(err))
		}
		return "done"
	default:
		return "open"
	}
}

// Arguments of call: the first engine emits one event and then blocks (begun), or blocks without an
// event (quiet).
const begun, quiet = 2, 0

// A stopped engine is resumed once. If it is stopped again, it is replaced: calls that had an event
// fail, and the next engine answers the others.
func TestStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatchedFixture(t)
		defer w.close()
		first, b := w.call(begun), w.current()
		time.Sleep(time.Second / 2)
		stopped := time.Now()
		b.set(func(b *process) { b.state = 'T' })
		time.Sleep(3 * time.Second)
		if got := w.seen(); !slices.Contains(got, "Liveness true its process is stopped") {
			t.Errorf("after 3 s: %q", got)
		}
		time.Sleep(4 * time.Second)
		if conts, _ := b.signals(); conts != 1 {
			t.Errorf("after %s: %d SIGCONT", time.Since(stopped), conts)
		}
		if got := ended(first); got != "open" {
			t.Errorf("the call ended: %s", got)
		}
		b.set(func(b *process) { b.beat.Steps++ })
		time.Sleep(2 * time.Second)
		if got := w.seen(); got[len(got)-1] != "Liveness false" {
			t.Errorf("when it goes on: %q", got)
		}
		second := w.call(quiet)
		stopped = time.Now()
		b.set(func(b *process) { b.state = 'T' })
		if err := <-first; infer.CodeOf(err) != infer.Unavailable {
			t.Errorf("the call that had begun ended with %v", err)
		}
		if got := time.Since(stopped); got > 7*time.Second {
			t.Errorf("after %s", got)
		}
		synctest.Wait()
		if conts, quits := b.signals(); quits > 0 || conts != 1 {
			t.Errorf("a stopped process got %d SIGQUIT and %d SIGCONT", quits, conts-1)
		}
		time.Sleep(2 * time.Second)
		if got := ended(second); got != "done" {
			t.Errorf("the call that had not begun: %s", got)
		}
		want := []string{
			"ready", "Liveness true its process is stopped", "Liveness false", "Liveness true its process is stopped",
			"Restarting EngineExited{wedged: stopped again within 1m0s of a SIGCONT, for 5s}", "Liveness false", "ready",
		}
		if got := w.seen(); !slices.Equal(got, want) {
			t.Errorf("events %q\nwant %q", got, want)
		}
		if l := w.Status(); l.WedgedKills != 1 || l.Restarts != 1 || !strings.HasPrefix(l.LastKill, "stopped again within 1m0s of a SIGCONT, for 5s, at 2000-01-01T00:00:") {
			t.Errorf("%+v", l)
		}
	})
}

// An engine that spins, is deadlocked, or has a phase that does not end is replaced. The calls in its step are
// suspected as the cause; if these are unknown, every call is suspected. An engine that is debugged or frozen, cannot
// be observed, or waits for the compute lock is not replaced.
func TestWedged(t *testing.T) {
	spin := func(calls ...uint64) func(b *process) {
		return func(b *process) {
			b.state, b.cores, b.beat = 'R', 2, link.Beat{Phase: "decode", Calls: calls, StepCPUMS: 20}
		}
	}
	for name, test := range map[string]struct {
		ill    func(b *process)
		want   string // outcomes of calls 1 (begun), 2 and 3 (quiet)
		reason string
	}{
		"spin in a call with an event":    {spin(1), "unavailable done done", "spin: no step for 5s with 3 calls open, 10s of CPU"},
		"spin in a call without an event": {spin(2), "unavailable unavailable done", "spin: no step for 5s with 3 calls open, 10s of CPU"},
		"spin in unknown calls":           {spin(), "unavailable unavailable unavailable", "spin: no step for 5s with 3 calls open, 10s of CPU"},
		"deadlock":                        {func(b *process) { b.beat = link.Beat{Phase: "decode", Calls: []uint64{1, 3}} }, "unavailable done unavailable", "deadlock: no step for 10s with 3 calls open, no CPU for 10s"},
		"a template that does not end":    {func(b *process) { b.beat = link.Beat{Overrun: "render", OverrunCPUMS: 6000, Calls: []uint64{1}} }, "unavailable done done", "render does not end: 6s of CPU since its call failed"},
		"a debugger":                      {func(b *process) { b.state, b.tracer = 'T', 1 }, "open open open", ""},
		"a frozen cgroup":                 {func(b *process) { b.frozen = true }, "open open open", ""},
		"no file can be opened":           {func(b *process) { b.err = syscall.EMFILE }, "open open open", ""},
		"a platform that reports nothing": {func(b *process) { b.err = errors.ErrUnsupported }, "open open open", ""},
		"another engine computes":         {func(b *process) { b.beat = link.Beat{Phase: "lock"} }, "open open open", ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWatchedFixture(t)
				defer w.close()
				calls := []<-chan error{w.call(begun), w.call(quiet), w.call(quiet)}
				w.current().set(test.ill)
				time.Sleep(30 * time.Second)
				var got []string
				for _, c := range calls {
					got = append(got, ended(c))
				}
				if got := strings.Join(got, " "); got != test.want {
					t.Errorf("calls: %s, want %s", got, test.want)
				}
				state := w.Status()
				if reason, _, _ := strings.Cut(state.LastKill, ", at "); reason != test.reason || state.WedgedKills != min(1, len(test.reason)) {
					t.Errorf("%+v, want %q", state, test.reason)
				}
				if test.reason == "" {
					return
				}
				if out := w.log.String(); !strings.Contains(out, "engine is wedged, killing it") || !strings.Contains(out, "samples=\"1s: state ") {
					t.Errorf("log: %s", out)
				}
			})
		})
	}
}

// An engine with a loop that hangs is replaced although its other loops answer. An engine with
// loops that take turns is not replaced.
func TestSeveralLoops(t *testing.T) {
	hang := func(loop int) func(*process) {
		return func(b *process) {
			b.cores, b.state = 2, 'R'
			b.beat = link.Beat{Loop: loop, Steps: 5, Phase: "decode", Calls: []uint64{1}, StepCPUMS: 1}
		}
	}
	for name, test := range map[string]struct {
		each func(b *process, second int) // called each second, besides an answer
		want string                       // outcome of the call in the loop
	}{
		"one hangs":                      {func(b *process, _ int) { hang(1)(b) }, "unavailable"},
		"an engine without loop numbers": {func(b *process, _ int) { hang(0)(b) }, "open"}, // answers are progress
		"they take turns":                {func(b *process, n int) { hang(1 + n/3%2)(b) }, "open"},
		"all are idle":                   {func(b *process, _ int) { b.beat = link.Beat{Phase: "idle"} }, "open"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWatchedFixture(t)
				defer w.close()
				stands := w.call(begun)
				for n := range 40 {
					if w.starts() > 1 {
						break
					}
					w.current().set(func(b *process) { test.each(b, n) })
					if got := ended(w.call(1)); got != "done" && test.want == "open" {
						t.Errorf("another call: %s", got)
					}
					time.Sleep(time.Second)
				}
				if got := ended(stands); got != test.want {
					t.Errorf("the call ended: %s, want %s; %+v", got, test.want, w.Status())
				}
			})
		})
	}
}

// On a platform without usage reports, the engine is still published as silent.
func TestSilentWithoutTheKernel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatchedFixture(t)
		defer w.close()
		w.call(begun)
		w.current().set(func(b *process) { b.err = errors.ErrUnsupported; b.beat.StepCPUMS = 1 })
		time.Sleep(20 * time.Second)
		if got, want := w.seen(), []string{"ready", "Liveness true its steps make no progress"}; !slices.Equal(got, want) {
			t.Errorf("events %q, want %q", got, want)
		}
	})
}

// An engine that computes without a request gets a canary; if it answers, it is not killed.
func TestCanary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatchedFixture(t)
		defer w.close()
		w.current().set(func(b *process) { b.cores, b.state = 1, 'R' })
		time.Sleep(70 * time.Second)
		if out := w.log.String(); strings.Count(out, "engine computes without a request") != 1 {
			t.Errorf("log: %s", out)
		}
		if l := w.Status(); l.WedgedKills > 0 {
			t.Errorf("%+v", l)
		}
	})
}

// A launch that lacks a descriptor is retried for as long as it takes, and logged and published
// once.
func TestLaunchWithoutResources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lacking := 100
		var log logBuffer
		h := newFixture(t, serves)
		h.Log = slog.New(slog.NewTextHandler(&log, nil))
		launch := h.Launch
		h.Launch = func(ctx context.Context, phase func(status.Phase)) (engine.Child, error) {
			phase(status.CheckingLocal{Path: "m"})
			if lacking--; lacking >= 0 {
				return nil, fmt.Errorf("start engine: %w", os.NewSyscallError("socketpair", syscall.EMFILE))
			}
			return launch(ctx, phase)
		}
		h.open()
		defer h.close()
		begin := time.Now()
		if err := h.WaitReady(t.Context()); err != nil || time.Since(begin) != 26*time.Second {
			t.Errorf("after %s: %v", time.Since(begin), err)
		}
		want := []string{"Loading CheckingLocal{m}", "Loading Waiting{start engine: socketpair: too many open files}", "ready"}
		if got := h.seen(); !slices.Equal(got, want) {
			t.Errorf("events %q, want %q", got, want)
		}
		if l := h.Status(); l.Restarts > 0 || strings.Count(log.String(), "\n") != 1 {
			t.Errorf("%+v, log: %s", l, log.String())
		}
	})
}
