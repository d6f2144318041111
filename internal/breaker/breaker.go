// Package breaker decides whether requests may go to a target that has failed recently. It is pure:
// it reads no clock, and its caller reports the outcomes. It does not depend on the kind of the
// target or on the causes of failures.
package breaker

import (
	"slices"
	"time"
)

// A breaker opens once Failures requests have failed within Window without a success in between.
// After OpenFor it lets one request pass, the probe. The outcome of the probe closes or reopens the
// breaker.
const (
	Failures = 3
	Window   = 60 * time.Second
	OpenFor  = 30 * time.Second
)

// State determines which requests pass. It has only the values below.
type State string

// States.
const (
	Closed   State = "closed"    // all pass
	Open     State = "open"      // none pass until OpenFor is over
	HalfOpen State = "half_open" // the probe is under way, no other request passes
)

// Outcome is the result of a request that passed. It has only the values below.
type Outcome int

// Outcomes.
const (
	Ignored Outcome = iota // says nothing about the target, such as a cancelled or an invalid request
	Success
	Failure
)

// A Breaker is closed at first. It is not safe for concurrent use.
type Breaker struct {
	state    State       // "" is Closed
	failures []time.Time // times of the failures that count while closed, oldest first
	opened   time.Time   // time at which it was opened
	epoch    int         // number of state changes; outcomes of permits from earlier epochs are ignored
}

// A Permit belongs to one request from Begin to End.
type Permit struct{ epoch int }

// State returns the present state. It stays Open after OpenFor is over, until the next Begin.
func (b *Breaker) State() State {
	if b.state == "" {
		return Closed
	}
	return b.state
}

// Allow reports whether a request may pass.
func (b *Breaker) Allow(now time.Time) bool {
	switch b.State() {
	case Open:
		return now.Sub(b.opened) >= OpenFor
	case HalfOpen:
		return false
	case Closed:
	}
	return true
}

// Begin admits a request. It must follow an Allow that returned true.
func (b *Breaker) Begin() Permit {
	if b.State() == Open {
		b.enter(HalfOpen)
	}
	return Permit{b.epoch}
}

// End records the outcome of the request that holds p.
func (b *Breaker) End(p Permit, now time.Time, o Outcome) {
	if p.epoch != b.epoch || b.State() == Open {
		return
	}
	probe := b.State() == HalfOpen
	switch o {
	case Success:
		b.failures = b.failures[:0]
		if probe {
			b.enter(Closed)
		}
	case Failure:
		b.failures = slices.DeleteFunc(append(b.failures, now), func(t time.Time) bool { return now.Sub(t) >= Window })
		if probe || len(b.failures) >= Failures {
			b.enter(Open)
			b.opened = now
		}
	case Ignored:
		if probe { // opened does not change, so the next request is a probe at once
			b.enter(Open)
		}
	}
}

func (b *Breaker) enter(s State) {
	b.state, b.failures = s, b.failures[:0]
	b.epoch++
}
