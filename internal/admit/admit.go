// Package admit is the one gate in front of the slots, for all surfaces: so many
// requests may run, so many more may wait, the rest are refused at once. It does
// not know what a request costs or who sent it; those that wait are let in in the
// order in which they came.
package admit

import (
	"context"
	"slices"
	"sync"

	"github.com/inferd-go/inferd/internal/infer"
)

// A Gate stands before Next. It owns no goroutine: whoever leaves lets the next
// one in.
type Gate struct {
	Next   infer.Handler
	Active int // requests that run at once; less than 1 means 1
	Depth  int // requests that may wait

	mu      sync.Mutex // guards the fields below
	running int
	waiting []*ticket // oldest first
	closed  bool
}

var _ infer.Handler = (*Gate)(nil)

// A ticket is a place in the queue. Its channel is closed when the wait is over.
type ticket struct {
	turn    chan struct{}
	refused error // set before turn is closed
}

// errClosed is told to those who come, or still wait, once the gate is closed.
var errClosed = infer.Errorf(infer.Unavailable, "admission closed")

// Handle passes req on when it is its turn. It refuses with [infer.Busy] at once if
// the queue is full, and with [infer.Unavailable] once the gate is closed.
func (g *Gate) Handle(ctx context.Context, req *infer.Request, emit infer.Sink) error {
	t, err := g.enter()
	if err != nil {
		return err
	}
	if t != nil {
		select {
		case <-t.turn:
			if t.refused != nil {
				return t.refused
			}
		case <-ctx.Done():
			if !g.withdraw(t) {
				g.leave() // its turn had just come
			}
			return context.Cause(ctx)
		}
	}
	defer g.leave()
	return g.Next.Handle(ctx, req, emit)
}

// Close refuses everybody who waits, and everybody who comes from now on. Those who
// run may finish.
func (g *Gate) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	for _, t := range g.waiting {
		t.refused = errClosed
		close(t.turn)
	}
	g.waiting = nil
}

// enter takes a place: it returns nil to run at once, or a ticket to wait with.
func (g *Gate) enter() (*ticket, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.closed:
		return nil, errClosed
	case g.running < max(g.Active, 1):
		g.running++
		return nil, nil
	case len(g.waiting) >= g.Depth:
		return nil, infer.Errorf(infer.Busy, "queue full")
	}
	t := &ticket{turn: make(chan struct{})}
	g.waiting = append(g.waiting, t)
	return t, nil
}

// withdraw gives up waiting. It reports false if the wait was over already.
func (g *Gate) withdraw(t *ticket) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(g.waiting, t)
	if i < 0 {
		return t.refused != nil // refused: there is no place to give back
	}
	g.waiting = slices.Delete(g.waiting, i, i+1)
	return true
}

// leave gives a running place to the one who has waited longest.
func (g *Gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting) == 0 {
		g.running--
		return
	}
	close(g.waiting[0].turn)
	g.waiting = slices.Delete(g.waiting, 0, 1)
}
