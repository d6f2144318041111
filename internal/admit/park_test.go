package admit_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd-go/inferd/internal/admit"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/sched"
)

// A caller that holds all slots and has a deep queue does not make another caller wait. Preempted
// requests complete their answers.
func TestParks(t *testing.T) {
	bubble(t, 2, 20, func(d *desk) {
		for i := range 10 {
			d.send(d.t.Context(), "1", fmt.Sprint("a", i), 1000)
		}
		d.after(time.Second)
		d.send(d.t.Context(), "2", "b", 5)
		if begun, _, _ := d.has("b"); !begun {
			d.t.Fatal("b waits")
		}
		d.counts(admit.Counts{Running: 2, Waiting: 9, Parked: 1})
		d.after(6 * tick)
		if _, _, ended := d.has("b"); ended != "done" {
			d.t.Errorf("b: %q", ended)
		}
		d.counts(admit.Counts{Running: 2, Waiting: 8})
		_, before, _ := d.has("a1") // a1 was parked, and has resumed
		d.after(10 * tick)
		if _, now, _ := d.has("a1"); now != before+10 {
			d.t.Errorf("a1 has written %d, and %d before", now, before)
		}
		d.all.Wait()
		if len(d.begun) != 11 {
			d.t.Errorf("begun: %v", d.begun)
		}
		for id, how := range d.ended {
			if want := 1000; how != "done" || id != "b" && d.written[id] != want {
				d.t.Errorf("%s: %s, %d tokens", id, how, d.written[id])
			}
		}
	})
}

// Two callers with unlimited demand take turns on one slot.
func TestTurns(t *testing.T) {
	bubble(t, 1, 20, func(d *desk) {
		ctx, stop := context.WithCancel(d.t.Context())
		for i := range 3 {
			d.send(ctx, "1", fmt.Sprint("a", i), 100_000)
			d.send(ctx, "2", fmt.Sprint("b", i), 100_000)
		}
		d.after(1000 * tick)
		_, a, _ := d.has("a0")
		_, b, _ := d.has("b0")
		if a+b < 999 || a-b > 3*sched.Quantum || b-a > 3*sched.Quantum {
			d.t.Errorf("a has written %d, b %d", a, b)
		}
		stop()
	})
}

// A parked request ends like any other if its client hangs up, or if its handler fails or completes
// the answer.
func TestEndsWhileParked(t *testing.T) {
	hangUp := errors.New("hung up")
	for name, test := range map[string]struct {
		end  func(cancel context.CancelCauseFunc, fail func(error))
		want string
	}{
		"hung up": {func(cancel context.CancelCauseFunc, _ func(error)) { cancel(hangUp) }, "hung up"},
		"failed":  {func(_ context.CancelCauseFunc, fail func(error)) { fail(errors.New("died")) }, "died"},
		"done":    {func(_ context.CancelCauseFunc, fail func(error)) { fail(nil) }, "done"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 1, 20, func(d *desk) {
				ends := make(chan error, 1)
				d.to.Handler = infer.HandlerFunc(func(ctx context.Context, req *infer.Request, emit infer.Sink) error {
					if req.ID != "a" {
						return d.write(ctx, req, emit)
					}
					d.busyBy(1) // until it is preempted
					preempted := make(chan struct{})
					defer req.Pause.Preempted.OnChange(func(on bool) {
						if on {
							close(preempted)
						}
					})()
					<-preempted
					d.busyBy(-1)
					select {
					case err := <-ends:
						if err != nil {
							return err
						}
						return emit(&infer.Done{In: 7, Cached: 3, Out: 5})
					case <-ctx.Done():
						return context.Cause(ctx)
					}
				})
				ctx, cancel := context.WithCancelCause(d.t.Context())
				d.send(ctx, "1", "a", 1000)
				d.send(d.t.Context(), "2", "b", 20)
				d.counts(admit.Counts{Running: 1, Waiting: 1, Parked: 1})
				test.end(cancel, func(err error) { ends <- err })
				synctest.Wait()
				d.counts(admit.Counts{Running: 1})
				if _, _, ended := d.has("a"); ended != test.want {
					d.t.Errorf("ended with %q", ended)
				}
				if c := d.gate.Stats().Callers[0]; name == "done" && (c.InputTokens != 7 || c.CachedTokens != 3 || c.OutputTokens != 5) {
					d.t.Errorf("counted %+v", c)
				}
			})
		})
	}
}

