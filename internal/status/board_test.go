package status_test

import (
	"runtime"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/inferd-go/inferd/internal/status"
)

func TestSnapshotIsTheInitialState(t *testing.T) {
	b := status.NewBoard(status.Starting{})
	if got, want := b.Snapshot(), status.Event(status.Starting{}); got != want {
		t.Errorf("Snapshot = %#v, want %#v", got, want)
	}
}

func TestPublishUpdatesTheSnapshotAndReachesAllSubscribers(t *testing.T) {
	b := status.NewBoard(status.Starting{})
	subs := []*status.Subscription{b.Subscribe(), b.Subscribe()}
	b.Publish(status.Ready{})
	for i, s := range subs {
		defer s.Close() //nolint:revive // all of them stay until the test ends
		if got, want := <-s.Events(), status.Event(status.Ready{}); got != want {
			t.Errorf("subscriber %d got %#v, want %#v", i, got, want)
		}
	}
	if got, want := b.Snapshot(), status.Event(status.Ready{}); got != want {
		t.Errorf("Snapshot = %#v, want %#v", got, want)
	}
}

func TestCapabilitiesDoNotReplaceTheState(t *testing.T) {
	b := status.NewBoard(status.Starting{})
	b.Publish(status.Capabilities{Backend: "gen", Accelerator: "cpu"})
	if got, want := b.Snapshot(), status.Event(status.Starting{}); got != want {
		t.Errorf("Snapshot = %#v, want %#v", got, want)
	}
}

func TestBacklogIsSortedCapabilitiesAndThenTheState(t *testing.T) {
	b := status.NewBoard(status.Starting{})
	if diff := cmp.Diff([]status.Event{status.Starting{}}, subscribed(b)); diff != "" {
		t.Errorf("before any entry is built (-want +got):\n%s", diff)
	}
	b.Publish(status.Capabilities{Backend: "rank"})
	b.Publish(status.Ready{})
	b.Publish(status.Capabilities{Backend: "embed"})
	b.Publish(status.Capabilities{Backend: "gen"})
	b.Publish(status.Capabilities{Backend: "gen", GPULayers: 99}) // replaces the earlier ones of the entry
	want := []status.Event{
		status.Capabilities{Backend: "embed"},
		status.Capabilities{Backend: "gen", GPULayers: 99},
		status.Capabilities{Backend: "rank"},
		status.Ready{},
	}
	if diff := cmp.Diff(want, subscribed(b)); diff != "" {
		t.Errorf("backlog (-want +got):\n%s", diff)
	}
}

func subscribed(b *status.Board) []status.Event {
	s := b.Subscribe()
	defer s.Close()
	return s.Backlog
}

func TestLaggingSubscriberIsDroppedAlone(t *testing.T) {
	b := status.NewBoard(status.Starting{})
	slow, fast := b.Subscribe(), b.Subscribe()
	defer slow.Close()
	defer fast.Close()
	for i := range status.MaxUnread + 1 {
		b.Publish(event(i))
		if got := <-fast.Events(); got != event(i) {
			t.Fatalf("the other got %v, want %v", got, event(i))
		}
	}
	var got []status.Event
	for ev := range slow.Events() { // ends because the channel is closed
		got = append(got, ev)
	}
	if len(got) != status.MaxUnread || got[0] != event(0) || got[status.MaxUnread-1] != event(status.MaxUnread-1) {
		t.Errorf("the lagging one got %d events, want the first %d and the end", len(got), status.MaxUnread)
	}
	b.Publish(status.Ready{})
	if got := <-fast.Events(); got != (status.Ready{}) {
		t.Errorf("afterwards the other got %v, want ready", got)
	}
}

func TestCloseEndsOnlyItsOwnSubscription(t *testing.T) {
	b := status.NewBoard(status.Starting{})
	gone, there := b.Subscribe(), b.Subscribe()
	gone.Close()
	gone.Close() // a second time is harmless
	b.Publish(status.Ready{})
	if ev, ok := <-gone.Events(); ok {
		t.Errorf("a closed subscription got %v", ev)
	}
	if got := <-there.Events(); got != (status.Ready{}) {
		t.Errorf("the other got %v, want ready", got)
	}
	there.Close()
}

// event returns a lifecycle event that carries the number i.
func event(i int) status.Event {
	return status.Loading{Backend: "gen", Phase: status.KVCache{NCtx: i}}
}

// Whenever a subscription begins, its channel continues with the event after the last one of its
// backlog: no event is lost or doubled.
func TestSubscribingIsAtomic(t *testing.T) {
	const events = status.MaxUnread // no subscriber can lag too far
	for range 20 {
		b := status.NewBoard(event(0))
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for last := 0; last < events; { // subscribes again and again, at random times
					s := b.Subscribe()
					last = number(s.Backlog[0])
					for range min(3, events-last) {
						ev := <-s.Events()
						if number(ev) != last+1 {
							t.Errorf("%v follows %d", ev, last)
						}
						last++
					}
					s.Close()
				}
			})
		}
		for i := range events {
			b.Publish(event(i + 1))
			runtime.Gosched()
		}
		all.Wait()
	}
}

func number(ev status.Event) int {
	if l, ok := ev.(status.Loading); ok {
		if kv, ok := l.Phase.(status.KVCache); ok {
			return kv.NCtx
		}
	}
	return -1
}

// The state of a breaker does not replace the lifecycle event, and backlogs contain it while the
// breaker is not closed.
func TestBackendStateIsNoLifecycleEvent(t *testing.T) {
	b := status.NewBoard(status.Starting{})
	b.Publish(status.Ready{})
	b.Publish(status.Capabilities{Backend: "a"})
	b.Publish(status.BackendState{Backend: "b", State: "open"})
	b.Publish(status.BackendState{Backend: "a", State: "open"})
	if got := b.Snapshot(); got != (status.Ready{}) {
		t.Errorf("the state is %#v", got)
	}
	s := b.Subscribe()
	defer s.Close()
	want := []status.Event{status.Capabilities{Backend: "a"}, status.BackendState{Backend: "a", State: "open"}, status.BackendState{Backend: "b", State: "open"}, status.Ready{}}
	if diff := cmp.Diff(want, s.Backlog); diff != "" {
		t.Error(diff)
	}
	b.Publish(status.BackendState{Backend: "a", State: "closed"})
	if got := <-s.Events(); got != (status.BackendState{Backend: "a", State: "closed"}) {
		t.Errorf("got %#v", got)
	}
	later := b.Subscribe()
	defer later.Close()
	if got := later.Backlog[1]; got != (status.BackendState{Backend: "b", State: "open"}) {
		t.Errorf("backlog of a new subscription: %#v", later.Backlog)
	}
}

// The silence of an engine replaces neither the state of the breaker nor the lifecycle event, and
// backlogs contain it while it lasts.
func TestSilenceIsNoLifecycleEvent(t *testing.T) {
	b := status.NewBoard(status.Ready{})
	open := status.BackendState{Backend: "a", State: "open"}
	silent := status.Liveness{Backend: "a", Silent: true, Reason: "its process is stopped"}
	b.Publish(silent)
	b.Publish(open)
	if diff := cmp.Diff([]status.Event{open, silent, status.Ready{}}, subscribed(b)); diff != "" {
		t.Errorf("while it is silent (-want +got):\n%s", diff)
	}
	b.Publish(status.Liveness{Backend: "a"})
	if diff := cmp.Diff([]status.Event{open, status.Ready{}}, subscribed(b)); diff != "" {
		t.Errorf("when it responds (-want +got):\n%s", diff)
	}
}
