package engine_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/inferd-go/inferd/internal/link"
)

const illegalReason = "killed by SIGILL"

// illegal returns the behaviour of an engine that reports a CPU variant and ends with an illegal
// instruction.
func illegal(variant string) behaviour {
	return func(_ context.Context, srv *link.Server) string {
		_ = srv.Report(link.Report{State: link.Selecting, Variant: variant})
		return illegalReason
	}
}

// After each death by an illegal instruction, Avoid is called with the CPU variant. These deaths do
// not count, so any number of variants can be tried.
func TestAvoidsVariants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFixture(t, illegal("a"), illegal("b"), illegal("c"), illegal("d"), crashes, crashes, serves)
		var avoided []string
		h.Avoid = func(_ context.Context, variant string) bool {
			avoided = append(avoided, variant)
			return true
		}
		h.open()
		if err := h.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		h.close()
		if want := []string{"a", "b", "c", "d"}; !slices.Equal(avoided, want) {
			t.Errorf("avoided %q, want %q", avoided, want)
		}
		if !slices.Contains(h.seen(), "Loading EngineExited{"+illegalReason+"}") {
			t.Errorf("events %q", h.seen())
		}
	})
}

// If Avoid returns false, the death by an illegal instruction counts like any other.
func TestCannotAvoid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFixture(t, illegal("a"))
		calls := 0
		h.Avoid = func(context.Context, string) bool {
			calls++
			return calls == 1
		}
		h.open()
		<-h.over
		if h.err == nil || !strings.Contains(h.err.Error(), "SIGILL") || h.starts() != 4 {
			t.Errorf("Run = %v after %d starts", h.err, h.starts())
		}
	})
}

// The CPU variant of an engine that was ready is not avoided: its kernels have run, so the illegal
// instruction has another cause.
func TestIllegalInstructionAfterReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dies := func(ctx context.Context, srv *link.Server) string {
			_ = srv.Report(link.Report{State: link.Selecting, Variant: "a"})
			serves(ctx, srv)
			return illegalReason
		}
		h := newFixture(t, dies, serves)
		h.Avoid = func(context.Context, string) bool {
			t.Error("Avoid was called")
			return true
		}
		h.open()
		if err := h.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		h.kill()
		synctest.Wait()
		if err := h.ask(1); err != nil {
			t.Error(err)
		}
		h.close()
	})
}
