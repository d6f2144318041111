package assemble

import "github.com/inferd-go/inferd/cmd/inferd-engine/internal/computelock"

// A turn lets the loops of one engine compute one at a time, each with all threads, in the order
// of their calls of Do. A loop in its turn also holds the lock among engines. The zero value is
// for one loop that shares its cores with no other engine.
type turn struct {
	seat chan struct{}     // full while a loop computes; nil for one loop
	lock *computelock.Lock // nil if no other engine computes on the same cores
}

// Do runs compute when it is the turn of the calling loop. The wait for another loop of this
// engine has no bound: if that loop hangs, the engine hangs, and the daemon replaces it.
func (t *turn) Do(compute func()) {
	if t.seat != nil {
		t.seat <- struct{}{} // waiting senders are served in order
		defer func() { <-t.seat }()
	}
	t.lock.Do(compute)
}

// shared reports whether other loops or engines may have to wait for the computation of a loop.
func (t *turn) shared() bool { return t.seat != nil || t.lock != nil }
