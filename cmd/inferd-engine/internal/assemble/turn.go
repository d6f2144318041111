package assemble

import "github.com/inferd-go/inferd/cmd/inferd-engine/internal/computelock"

// A turn lets the loops of one engine compute one at a time, each with all threads, in the order of
// their calls of Do. During its turn a loop also holds the compute lock, if other engines compute
// on the same cores. The zero value is for an engine with one loop, on cores that no other engine
// uses.
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
