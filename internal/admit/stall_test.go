package admit_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/inferd-go/inferd/internal/admit"
	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/quota"
	"github.com/inferd-go/inferd/internal/sched"
)

// A stalled request gives up its slot, even to a request of its own caller. When its client reads
// again, it is parked until it gets a slot, and then resumes; its answer is complete.
func TestStalledGivesUpItsSlot(t *testing.T) {
	bubble(t, 1, 10, func(d *desk) {
		d.send(d.t.Context(), "1", "a", 20)
		d.after(5 * tick)
		d.send(d.t.Context(), "1", "next", 100) // the same flow: it cannot preempt
		d.counts(admit.Counts{Running: 1, Waiting: 1})
		d.stall("a", true)
		d.counts(admit.Counts{Running: 1, Stalled: 1})
		if !d.hasBegun("next") {
			d.t.Error("the slot is not free")
		}
		d.after(20 * tick)
		_, before, _ := d.has("a")
		d.stall("a", false)
		d.counts(admit.Counts{Running: 1, Waiting: 1, Parked: 1})
		if _, written, _ := d.has("a"); written != before {
			d.t.Error("it resumed without a slot")
		}
		d.after(200 * tick)
		for _, id := range []string{"a", "next"} {
			if _, _, ended := d.has(id); ended != "done" {
				d.t.Errorf("%s: %q", id, ended)
			}
		}
	})
}

// If no other request waits, a stalled request resumes at once when its client reads again.
func TestStalledAlone(t *testing.T) {
	bubble(t, 1, 10, func(d *desk) {
		d.send(d.t.Context(), "1", "a", 10)
		for range 3 {
			d.stall("a", true)
			d.counts(admit.Counts{Stalled: 1})
			d.after(50 * tick)
			d.stall("a", false)
			d.counts(admit.Counts{Running: 1})
			d.after(2 * tick)
		}
		d.after(20 * tick)
		if _, written, ended := d.has("a"); written != 10 || ended != "done" {
			d.t.Errorf("%d tokens, %q", written, ended)
		}
	})
}

// A parked request may stall. While it is stalled, it takes no turns; when its client reads again,
// it takes turns as before.
func TestStalledWhileParked(t *testing.T) {
	bubble(t, 1, 10, func(d *desk) {
		d.send(d.t.Context(), "1", "a", 100)
		d.send(d.t.Context(), "2", "b", 100)
		d.counts(admit.Counts{Running: 1, Waiting: 1, Parked: 1})
		d.stall("a", true)
		d.counts(admit.Counts{Running: 1, Stalled: 1})
		d.after(90 * tick)
		if _, written, _ := d.has("b"); written < 80 {
			d.t.Errorf("b has %d tokens: it took turns with a stalled request", written)
		}
		d.stall("a", false)
		d.after(250 * tick)
		for _, id := range []string{"a", "b"} {
			if _, written, ended := d.has(id); written != 100 || ended != "done" {
				d.t.Errorf("%s: %d tokens, %q", id, written, ended)
			}
		}
	})
}

// Stalled requests count towards the queue depth and the memory of their caller. A request that
// stalls beyond either limit ends with queue_full, and the caller's next request gets the slot.
func TestStalledIsBounded(t *testing.T) {
	for name, test := range map[string]struct {
		depth  int
		memory int64
		most   int
	}{
		"by the queue depth": {3, 1 << 30, 3},
		"by memory":          {10, 2 * infer.MaxUntaken, 2},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 1, test.depth, func(d *desk) {
				d.gate.Memory = &quota.Quota{PerCaller: test.memory, Total: 1 << 40}
				for i := range 5 {
					id := fmt.Sprint(i)
					d.send(d.t.Context(), "1", id, 100)
					d.stall(id, true)
					d.counts(admit.Counts{Stalled: min(i+1, test.most)})
				}
				for i := range 5 {
					_, _, ended := d.has(fmt.Sprint(i))
					if full := strings.HasPrefix(ended, "queue full: the answer is not read"); full != (i >= test.most) {
						d.t.Errorf("%d ended with %q", i, ended)
					}
				}
				d.send(d.t.Context(), "1", "next", 5)
				if !d.hasBegun("next") {
					d.t.Error("the slot is not free")
				}
				d.after(10 * tick)
				for i := range test.most {
					d.stall(fmt.Sprint(i), false)
				}
				d.after(1000 * tick)
				d.counts(admit.Counts{})
				if n := d.gate.Memory.Taken(); n != 0 {
					d.t.Errorf("%d bytes are still taken", n)
				}
			})
		})
	}
}

// If the client of a stalled request hangs up, the request frees its place and its memory.
func TestStalledEnds(t *testing.T) {
	hangUp := errors.New("hung up")
	bubble(t, 1, 1, func(d *desk) {
		for i := range 3 {
			id := fmt.Sprint(i)
			ctx, cancel := context.WithCancelCause(d.t.Context())
			d.send(ctx, "1", id, 100)
			d.stall(id, true)
			d.counts(admit.Counts{Stalled: 1})
			cancel(hangUp)
			synctest.Wait()
			d.counts(admit.Counts{})
			if _, _, ended := d.has(id); ended != "hung up" {
				d.t.Errorf("ended with %q", ended)
			}
		}
	})
}

