// Package breaker decides whether requests may go to somebody who has failed of late. It
// is pure: it is told the time, and what became of whom it let pass. It does not know who
// fails, nor what a failure is.
package breaker

import (
	"slices"
	"time"
)

// The rule: so many failures within so much time, and nobody passes for a while; then one
// does, and how that ends decides.
const (
	Failures = 3
	Within   = 60 * time.Second
	Rest     = 30 * time.Second
)

// State says who may pass. The set is closed.
type State string

// States.
const (
	Closed   State = "closed"    // everybody
	Open     State = "open"      // nobody, until the rest is over
	HalfOpen State = "half_open" // nobody: one has passed, who decides
)

// Outcome is what became of one who passed. The set is closed.
type Outcome int

// Outcomes.
const (
	Neither Outcome = iota // says nothing: whoever asked gave up, or asked for nonsense
	Success
	Failure
)

// A Breaker is closed at first. It is not safe for concurrent use.
type Breaker struct {
	state  State       // "" is Closed
	failed []time.Time // while closed: the failures that count, oldest first
	opened time.Time   // while open: since when
	epoch  int         // number of the state: whoever passed in another one decides nothing
}

// A Pass is held by one who was let through, until it ends.
type Pass struct{ epoch int }

// State returns the state that was reached last: a rest that is over still is Open until
// somebody passes.
func (b *Breaker) State() State {
	if b.state == "" {
		return Closed
	}
	return b.state
}

// Lets reports whether somebody may pass.
func (b *Breaker) Lets(now time.Time) bool {
	switch b.State() {
	case Open:
		return now.Sub(b.opened) >= Rest
	case HalfOpen:
		return false
	case Closed:
	}
	return true
}

// Begin lets one pass. It is for those only whom Lets lets.
func (b *Breaker) Begin() Pass {
	if b.State() == Open {
		b.enter(HalfOpen)
	}
	return Pass{b.epoch}
}

// End is told what became of one who passed.
func (b *Breaker) End(p Pass, now time.Time, o Outcome) {
	if p.epoch != b.epoch || b.State() == Open {
		return
	}
	probe := b.State() == HalfOpen
	switch o {
	case Success:
		b.failed = b.failed[:0]
		if probe {
			b.enter(Closed)
		}
	case Failure:
		b.failed = slices.DeleteFunc(append(b.failed, now), func(t time.Time) bool { return now.Sub(t) >= Within })
		if probe || len(b.failed) >= Failures {
			b.enter(Open)
			b.opened = now
		}
	case Neither:
		if probe { // the next one tries, at once
			b.enter(Open)
		}
	}
}

func (b *Breaker) enter(s State) {
	b.state, b.failed = s, b.failed[:0]
	b.epoch++
}
