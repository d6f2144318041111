package engine_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/backend/engine"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/link"
	"github.com/inferd-go/inferd/internal/status"
)

// A behaviour is the code of an engine in memory. It runs from the engine's start to its end, and
// returns the reason of its exit.
type behaviour func(ctx context.Context, srv *link.Server) (exitReason string)

// serves becomes ready after a second, and answers until it is killed.
func serves(ctx context.Context, srv *link.Server) string {
	time.Sleep(time.Second)
	_ = srv.Report(link.Report{State: link.Ready, NCtx: 8, Slots: 2})
	srv.Handler = infer.HandlerFunc(func(ctx context.Context, req *infer.Request, emit infer.Sink) error {
		if err := emit(&infer.Text{Delta: []byte("hi")}); err != nil {
			return err
		}
		if req.Task.(*infer.Generate).MaxTokens > 1 {
			<-ctx.Done()
			return ctx.Err()
		}
		return emit(&infer.Done{})
	})
	_ = srv.Serve(ctx)
	return "killed by SIGKILL"
}

func crashes(context.Context, *link.Server) string { return "exit code 2: SIGSEGV" }

func hangs(ctx context.Context, _ *link.Server) string {
	<-ctx.Done()
	return "killed by SIGKILL"
}

func failsCleanly(_ context.Context, srv *link.Server) string {
	_ = srv.Report(link.Report{State: link.Failed, Problem: "not a GGUF"})
	return "exit code 1"
}

// slow loads for 101 s, reports progress every 20 s, and then serves.
func slow(ctx context.Context, srv *link.Server) string {
	for i := range 5 {
		time.Sleep(20 * time.Second)
		_ = srv.Report(link.Report{State: link.Mapping, Path: "m", Progress: float64(i) / 5})
	}
	return serves(ctx, srv)
}

// A child is an engine that is simulated in this process.
type child struct {
	pid    int
	conn   net.Conn
	cancel context.CancelFunc
	exit   chan string

	edited  chan struct{} // closed when the model's file changes
	reloads *atomic.Bool  // the model's file has changed
}

func (c *child) Conn() net.Conn { return c.conn }
func (c *child) Kill()          { c.cancel() }
func (c *child) PID() int       { return c.pid }
func (c *child) Wait() engine.Exit {
	reason := <-c.exit
	if c.reloads.Load() {
		return engine.Exit{Reason: "the file was changed (" + reason + ")", Changed: true}
	}
	return engine.Exit{Reason: reason, Illegal: reason == illegalReason}
}

func (c *child) Changed() <-chan struct{} { return c.edited }

var _ engine.Guarded = (*child)(nil)

// A fixture is a supervisor with engines in memory. It records the published events.
type fixture struct {
	*engine.Supervisor
	t *testing.T

	mu         sync.Mutex
	behaviours []behaviour // of the next engines; the last is used for all further ones
	alive      []*child
	events     []string
	err        error // of Run
	over       chan struct{}
	stop       context.CancelFunc
}

func startFixture(t *testing.T, behaviours ...behaviour) *fixture {
	t.Helper()
	h := newFixture(t, behaviours...)
	h.open()
	return h
}

// newFixture returns a fixture with a supervisor that does not run yet.
func newFixture(t *testing.T, behaviours ...behaviour) *fixture {
	t.Helper()
	h := &fixture{t: t, behaviours: behaviours, over: make(chan struct{})}
	h.Supervisor = &engine.Supervisor{
		Name: "gen", Launch: h.launch, Log: slog.New(slog.DiscardHandler),
		Publish: func(ev status.Event) { h.note(fmt.Sprintf("%T", ev), phaseOf(ev)) },
		OnReady: func(context.Context, link.Report) { h.note("ready", "") },
	}
	return h
}

func (h *fixture) open() {
	ctx, cancel := context.WithCancel(h.t.Context())
	h.stop = cancel
	go func() {
		defer close(h.over)
		h.err = h.Run(ctx)
	}()
}

func phaseOf(ev status.Event) string {
	switch ev := ev.(type) {
	case status.Loading:
		return fmt.Sprintf("%T%v", ev.Phase, ev.Phase)
	case status.Restarting:
		return fmt.Sprintf("%T%v", ev.Phase, ev.Phase)
	case status.Liveness:
		return strings.TrimSpace(fmt.Sprint(ev.Silent, " ", ev.Reason))
	case status.Starting, status.Ready, status.Draining, status.Capabilities, status.BackendState:
	}
	return ""
}