// A caller with as many stalled requests as its queue is deep cannot preempt other callers: each
// preemption would let one more request begin, stall and hold memory.
func TestStalledCrowd(t *testing.T) {
	bubble(t, 1, 3, func(d *desk) {
		ctx, cancel := context.WithCancel(d.t.Context())
		defer cancel()
		d.send(ctx, "2", "other", 100_000)
		for i := range 3 {
			id := fmt.Sprint(i)
			d.after(2 * sched.Quantum * tick)
			d.send(ctx, "1", id, 100)
			d.stall(id, true)
		}
		d.after(2 * sched.Quantum * tick)
		d.send(ctx, "1", "more", 100)
		if d.hasBegun("more") {
			d.t.Error("it preempts another user")
		}
		d.stall("0", false)
		d.after(2 * sched.Quantum * tick)
		if _, written, _ := d.has("0"); written == 0 {
			d.t.Error("the first one does not resume")
		}
	})
}

// Vectors and scores are passed on after their slot is free, so a client that does not read them
// delays only itself.
func TestResultsKeepNoSlot(t *testing.T) {
	for name, result := range map[string]infer.Event{
		"vectors": &infer.Vectors{Values: [][]float32{{1, 2}}},
		"scores":  &infer.Scores{Values: []float64{3}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				to := admit.Destination{Backend: &backend.Backend{Name: "embed", Slots: 1, Handler: infer.HandlerFunc(func(_ context.Context, _ *infer.Request, emit infer.Sink) error {
					if err := emit(result); err != nil {
						return err
					}
					return emit(&infer.Done{In: 4})
				})}}
				gate := &admit.Gate{Depth: 10, Total: 10, Choose: func(*infer.Request) (admit.Destination, error) { return to, nil }}
				reads := make(chan struct{})
				events := make(chan []infer.Event, 1)
				go func() {
					var got []infer.Event
					err := gate.Handle(t.Context(), from("1", "x", "slow"), func(ev infer.Event) error {
						if _, ok := ev.(*infer.Admitted); ok {
							return nil
						}
						<-reads
						got = append(got, ev)
						return nil
					})
					if err != nil {
						t.Error(err)
					}
					events <- got
				}()
				synctest.Wait()
				if s := gate.Stats(); s.Running != 0 {
					t.Error("the slot is taken")
				}
				if err := gate.Handle(t.Context(), from("2", "x", "next"), drop); err != nil {
					t.Error(err)
				}
				close(reads)
				got := <-events
				if len(got) != 2 {
					t.Fatalf("%d events", len(got))
				}
				if _, ok := got[1].(*infer.Done); !ok {
					t.Errorf("the last one is a %T", got[1])
				}
			})
		})
	}
}

// A request is charged for the tokens that it has generated even if its client takes none, so it
// takes turns with another request.
func TestTurnsByWrittenTokens(t *testing.T) {
	for name, piece := range pieces {
		t.Run(name, func(t *testing.T) {
			bubble(t, 1, 10, func(d *desk) {
				d.piece = piece
				write := d.write
				d.to.Handler = infer.HandlerFunc(func(ctx context.Context, req *infer.Request, emit infer.Sink) error {
					if req.ID != "unread" {
						return write(ctx, req, emit)
					}
					return write(ctx, req, func(infer.Event) error {
						req.Written(1, 0)
						return nil
					})
				})
				ctx, cancel := context.WithCancel(d.t.Context())
				defer cancel()
				d.send(ctx, "1", "unread", 100_000)
				d.send(d.t.Context(), "2", "b", 4*sched.Quantum)
				d.after(9 * sched.Quantum * tick)
				if _, written, ended := d.has("b"); ended != "done" {
					d.t.Errorf("b: %d tokens, %q", written, ended)
				}
				if _, written, _ := d.has("unread"); written < 3*sched.Quantum {
					d.t.Errorf("the other one has only %d tokens", written)
				}
			})
		})
	}
}

// Thinking and tool calls are charged like text: two callers have equal shares of a slot.
func TestPreemptedWhateverItWrites(t *testing.T) {
	for name, piece := range pieces {
		t.Run(name, func(t *testing.T) {
			bubble(t, 1, 10, func(d *desk) {
				d.piece = piece
				d.send(d.t.Context(), "1", "a", 100*sched.Quantum)
				d.send(d.t.Context(), "2", "b", 100*sched.Quantum)
				d.after(20 * sched.Quantum * tick)
				_, a, _ := d.has("a")
				_, b, _ := d.has("b")
				if most, least := max(a, b), min(a, b); least < 8*sched.Quantum || most-least > 2*sched.Quantum {
					d.t.Errorf("%d and %d tokens", a, b)
				}
				d.all.Wait()
			})
		})
	}
}

// The cost of sampling is charged like tokens, during the answer and at its end, and is not in the
// usage.
func TestCostIsCharged(t *testing.T) {
	for name, piece := range pieces {
		t.Run(name, func(t *testing.T) {
			bubble(t, 1, 10, func(d *desk) {
				d.piece = piece
				const tokens = 20 * sched.Quantum
				d.send(d.t.Context(), "costly", "costly", tokens)
				d.send(d.t.Context(), "plain", "plain", tokens)
				for done := false; !done; {
					d.after(tick)
					_, _, ended := d.has("plain")
					done = ended != ""
				}
				_, costly, _ := d.has("costly")
				if costly < tokens/4-2*sched.Quantum || costly > tokens/4+2*sched.Quantum {
					d.t.Errorf("%d tokens beside %d plain ones, want a quarter", costly, tokens)
				}
				d.all.Wait()
				for _, c := range d.gate.Stats().Callers {
					if c.OutputTokens != tokens {
						d.t.Errorf("%s: %d tokens are counted", c.User, c.OutputTokens)
					}
				}
			})
		})
	}
}
