package admit_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd-go/inferd/internal/admit"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/sched"
)

// tick is the time that a desk's handler takes for a token.
const tick = 10 * time.Millisecond

// A desk is a gate before a handler that generates MaxTokens tokens and obeys pauses.
type desk struct {
	t     *testing.T
	gate  *admit.Gate
	place admit.Place
	piece func(tokens, cost int) infer.Event // of its answers
	all   sync.WaitGroup

	mu      sync.Mutex
	begun   []string
	asked   map[string]*infer.Request // that have begun
	written map[string]int
	ended   map[string]string // how: "done", or an error
	busy    int               // that are writing, and are not held
}

// pieces are the events that carry tokens.
var pieces = map[string]func(tokens, cost int) infer.Event{
	"text": text,
	"thinking": func(tokens, cost int) infer.Event {
		return &infer.Thinking{Delta: []byte("x"), Tokens: tokens, Cost: cost}
	},
	"tool calls": func(tokens, cost int) infer.Event {
		return &infer.ToolCall{Input: []byte("0"), Tokens: tokens, Cost: cost}
	},
}

func text(tokens, cost int) infer.Event {
	return &infer.Text{Delta: []byte("x"), Tokens: tokens, Cost: cost}
}

func newDesk(t *testing.T, slots, depth int) *desk {
	t.Helper()
	d := &desk{t: t, piece: text, asked: make(map[string]*infer.Request), written: make(map[string]int), ended: make(map[string]string)}
	d.place = admit.Place{Name: "gen", Slots: slots, Preemptible: true, Handler: infer.HandlerFunc(d.write)}
	d.gate = &admit.Gate{Depth: depth, Total: 1000, Choose: func(*infer.Request) (admit.Place, error) { return d.place, nil }}
	return d
}

func (d *desk) write(ctx context.Context, req *infer.Request, emit infer.Sink) error {
	d.mu.Lock()
	d.begun = append(d.begun, req.ID)
	d.asked[req.ID] = req
	d.mu.Unlock()
	n := req.Task.(*infer.Generate).MaxTokens
	for range n {
		if err := d.token(ctx, &req.Pause); err != nil {
			return err
		}
		d.mu.Lock()
		d.written[req.ID]++
		d.mu.Unlock()
		cost := 0
		if req.Peer.User == "costly" {
			cost = 3
		}
		if err := emit(d.piece(1, cost)); err != nil {
			return err
		}
	}
	return emit(&infer.Done{In: 1, Out: n})
}