func (h *fixture) note(kind, what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, strings.TrimSpace(strings.ReplaceAll(kind+" "+what, "status.", "")))
}

func (h *fixture) launch(ctx context.Context, _ func(status.Phase)) (engine.Child, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	live := h.behaviours[0]
	if len(h.behaviours) > 1 {
		h.behaviours = h.behaviours[1:]
	}
	if live == nil {
		return nil, errors.New("there is no such program")
	}
	near, far := net.Pipe()
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	kill := func() { // a killed process sends nothing more
		_ = far.Close()
		cancel()
	}
	c := &child{pid: 100 + len(h.alive), conn: near, cancel: kill, exit: make(chan string, 1), edited: make(chan struct{}), reloads: new(atomic.Bool)}
	h.alive = append(h.alive, c)
	go func() {
		reason := live(ctx, &link.Server{Conn: far})
		_ = far.Close()
		c.exit <- reason
	}()
	return c, nil
}

// kill kills the current engine.
func (h *fixture) kill() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.alive[len(h.alive)-1].Kill()
}

// edit changes the model's file of the current engine.
func (h *fixture) edit() {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.alive[len(h.alive)-1]
	c.reloads.Store(true)
	close(c.edited)
}

func (h *fixture) seen() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.events)
}

func (h *fixture) starts() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.alive)
}

func (h *fixture) ask(most int) error {
	req := &infer.Request{Task: &infer.Generate{MaxTokens: most}}
	return h.Handle(h.t.Context(), req, func(infer.Event) error { return nil })
}

func (h *fixture) close() {
	h.stop()
	<-h.over
}

func TestServes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startFixture(t, serves)
		if err := h.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := h.ask(1); err != nil {
			t.Error(err)
		}
		h.close()
		if h.err != nil {
			t.Errorf("Run = %v", h.err)
		}
	})
}

func TestBootFailures(t *testing.T) {
	for name, test := range map[string]struct {
		behaviours []behaviour
		starts     int
		want       string
		after      time.Duration
	}{
		"a clean load error ends it at once":      {[]behaviour{failsCleanly}, 1, "not a GGUF", 0},
		"a crash is tried three times":            {[]behaviour{crashes}, 3, "SIGSEGV", 0},
		"a program that cannot be started":        {[]behaviour{nil}, 0, "no such program", 0},
		"no progress for longer than the timeout": {[]behaviour{hangs}, 1, "not ready within 30s", 30 * time.Second},
		"a crash that turns into a clean failure": {[]behaviour{crashes, failsCleanly}, 2, "not a GGUF", 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				h := startFixture(t, test.behaviours...)
				<-h.over
				if h.err == nil || !strings.Contains(h.err.Error(), test.want) {
					t.Errorf("Run = %v, want something of %q", h.err, test.want)
				}
				if got := h.starts(); got != test.starts {
					t.Errorf("%d starts, want %d", got, test.starts)
				}
				if got := time.Since(begin); got != test.after {
					t.Errorf("after %s, want %s", got, test.after)
				}
			})
		})
	}
}

func TestLoadTimeoutCountsFromTheLastReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startFixture(t, slow) // 101 seconds, the timeout is 30
		defer h.close()
		if err := h.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(h.seen(), "Loading Mmap{m 0.4}") {
			t.Errorf("events %q", h.seen())
		}
	})
}

func TestDeathWhileAnswering(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startFixture(t, serves)
		defer h.close()
		_ = h.WaitReady(t.Context())
		failed := make(chan error, 1)
		go func() { failed <- h.ask(99) }()
		synctest.Wait()
		h.kill()
		if err := <-failed; infer.CodeOf(err) != infer.Unavailable {
			t.Errorf("the running request got %v", err)
		}
		// The next request waits for the new engine.
		begin := time.Now()
		if err := h.ask(1); err != nil || time.Since(begin) != time.Second {
			t.Errorf("the next one got %v after %s", err, time.Since(begin))
		}
		want := []string{"ready", "Restarting EngineExited{killed by SIGKILL}", "ready"}
		if got := h.seen(); !slices.Equal(got, want) {
			t.Errorf("events %q, want %q", got, want)
		}
	})
}

