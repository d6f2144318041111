package infer

import (
	"slices"
	"sync"
)

// A Pause says whether a request that has been admitted must stop for now, and why. A
// Handler that can pause a request stops while either reason holds. The zero value is no
// pause.
//
// Callbacks of the two switches may nest in one order only: a callback of Stalled may set
// Preempted, never the other way round.
type Pause struct {
	Preempted Switch // by the gate: another request has the slot
	Stalled   Switch // by the Handler: the client does not take its events
}

// MaxUntaken is the most bytes of events that a Handler keeps for a client that does not
// read, apart from the events of the present step: past it the request is stalled.
const MaxUntaken = 256 << 10

// A Switch is on or off, and reports every change in order. The zero value is off.
type Switch struct {
	mu       sync.Mutex // guards the fields below; held during callbacks
	on       bool
	watchers []*func(on bool)
}

// Set turns the switch on or off. When it returns, all callbacks have run.
func (s *Switch) Set(on bool) { s.Follow(func() bool { return on }) }

// On reports whether the switch is on.
func (s *Switch) On() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.on
}

// Follow sets the switch to the value of state, which is read under the switch's lock. A
// state that several goroutines change needs it: each calls Follow after its change, and
// the last call sees the last state.
func (s *Switch) Follow(state func() bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	on := state()
	if on == s.on {
		return
	}
	s.on = on
	for _, f := range s.watchers {
		(*f)(on)
	}
}

// OnChange calls f with the present state, and then after every change, under the
// switch's lock and therefore in order. f must not block and must not use s. When stop
// returns, f neither runs nor is called again.
func (s *Switch) OnChange(f func(on bool)) (stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers = append(s.watchers, &f)
	f(s.on)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if i := slices.Index(s.watchers, &f); i >= 0 {
			s.watchers = slices.Delete(s.watchers, i, i+1)
		}
	}
}