// A parked request takes no place in the queue, and finishes even after the gate has closed,
// because it has been admitted.
func TestParkedIsIn(t *testing.T) {
	bubble(t, 1, 1, func(d *desk) {
		d.send(d.t.Context(), "1", "a", 50)
		d.send(d.t.Context(), "2", "b", 50)
		d.counts(admit.Counts{Running: 1, Waiting: 1, Parked: 1})
		for _, id := range []string{"a waits", "b waits"} { // one request of each caller may wait
			d.send(d.t.Context(), map[byte]string{'a': "1", 'b': "2"}[id[0]], id, 50)
		}
		d.send(d.t.Context(), "1", "too many", 50)
		d.counts(admit.Counts{Running: 1, Waiting: 3, Parked: 1})
		d.gate.Close()
		d.send(d.t.Context(), "1", "late", 50)
		d.after(120 * tick)
		for id, want := range map[string]string{
			"a": "done", "b": "done", "too many": "queue full",
			"a waits": "admission closed", "b waits": "admission closed", "late": "admission closed",
		} {
			if _, _, ended := d.has(id); ended != want {
				d.t.Errorf("%s: %q, want %q", id, ended, want)
			}
		}
	})
}

// The parked requests of a caller and of a user are bounded, however many client names or programs
// they use. Their running requests are still preempted for others.
func TestParkedIsBounded(t *testing.T) {
	for name, test := range map[string]struct {
		total int
		as    func(i int) *infer.Request
		want  admit.Counts
	}{
		"clients": {100, func(i int) *infer.Request {
			req := from("1", "x", fmt.Sprint(i))
			req.Client = req.ID
			return req
		}, admit.Counts{Running: 1, Waiting: 3 + 3, Parked: 3}},
		"programs": {10, func(i int) *infer.Request {
			return from("1", fmt.Sprint(i), fmt.Sprint(i))
		}, admit.Counts{Running: 1, Waiting: 5 + 5, Parked: 5}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 1, 3, func(d *desk) {
				d.gate.Total = test.total
				ctx, cancel := context.WithCancel(d.t.Context())
				for i := range 40 {
					d.sendTo(ctx, test.as(i), 100_000)
				}
				d.counts(test.want)
				d.send(d.t.Context(), "2", "other", 5)
				if begun, _, _ := d.has("other"); !begun {
					d.t.Error("another one waits")
				}
				d.after(200 * tick)
				if s := d.gate.Stats(); s.Parked > test.want.Parked+1 {
					d.t.Errorf("%d are parked", s.Parked)
				}
				cancel()
			})
		})
	}
}

// While Active requests run at all backends together, a request can be preempted for one of another
// backend. Requests that are not preemptible keep their slots.
func TestParksForAnotherBackend(t *testing.T) {
	bubble(t, 2, 10, func(d *desk) {
		d.gate.Active = 2
		d.gate.Choose = func(req *infer.Request) (admit.Destination, error) {
			p := d.to
			if req.ID[0] == 'e' {
				p.Backend, p.Pausable = named(p.Backend, "embed"), false
			}
			return p, nil
		}
		d.send(d.t.Context(), "1", "a", 100)
		d.send(d.t.Context(), "1", "b", 100)
		d.send(d.t.Context(), "2", "e1", 5)
		if begun, _, _ := d.has("e1"); !begun {
			d.t.Error("e1 waits")
		}
		d.send(d.t.Context(), "3", "e2", 5)
		d.send(d.t.Context(), "4", "e3", 5) // now no request can be preempted
		for id, want := range map[string]bool{"e2": true, "e3": false} {
			if begun, _, _ := d.has(id); begun != want {
				d.t.Errorf("%s has begun: %v", id, begun)
			}
		}
		d.after(20 * tick)
		if _, _, ended := d.has("e3"); ended != "done" {
			d.t.Errorf("e3: %q", ended)
		}
	})
}

// At an entry that generates and embeds, both kinds of requests share the slots. A request for
// vectors neither preempts an answer nor is preempted, and does not delay a request that may
// preempt.
func TestDoesNotPreempt(t *testing.T) {
	embeds := func(d *desk) {
		d.gate.Choose = func(req *infer.Request) (admit.Destination, error) {
			p := d.to
			if req.ID[0] == 'e' {
				p.Pausable, p.NoPreempt = false, true
			}
			return p, nil
		}
	}
	for name, active := range map[string]int{"all slots are taken": 0, "all permits are taken": 2} {
		t.Run(name, func(t *testing.T) {
			bubble(t, max(2, 2*active), 10, func(d *desk) {
				embeds(d)
				d.gate.Active = active
				d.send(d.t.Context(), "1", "a", 200)
				d.send(d.t.Context(), "1", "b", 200)
				d.send(d.t.Context(), "2", "e1", 50)
				d.send(d.t.Context(), "2", "c", 20)
				d.after((sched.Quantum + 1) * tick) // until c has the next turn
				for id, want := range map[string]bool{"e1": false, "c": true} {
					if begun, _, _ := d.has(id); begun != want {
						d.t.Errorf("%s has begun: %v", id, begun)
					}
				}
				d.counts(admit.Counts{Running: 2, Waiting: 2, Parked: 1})
				d.after(20 * tick) // c has ended
				if begun, _, _ := d.has("e1"); !begun {
					d.t.Error("e1 waits although c has ended")
				}
				d.send(d.t.Context(), "3", "d", 5) // d gets the slot of an answer, not that of e1
				d.send(d.t.Context(), "4", "f", 5) // no slot is left for f
				d.after(2 * tick)
				if _, _, ended := d.has("e1"); ended != "" {
					d.t.Errorf("e1 has ended: %q", ended)
				}
				d.after(60 * tick)
				if _, n, ended := d.has("e1"); ended != "done" || n != 50 {
					d.t.Errorf("e1: %q after %d", ended, n)
				}
			})
		})
	}
}