// If its model changes, an engine is drained for at most a second and replaced. That does not count
// as a death.
func TestModelChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startFixture(t, serves)
		defer h.close()
		_ = h.WaitReady(t.Context())
		failed := make(chan error, 1)
		go func() { failed <- h.ask(99) }()
		synctest.Wait()
		begin := time.Now()
		h.edit()
		synctest.Wait()
		if state, _ := h.State(); state != backend.Loading {
			t.Errorf("it is %v while it drains", state)
		}
		next := make(chan error, 1)
		go func() { next <- h.ask(1) }()
		if err := <-failed; infer.CodeOf(err) != infer.Unavailable || time.Since(begin) != time.Second {
			t.Errorf("the running request got %v after %s", err, time.Since(begin))
		}
		if err := <-next; err != nil {
			t.Errorf("the next one got %v", err)
		}
		want := []string{"ready", "Restarting EngineExited{the file was changed (killed by SIGKILL)}", "ready"}
		if got := h.seen(); !slices.Equal(got, want) {
			t.Errorf("events %q, want %q", got, want)
		}
		change := func() time.Duration {
			begin := time.Now()
			h.edit()
			synctest.Wait()
			if err := h.WaitReady(t.Context()); err != nil {
				t.Fatal(err)
			}
			return time.Since(begin)
		}
		for range 9 { // an idle engine is replaced at once; the load takes a second
			if took := change(); took != time.Second {
				t.Errorf("an idle engine took %s", took)
			}
		}
		if took := change(); took != 1100*time.Millisecond || h.starts() != 12 {
			t.Errorf("the eleventh change within a minute took %s, %d starts", took, h.starts())
		}
		if state, reason := h.State(); state != backend.Ready {
			t.Errorf("it is %v: %s", state, reason)
		}
	})
}

func TestRequestsDoNotWaitForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startFixture(t, serves, slow)
		defer h.close()
		_ = h.WaitReady(t.Context())
		h.kill()
		synctest.Wait()
		begin := time.Now()
		if err := h.ask(1); infer.CodeOf(err) != infer.Unavailable || err.Error() != "backend not ready" {
			t.Errorf("got %v", err)
		}
		if got := time.Since(begin); got != engine.DefaultLoadTimeout {
			t.Errorf("after %s", got)
		}
	})
}

func TestRetryAfterGivingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startFixture(t, serves, crashes, crashes, failsCleanly, serves)
		defer h.close()
		_ = h.WaitReady(t.Context())
		if err := h.Retry(); infer.CodeOf(err) != infer.Invalid {
			t.Errorf("retry of a ready engine: %v", err)
		}
		h.kill()
		synctest.Wait()
		if got, _ := h.State(); got != backend.Down {
			t.Fatalf("state %v, events %q", got, h.seen())
		}
		if err := h.ask(1); infer.CodeOf(err) != infer.Unavailable || !strings.Contains(err.Error(), "not a GGUF") {
			t.Errorf("refused with %v", err)
		}
		if got := h.seen()[len(h.seen())-1]; got != "Restarting GaveUp{not a GGUF}" {
			t.Errorf("last event %q", got)
		}
		if err := h.Retry(); err != nil {
			t.Error(err)
		}
		if err := h.ask(1); err != nil {
			t.Errorf("after the retry: %v", err)
		}
	})
}

func TestStopsInEveryState(t *testing.T) {
	for name, behaviours := range map[string][]behaviour{
		"loading":  {hangs},
		"ready":    {serves},
		"given up": {serves, crashes},
		"pausing":  {serves},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := startFixture(t, behaviours...)
				switch name {
				case "given up":
					_ = h.WaitReady(t.Context())
					h.kill()
				case "pausing":
					for range 11 {
						_ = h.WaitReady(t.Context())
						h.kill()
						synctest.Wait()
					}
				case "ready":
					_ = h.WaitReady(t.Context())
				}
				synctest.Wait()
				h.close()
				if h.err != nil {
					t.Errorf("Run = %v", h.err)
				}
			})
		})
	}
}
