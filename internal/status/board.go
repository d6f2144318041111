package status

import (
	"maps"
	"slices"
	"sync"
)

// Room is how many events a subscriber may lag behind before it is dropped.
const Room = 256

// A Board holds the latest state and hands every event to its subscribers.
// Publishing never blocks: a subscriber that lags is dropped, the others do not
// notice. The zero value is not usable, see [NewBoard].
type Board struct {
	mu       sync.Mutex // guards the fields below
	snapshot Event      // the latest of the lifecycle
	caps     map[string]Capabilities
	unwell   map[string]BackendState // those that are not healthy
	silent   map[string]Liveness     // of silent engines
	subs     map[*Subscription]struct{}
}

// NewBoard returns a board whose snapshot is initial.
func NewBoard(initial Event) *Board {
	return &Board{
		snapshot: initial,
		caps:     make(map[string]Capabilities),
		unwell:   make(map[string]BackendState),
		silent:   make(map[string]Liveness),
		subs:     make(map[*Subscription]struct{}),
	}
}

// Publish makes ev known to everybody.
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

// Snapshot returns the latest lifecycle event.
func (b *Board) Snapshot() Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.snapshot
}

// Subscribe starts a subscription. It is atomic: each event is either in the
// backlog or comes over the channel, never both, never neither.
func (b *Board) Subscribe() *Subscription {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &Subscription{board: b, events: make(chan Event, Room)}
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

// A Subscription is one watcher's view of a board.
type Subscription struct {
	// Backlog is what a newcomer is told first: the capabilities of every entry,
	// sorted by name, then the state of those to which requests do not go, then the silent
	// engines, then the latest lifecycle event.
	Backlog []Event

	board  *Board
	events chan Event // written and closed under board.mu
}

// Events yields what is published after the backlog. It is closed when the
// subscriber has lagged more than [Room] events behind, or by Close.
func (s *Subscription) Events() <-chan Event { return s.events }

// Close ends the subscription.
func (s *Subscription) Close() {
	s.board.mu.Lock()
	defer s.board.mu.Unlock()
	s.board.dropLocked(s)
}
