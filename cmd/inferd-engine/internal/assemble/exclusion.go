package assemble

import "github.com/inferd-go/inferd/cmd/inferd-engine/internal/computelock"

// An exclusion lets the loops of one engine compute one at a time, each with all threads, in the order of
// their calls of Do. While it computes, a loop also holds the compute lock, if other engines compute
// on the same cores. The zero value is for an engine with one loop, on cores that no other engine
// uses.
type exclusion struct {
	computing chan struct{}     // full while a loop computes; nil for one loop
	lock      *computelock.Lock // nil if no other engine computes on the same cores
}

// Do runs compute once no other loop computes. The wait for another loop of this
// engine has no bound: if that loop hangs, the engine hangs, and the daemon replaces it.
func (t *exclusion) Do(compute func()) {
	if t.computing != nil {
		t.computing <- struct{}{} // waiting senders are served in order
		defer func() { <-t.computing }()
	}
	t.lock.Do(compute)
}

// shared reports whether other loops or engines may have to wait for the computation of a loop.
func (t *exclusion) shared() bool { return t.computing != nil || t.lock != nil }
