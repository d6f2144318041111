package infer

import (
	"slices"
	"sync"
)

// A Pause has the two reasons for which an admitted request must pause. A Handler that supports it
// pauses the request while either switch is on. The zero value means no pause.
//
// A callback of Stalled may set Preempted; a callback of Preempted must not set Stalled, so that
// the locks of the two switches are always taken in the same order.
type Pause struct {
	Preempted Switch // by the gate: another request has the slot
	Stalled   Switch // by the Handler: the client does not take its events
}

// MaxUntaken is the number of bytes of events that a Handler buffers for a client that does not
// read, before the request is stalled. Events of the step that exceeds it are buffered, too.
const MaxUntaken = 256 << 10

// A Switch is on or off, and reports every change to its watchers, in order. The zero value is off.
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

// Follow sets the switch to the result of state, which it calls under the switch's lock. It is for
// a state that several goroutines change: each of them calls Follow after its change, and the last
// call gets the last state.
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

// OnChange calls f with the present state, and then with the new state after every change. The
// calls are made under the switch's lock, and therefore in order. f must not block and must not use
// s. When stop returns, f is not running and will not be called again.
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