// token takes the time of a token, during which the request must not pause.
func (d *desk) token(ctx context.Context, pause *infer.Pause) error {
	var preempted, stalled bool
	changes := make(chan func(), 1000)
	stopPreempted := pause.Preempted.OnChange(func(on bool) { changes <- func() { preempted = on } })
	defer stopPreempted()
	stopStalled := pause.Stalled.OnChange(func(on bool) { changes <- func() { stalled = on } })
	defer stopStalled()
	(<-changes)()
	(<-changes)()
	for {
		var written <-chan time.Time
		works := !preempted && !stalled
		if works {
			written = time.After(tick)
			d.busyBy(1)
		}
		done, change := false, func() {}
		select {
		case <-written:
			done = true
		case change = <-changes:
		case <-ctx.Done():
		}
		if works {
			d.busyBy(-1)
		}
		change()
		switch {
		case done:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
	}
}

// stall sets whether the client of a request reads. The request must have begun.
func (d *desk) stall(id string, on bool) {
	d.mu.Lock()
	req := d.asked[id]
	d.mu.Unlock()
	if req == nil {
		d.t.Fatalf("%s has not begun", id)
	}
	req.Pause.Stalled.Set(on)
	synctest.Wait()
	d.rests()
}

func (d *desk) busyBy(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.busy += n
}

// send sends a request for some tokens, and returns when it runs, waits or has ended.
func (d *desk) send(ctx context.Context, user, id string, tokens int) {
	d.sendTo(ctx, from(user, "x", id), tokens)
}

func (d *desk) sendTo(ctx context.Context, req *infer.Request, tokens int) {
	req.Task = &infer.Generate{Model: req.ID[:1], MaxTokens: tokens}
	d.all.Go(func() {
		how := "done"
		if err := d.gate.Handle(ctx, req, drop); err != nil {
			how = err.Error()
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.ended[req.ID] = how
	})
	synctest.Wait()
	d.rests()
}

// rests checks that the number of handlers at work is the gate's count, within the slots.
func (d *desk) rests() {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.gate.Stats()
	if d.busy != s.Running || d.busy > d.place.Slots {
		d.t.Errorf("%d are at work on %d slots, %d run", d.busy, d.place.Slots, s.Running)
	}
}

// after lets some time pass, and checks in between.
func (d *desk) after(pause time.Duration) {
	d.t.Helper()
	for end := time.Now().Add(pause); time.Now().Before(end); {
		time.Sleep(tick / 2)
		synctest.Wait()
		d.rests()
	}
}

func (d *desk) has(id string) (begun bool, written int, ended string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Contains(d.begun, id), d.written[id], d.ended[id]
}

func (d *desk) hasBegun(id string) bool {
	begun, _, _ := d.has(id)
	return begun
}

func (d *desk) counts(want admit.Counts) {
	d.t.Helper()
	s := d.gate.Stats()
	if s.Running != want.Running || s.Waiting != want.Waiting || s.Parked != want.Parked || s.Stalled != want.Stalled {
		d.t.Errorf("%d run, %d wait, %d of them parked, %d are stalled; want %+v", s.Running, s.Waiting, s.Parked, s.Stalled, want)
	}
	if p := s.Backends[0]; p.Running != want.Running || p.Waiting != want.Waiting || p.Parked != want.Parked || p.Stalled != want.Stalled {
		d.t.Errorf("at the place %+v", p)
	}
}

// bubble runs a test with a desk, which is empty at the end.
func bubble(t *testing.T, slots, depth int, f func(*desk)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, slots, depth)
		f(d)
		d.all.Wait()
		d.counts(admit.Counts{})
		for _, c := range d.gate.Stats().Callers {
			if c.Running != 0 || c.Waiting != 0 || c.Parked != 0 {
				d.t.Errorf("left behind: %+v", c)
			}
		}
	})
}

// A caller with all slots and a deep queue does not make another caller wait. Preempted
// answers are complete.
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
		_, before, _ := d.has("a1") // was parked, and goes on
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

// A parked request ends like any other: its client may hang up, its handler fail.
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
				d.place.Handler = infer.HandlerFunc(func(ctx context.Context, req *infer.Request, emit infer.Sink) error {
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
				if c := d.gate.Stats().Callers[0]; name == "done" && (c.In != 7 || c.Cached != 3 || c.Out != 5) {
					d.t.Errorf("counted %+v", c)
				}
			})
		})
	}
}

