package status

import (
	"maps"
	"slices"
	"sync"
)

// MaxUnread is the number of unread events that a subscription holds. A subscriber that lags further is
// dropped.
const MaxUnread = 256

// A Board holds the latest state and sends every event to its subscribers. Publishing never blocks:
// a subscriber that lags too far is dropped, without effect on the others. Use [NewBoard]; the zero
// value is not usable.
type Board struct {
	mu       sync.Mutex // guards the fields below
	snapshot Event      // latest lifecycle event
	caps     map[string]Capabilities
	unwell   map[string]BackendState // entries with a breaker that is not closed
	silent   map[string]Liveness     // silent engines
	subs     map[*Subscription]struct{}
}

// NewBoard returns a board with the snapshot initial.
func NewBoard(initial Event) *Board {
	return &Board{
		snapshot: initial,
		caps:     make(map[string]Capabilities),
		unwell:   make(map[string]BackendState),
		silent:   make(map[string]Liveness),
		subs:     make(map[*Subscription]struct{}),
	}
}

// Publish records ev in the state of the board, and sends it to all subscribers. It does not block.
func (b *Board) Publish(ev Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch ev := ev.(type) {
	case Capabilities:
		b.caps[ev.Backend] = ev
	case BackendState:
		if ev.State == healthy {
			delete(b.unwell, ev.Backend)
		} else {
			b.unwell[ev.Backend] = ev
		}
	case Liveness:
		if ev.Silent {
			b.silent[ev.Backend] = ev
		} else {
			delete(b.silent, ev.Backend)
		}
	case Starting, Loading, Ready, Restarting, Draining:
		b.snapshot = ev
	}
	for s := range b.subs {
		select {
		case s.events <- ev:
		default:
			b.dropLocked(s)
		}
	}
}

// Subscribe starts a subscription atomically: the backlog holds the state of the board, and every
// later event arrives on the channel exactly once.
func (b *Board) Subscribe() *Subscription {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &Subscription{board: b, events: make(chan Event, MaxUnread)}
	for _, name := range slices.Sorted(maps.Keys(b.caps)) {
		s.Backlog = append(s.Backlog, b.caps[name])
	}
	for _, name := range slices.Sorted(maps.Keys(b.unwell)) {
		s.Backlog = append(s.Backlog, b.unwell[name])
	}
	for _, name := range slices.Sorted(maps.Keys(b.silent)) {
		s.Backlog = append(s.Backlog, b.silent[name])
	}
	s.Backlog = append(s.Backlog, b.snapshot)
	b.subs[s] = struct{}{}
	return s
}

func (b *Board) dropLocked(s *Subscription) {
	if _, ok := b.subs[s]; ok {
		delete(b.subs, s)
		close(s.events)
	}
}

// A Subscription is one subscriber's view of a board.
type Subscription struct {
	// Backlog is the state at the start: the capabilities of every entry, sorted by name,
	// then the entries with a breaker that is not closed, then the silent engines, then the
	// latest lifecycle event.
	Backlog []Event

	board  *Board
	events chan Event // written and closed under board.mu
}

// Events returns the channel of the events after the backlog. The channel is closed by Close, or
// when the subscriber lags by more than [MaxUnread] events.
func (s *Subscription) Events() <-chan Event { return s.events }

// Close ends the subscription, and closes the channel of Events. It may be called more than once.
func (s *Subscription) Close() {
	s.board.mu.Lock()
	defer s.board.mu.Unlock()
	s.board.dropLocked(s)
}
