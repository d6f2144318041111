package engine_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd-go/inferd/client/stats"
	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/backend/engine"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/link"
)

func TestStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startFixture(t, serves, serves, crashes, crashes, failsCleanly, serves)
		defer h.close()
		want := func(what string, want engine.Status) {
			t.Helper()
			if got := h.Status(); got != want {
				t.Errorf("%s: %+v, want %+v", what, got, want)
			}
		}
		synctest.Wait()
		want("it loads", engine.Status{State: backend.Loading, PID: 100})
		_ = h.WaitReady(t.Context())
		want("it is ready", engine.Status{State: backend.Ready, PID: 100})
		h.kill()
		synctest.Wait()
		_ = h.WaitReady(t.Context())
		want("it was replaced", engine.Status{State: backend.Ready, PID: 101, Restarts: 1, RestartsHour: 1})
		time.Sleep(50 * time.Minute)
		h.kill()
		synctest.Wait()
		want("it was given up", engine.Status{State: backend.Down, Restarts: 4, RestartsHour: 4})
		time.Sleep(10 * time.Minute)
		want("an hour later", engine.Status{State: backend.Down, Restarts: 4, RestartsHour: 3})
		if err := h.Retry(); err != nil {
			t.Error(err)
		}
		_ = h.WaitReady(t.Context())
		want("it was tried again", engine.Status{State: backend.Ready, PID: 105, Restarts: 5, RestartsHour: 4})
	})
}

// While the next engine loads, Abilities returns those of the last engine.
func TestAbilities(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		can := infer.Abilities{Generate: true, Tools: true, ToolsDialect: "hermes"}
		able := func(ctx context.Context, srv *link.Server) string {
			_ = srv.Report(link.Report{State: link.Ready, Abilities: can})
			_ = srv.Serve(ctx)
			return "killed"
		}
		h := startFixture(t, able, hangs)
		defer h.close()
		if _, known := h.Abilities(); known {
			t.Error("they are known before the first report")
		}
		_ = h.WaitReady(t.Context())
		for range 2 {
			if got, known := h.Abilities(); !known || got != can {
				t.Errorf("got %+v, %v", got, known)
			}
			h.kill()
			synctest.Wait()
		}
		if got, _ := h.State(); got != backend.Loading {
			t.Errorf("state %v", got)
		}
	})
}

func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		counts := func(ctx context.Context, srv *link.Server) string {
			srv.Stats = func() stats.Engine { return stats.Engine{Steps: 7} }
			return serves(ctx, srv)
		}
		h := startFixture(t, counts, slow)
		defer h.close()
		if _, err := h.Stats(t.Context()); infer.CodeOf(err) != infer.Unavailable {
			t.Errorf("while it loads: %v", err)
		}
		_ = h.WaitReady(t.Context())
		if got, err := h.Stats(t.Context()); err != nil || got.Steps != 7 {
			t.Errorf("got %+v, %v", got, err)
		}
		h.kill()
		if _, err := h.Stats(t.Context()); infer.CodeOf(err) != infer.Unavailable {
			t.Errorf("when it is dead: %v", err)
		}
	})
}