// A parked request has been admitted: it takes no place in the queue, and finishes after the
// gate has closed.
func TestParkedIsIn(t *testing.T) {
	bubble(t, 1, 1, func(d *desk) {
		d.send(d.t.Context(), "1", "a", 50)
		d.send(d.t.Context(), "2", "b", 50)
		d.counts(admit.Counts{Running: 1, Waiting: 1, Parked: 1})
		for _, id := range []string{"a waits", "b waits"} { // the one that may
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

// The parked requests of a caller and of a user are bounded, however many clients or programs
// they pose as. Their running requests are still preempted for others.
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

// When the sum of all places is full, a request is preempted for a request of another place
// that is not preemptible.
func TestParksForAnotherPlace(t *testing.T) {
	bubble(t, 2, 10, func(d *desk) {
		d.gate.Active = 2
		d.gate.Choose = func(req *infer.Request) (admit.Place, error) {
			p := d.place
			if req.ID[0] == 'e' {
				p.Name, p.Preemptible = "embed", false
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
		d.send(d.t.Context(), "4", "e3", 5) // now nobody can make way
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

// At an entry that generates and embeds, vectors use the slots of answers: they neither preempt
// an answer nor are preempted, and do not delay a request that may preempt.
func TestDoesNotPreempt(t *testing.T) {
	embeds := func(d *desk) {
		d.gate.Choose = func(req *infer.Request) (admit.Place, error) {
			p := d.place
			if req.ID[0] == 'e' {
				p.Preemptible, p.NoPreempt = false, true
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
				d.after((sched.Quantum + 1) * tick) // until it is the turn of c
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
				d.send(d.t.Context(), "3", "d", 5) // the slot of an answer, not of e1
				d.send(d.t.Context(), "4", "f", 5) // none is left
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

// Requests of a place without preemption, and of a caller without competitors, are not
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
		d.place.Preemptible = false
		d.send(d.t.Context(), "1", "a", 100)
		d.send(d.t.Context(), "2", "b", 1)
		d.after(99 * tick)
		if begun, _, _ := d.has("b"); begun {
			d.t.Error("b has begun beside a")
		}
	})
}

// A request is refused when its deadline passes while it waits. Once it runs, the handler ends
// it at the deadline, and the gate a while later.
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
			d.t.Errorf("who waits: %q", ended)
		}
		d.all.Wait()
		if _, n, ended := d.has("runs"); ended != "queue full: the deadline passed before the answer was there" || n > 130 {
			d.t.Errorf("who runs: %q after %d tokens", ended, n)
		}
		if _, _, ended := d.has("has time"); ended != "done" || time.Since(begin) > 3*time.Second {
			d.t.Errorf("who has time: %q", ended)
		}
	})
}

// For random requests, stalls and hang-ups every answer is complete, refused or cancelled, and
// at the end the gate is empty.
func TestParkingLife(t *testing.T) {
	for seed := range uint64(8) {
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
			for i := range 100 { // all clients read on
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

// BenchmarkToken is the cost of the gate for a token of an answer while other requests wait.
func BenchmarkToken(b *testing.B) {
	var (
		gate   *admit.Gate
		others sync.WaitGroup
		ev     = infer.Text{Delta: []byte("x"), Tokens: 1}
	)
	handle := func(ctx context.Context, req *infer.Request, emit infer.Sink) error {
		if req.ID != "measured" {
			return emit(&infer.Done{})
		}
		for i := range 10 {
			others.Go(func() {
				if err := gate.Handle(context.WithoutCancel(ctx), from("1", "x", fmt.Sprint(i)), drop); err != nil {
					b.Error(err)
				}
			})
		}
		for gate.Stats().Waiting < 10 {
			runtime.Gosched()
		}
		b.ReportAllocs()
		for b.Loop() {
			if err := emit(&ev); err != nil {
				return err
			}
		}
		return emit(&infer.Done{})
	}
	gate = &admit.Gate{Depth: 10, Total: 20, Choose: func(*infer.Request) (admit.Place, error) {
		return admit.Place{Name: "gen", Slots: 1, Preemptible: true, Handler: infer.HandlerFunc(handle)}, nil
	}}
	if err := gate.Handle(b.Context(), from("1", "x", "measured"), drop); err != nil {
		b.Fatal(err)
	}
	others.Wait()
}

// BenchmarkBesideWaiting is the cost of a request at an idle backend while 60 requests, of one
// caller or of as many, wait at another.
func BenchmarkBesideWaiting(b *testing.B) {
	for name, user := range map[string]func(i int) string{
		"one caller":   func(int) string { return "0" },
		"many callers": strconv.Itoa,
	} {
		b.Run(name, func(b *testing.B) {
			short := infer.HandlerFunc(func(_ context.Context, _ *infer.Request, emit infer.Sink) error {
				return emit(&infer.Done{In: 1, Out: 1})
			})
			long := infer.HandlerFunc(func(ctx context.Context, _ *infer.Request, _ infer.Sink) error {
				<-ctx.Done()
				return context.Cause(ctx)
			})
			gate := &admit.Gate{Depth: 64, Total: 256, Choose: func(req *infer.Request) (admit.Place, error) {
				if req.ID == "short" {
					return admit.Place{Name: "idle", Slots: 4, Preemptible: true, Handler: short}, nil
				}
				return admit.Place{Name: "busy", Slots: 4, Preemptible: true, Handler: long}, nil
			}}
			ctx, cancel := context.WithCancel(b.Context())
			var others sync.WaitGroup
			defer others.Wait()
			defer cancel()
			for i := range 64 {
				others.Go(func() { _ = gate.Handle(ctx, from(user(i), "x", "long"), drop) })
			}
			for gate.Stats().Waiting < 60 {
				runtime.Gosched()
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := gate.Handle(ctx, from("short", "x", "short"), drop); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