// Requests of a backend without preemption, and of a caller without competitors, are not
// preempted.
func TestDoesNotPark(t *testing.T) {
	bubble(t, 1, 10, func(d *desk) {
		d.send(d.t.Context(), "1", "a", 100)
		d.send(d.t.Context(), "1", "a too", 100)
		d.after(100 * tick)
		if begun, _, _ := d.has("a too"); !begun {
			d.t.Error("a's second does not follow the first")
		}
		if _, _, ended := d.has("a"); ended != "done" {
			d.t.Errorf("a: %q", ended)
		}
	})
	bubble(t, 1, 10, func(d *desk) {
		d.to.Pausable = false
		d.send(d.t.Context(), "1", "a", 100)
		d.send(d.t.Context(), "2", "b", 1)
		d.after(99 * tick)
		if begun, _, _ := d.has("b"); begun {
			d.t.Error("b has begun beside a")
		}
	})
}

// A request is refused when its deadline passes while it waits. If the handler does not end a
// running request at its deadline, the gate ends it deadlineGrace later.
func TestDeadline(t *testing.T) {
	bubble(t, 1, 10, func(d *desk) {
		due := func(id string, in time.Duration) *infer.Request {
			req := from("1", "x", id)
			req.Deadline = time.Now().Add(in)
			return req
		}
		begin := time.Now()
		d.sendTo(d.t.Context(), due("runs", 30*tick), 1_000)
		d.sendTo(d.t.Context(), due("waits", 20*tick), 10)
		d.sendTo(d.t.Context(), due("has time", time.Hour), 10)
		d.after(21 * tick)
		if _, _, ended := d.has("waits"); ended != "queue full: the deadline passed while the request waited" {
			d.t.Errorf("the waiting request: %q", ended)
		}
		d.all.Wait()
		if _, n, ended := d.has("runs"); ended != "queue full: the deadline passed before the answer was complete" || n > 130 {
			d.t.Errorf("the running request: %q after %d tokens", ended, n)
		}
		if _, _, ended := d.has("has time"); ended != "done" || time.Since(begin) > 3*time.Second {
			d.t.Errorf("the request with time: %q", ended)
		}
	})
}

// With stalls and hang-ups at random times, every answer is complete, refused or canceled, and the
// gate is empty at the end.
func TestRandomStalls(t *testing.T) {
	seeds := uint64(8)
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		bubble(t, 3, 5, func(d *desk) {
			r := rand.New(rand.NewPCG(seed, 2))
			d.gate.Active = 2 + r.IntN(3)
			sizes := make(map[string]int)
			for i := range 100 {
				id, tokens := fmt.Sprint(i), 1+r.IntN(120)
				sizes[id] = tokens
				ctx, cancel := context.WithCancel(d.t.Context())
				if r.IntN(4) == 0 {
					time.AfterFunc(time.Duration(r.IntN(200))*tick, cancel)
				}
				req := from(fmt.Sprint(r.IntN(4)), fmt.Sprint(r.IntN(2)), id)
				req.Background = r.IntN(5) == 0
				d.sendTo(ctx, req, tokens)
				if one := fmt.Sprint(r.IntN(i + 1)); d.hasBegun(one) {
					d.stall(one, r.IntN(2) == 0)
				}
				d.after(time.Duration(r.IntN(30)) * tick)
				defer cancel()
			}
			for i := range 100 { // all clients read again
				if one := fmt.Sprint(i); d.hasBegun(one) {
					d.stall(one, false)
				}
			}
			d.all.Wait()
			for id, n := range sizes {
				_, written, ended := d.has(id)
				switch {
				case ended == "done" && written != n, ended == "queue full" && written != 0, ended == "":
					d.t.Errorf("%s: %q, %d tokens of %d", id, ended, written, n)
				}
			}
		})
	}
}
