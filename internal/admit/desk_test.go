package admit_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd-go/inferd/internal/admit"
	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/infer"
)

// tick is the time that a desk's handler takes for a token.
const tick = 10 * time.Millisecond

// A desk is a gate in front of a handler that generates as many tokens as a request asks for, and
// obeys pauses.
type desk struct {
	t     *testing.T
	gate  *admit.Gate
	to    admit.Destination
	piece func(tokens, cost int) infer.Event // makes the events of answers
	all   sync.WaitGroup

	mu       sync.Mutex
	begun    []string
	requests map[string]*infer.Request // the requests that have begun, by ID
	written  map[string]int
	ended    map[string]string // by ID: "done", or the error
	busy     int               // the number of handlers that generate and are not paused
}

// pieces are the kinds of events that carry tokens.
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
	d := &desk{t: t, piece: text, requests: make(map[string]*infer.Request), written: make(map[string]int), ended: make(map[string]string)}
	d.to = admit.Destination{Backend: &backend.Backend{Name: "gen", Slots: slots, Handler: infer.HandlerFunc(d.write)}, Pausable: true}
	d.gate = &admit.Gate{Depth: depth, Total: 1000, Choose: func(*infer.Request) (admit.Destination, error) { return d.to, nil }}
	return d
}

func (d *desk) write(ctx context.Context, req *infer.Request, emit infer.Sink) error {
	d.mu.Lock()
	d.begun = append(d.begun, req.ID)
	d.requests[req.ID] = req
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

// token waits until the request has run for one tick, the time of one token, without a pause.
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

// stall starts or ends the stall of a request, which must have begun.
func (d *desk) stall(id string, on bool) {
	d.mu.Lock()
	req := d.requests[id]
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

// send sends a request for the given number of tokens. It returns when the request runs, waits or
// has ended.
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

// rests checks that as many handlers generate as requests run at the gate, and no more than there
// are slots.
func (d *desk) rests() {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.gate.Stats()
	if d.busy != s.Running || d.busy > d.to.Slots {
		d.t.Errorf("%d are at work on %d slots, %d run", d.busy, d.to.Slots, s.Running)
	}
}

// after waits for pause, and calls rests twice in each tick.
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
		d.t.Errorf("of the backend %+v", p)
	}
}

// bubble runs f with a desk in a synctest bubble, and checks at the end that the gate is empty.
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
