package admit_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd-go/inferd/internal/admit"
	"github.com/inferd-go/inferd/internal/infer"
)

// A scene is a gate before a handler that takes a second for each request.
type scene struct {
	gate *admit.Gate

	mu     sync.Mutex
	served []string
	failed map[string]infer.Code
	most   int // that ran at once
	now    int
}

func newScene(active, depth int) *scene {
	s := &scene{failed: make(map[string]infer.Code)}
	s.gate = &admit.Gate{Active: active, Depth: depth, Next: infer.HandlerFunc(func(_ context.Context, req *infer.Request, _ infer.Sink) error {
		s.mu.Lock()
		s.served = append(s.served, req.ID)
		s.now++
		s.most = max(s.most, s.now)
		s.mu.Unlock()
		time.Sleep(time.Second)
		s.mu.Lock()
		s.now--
		s.mu.Unlock()
		return nil
	})}
	return s
}

func (s *scene) ask(ctx context.Context, id string) {
	if err := s.gate.Handle(ctx, &infer.Request{ID: id, Task: &infer.Generate{}}, nil); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.failed[id] = infer.CodeOf(err)
	}
}

func TestGate(t *testing.T) {
	ids := []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15"}
	for name, test := range map[string]struct {
		active, depth, arrive int
		most                  int
		refused               []string
	}{
		"ten streams: four run, six wait":         {4, 10, 10, 4, nil},
		"the fifteenth is refused":                {4, 10, 15, 4, []string{"15"}},
		"nobody may wait":                         {1, 0, 2, 1, []string{"2"}},
		"an active count of nought counts as one": {0, 1, 3, 1, []string{"3"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene(test.active, test.depth)
				var all sync.WaitGroup
				for _, id := range ids[:test.arrive] {
					all.Go(func() { s.ask(t.Context(), id) })
					synctest.Wait() // so that they arrive in this order
				}
				all.Wait()
				if s.most != test.most {
					t.Errorf("%d ran at once, want %d", s.most, test.most)
				}
				if len(s.failed) != len(test.refused) {
					t.Errorf("refused %v, want %v", s.failed, test.refused)
				}
				for _, id := range test.refused {
					if s.failed[id] != infer.Busy {
						t.Errorf("%s was refused with %q", id, s.failed[id])
					}
				}
				if got, want := len(s.served), test.arrive-len(test.refused); got != want {
					t.Errorf("served %v, want %d", s.served, want)
				}
			})
		})
	}
}

func TestServesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(1, 10)
		var all sync.WaitGroup
		want := []string{"a", "b", "c", "d", "e"}
		for _, id := range want {
			all.Go(func() { s.ask(t.Context(), id) })
			synctest.Wait()
		}
		all.Wait()
		if !slices.Equal(s.served, want) {
			t.Errorf("served %v", s.served)
		}
	})
}

func TestWhoeverLeavesMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(1, 1)
		gone := errors.New("hung up")
		ctx, leave := context.WithCancelCause(t.Context())
		var all sync.WaitGroup
		all.Go(func() { s.ask(t.Context(), "runs") })
		synctest.Wait()
		all.Go(func() {
			if err := s.gate.Handle(ctx, &infer.Request{ID: "waits"}, nil); !errors.Is(err, gone) {
				t.Errorf("who left got %v", err)
			}
		})
		synctest.Wait()
		leave(gone)
		synctest.Wait()
		all.Go(func() { s.ask(t.Context(), "next") })
		all.Wait()
		if want := []string{"runs", "next"}; !slices.Equal(s.served, want) {
			t.Errorf("served %v, want %v", s.served, want)
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(1, 5)
		var all sync.WaitGroup
		for _, id := range []string{"runs", "waits", "waits too"} {
			all.Go(func() { s.ask(t.Context(), id) })
			synctest.Wait()
		}
		s.gate.Close()
		s.ask(t.Context(), "late")
		all.Wait()
		if !slices.Equal(s.served, []string{"runs"}) {
			t.Errorf("served %v", s.served)
		}
		for _, id := range []string{"waits", "waits too", "late"} {
			if s.failed[id] != infer.Unavailable {
				t.Errorf("%s got %q", id, s.failed[id])
			}
		}
	})
}

// Places are neither lost nor made when requests leave at any time.
func TestNoPlaceIsLost(t *testing.T) {
	s := newScene(3, 20)
	s.gate.Next = infer.HandlerFunc(func(context.Context, *infer.Request, infer.Sink) error {
		s.mu.Lock()
		s.now++
		s.most = max(s.most, s.now)
		s.mu.Unlock()
		s.mu.Lock()
		s.now--
		s.mu.Unlock()
		return nil
	})
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			for j := range 200 {
				ctx, cancel := context.WithCancel(t.Context())
				if (i+j)%3 == 0 {
					go cancel()
				}
				s.ask(ctx, "x")
				cancel()
			}
		})
	}
	all.Wait()
	if s.most > 3 {
		t.Errorf("%d ran at once", s.most)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range 3 { // all three places are there
		if err := s.gate.Handle(ctx, &infer.Request{}, nil); err != nil {
			t.Error(err)
		}
	}
}
