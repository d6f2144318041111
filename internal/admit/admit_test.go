package admit_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd-go/inferd/internal/admit"
	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/infer"
)

// A scene is a gate in front of a handler that takes a second for each request.
type scene struct {
	gate *admit.Gate
	to   admit.Destination
	away error // if not nil, the error that Choose returns

	mu     sync.Mutex
	served []string
	failed map[string]infer.Code
	most   int // most requests that ran at once
	now    int
}

func newScene(slots, depth int) *scene {
	s := &scene{failed: make(map[string]infer.Code)}
	s.to.Backend = &backend.Backend{Name: "gen", Slots: slots, Handler: infer.HandlerFunc(func(_ context.Context, req *infer.Request, emit infer.Sink) error {
		s.mu.Lock()
		s.served = append(s.served, req.ID)
		s.now++
		s.most = max(s.most, s.now)
		s.mu.Unlock()
		time.Sleep(time.Second)
		s.mu.Lock()
		s.now--
		s.mu.Unlock()
		return emit(&infer.Done{In: 2, Out: 3})
	})}
	s.gate = &admit.Gate{Depth: depth, Total: 1000, Choose: func(*infer.Request) (admit.Destination, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.to, s.away
	}}
	return s
}

func (s *scene) goAway(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = err
}

func drop(infer.Event) error { return nil }

func request(id string) *infer.Request {
	return &infer.Request{ID: id, Task: &infer.Generate{Model: id[:min(1, len(id))], MaxTokens: 10}}
}

func from(user, program, id string) *infer.Request {
	req := request(id)
	req.Peer = infer.Peer{User: user, Program: program, Exe: "/bin/" + program}
	return req
}

func (s *scene) ask(ctx context.Context, id string) { s.send(ctx, request(id)) }

func (s *scene) send(ctx context.Context, req *infer.Request) {
	if err := s.gate.Handle(ctx, req, drop); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.failed[req.ID] = infer.CodeOf(err)
	}
}

func TestGate(t *testing.T) {
	ids := []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15"}
	for name, test := range map[string]struct {
		active, depth, arrive int
		most                  int
		refused               []string
	}{
		"ten streams: four run, six wait": {4, 10, 10, 4, nil},
		"the fifteenth is refused":        {4, 10, 15, 4, []string{"15"}},
		"no request may wait":             {1, 0, 2, 1, []string{"2"}},
		"no slot counts as one":           {0, 1, 3, 1, []string{"3"}},
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

func TestLeavingFreesThePlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(1, 1)
		gone := errors.New("hung up")
		ctx, leave := context.WithCancelCause(t.Context())
		var all sync.WaitGroup
		all.Go(func() { s.ask(t.Context(), "runs") })
		synctest.Wait()
		all.Go(func() {
			if err := s.gate.Handle(ctx, request("waits"), drop); !errors.Is(err, gone) {
				t.Errorf("the canceled request got %v", err)
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

// Users take turns, however many programs or clients send the requests of one user.
func TestFairness(t *testing.T) {
	for name, program := range map[string]func(i int) string{
		"of one program":     func(int) string { return "x" },
		"of many programs":   func(i int) string { return fmt.Sprint(i) },
		"of several clients": func(int) string { return "client" },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene(1, 100)
				var all sync.WaitGroup
				send := func(req *infer.Request) {
					all.Go(func() { s.send(t.Context(), req) })
					synctest.Wait() // so that they arrive in this order
				}
				for i := range 50 {
					req := from("1000", program(i), fmt.Sprint("a", i))
					req.Client = program(i)
					send(req)
				}
				for i := range 3 {
					send(from("1001", "y", fmt.Sprint("b", i)))
				}
				all.Wait()
				at := func(id string) int { return slices.Index(s.served, id) }
				for i, most := range []int{1, 3, 5} { // the users take turns after the request that ran
					if got := at(fmt.Sprint("b", i)); got > most || got < 0 {
						t.Errorf("b%d was served as number %d of %v", i, got, s.served)
					}
				}
				if len(s.served) != 53 {
					t.Errorf("%d were served", len(s.served))
				}
			})
		})
	}
}

// The waiting requests of a program, of a user, and of all users together are bounded.
func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(1, 4)
		s.gate.Total = 12
		var all sync.WaitGroup
		defer all.Wait()
		fill := func(user, program string) (waiting int) {
			for i := range 20 {
				req := from(user, program, fmt.Sprint(user, program, i))
				all.Go(func() { s.send(t.Context(), req) })
				synctest.Wait()
				s.mu.Lock()
				if s.failed[req.ID] == "" {
					waiting++
				}
				s.mu.Unlock()
			}
			return waiting
		}
		for _, step := range []struct {
			user, program string
			want          int
		}{
			{"1", "x", 5}, // one of them runs
			{"1", "y", 2}, // half of 12, together
			{"1", "z", 0},
			{"2", "x", 4},
			{"3", "x", 2}, // the total is reached
			{"4", "x", 0},
		} {
			if got := fill(step.user, step.program); got != step.want {
				t.Errorf("%s of %s: %d are in, want %d", step.program, step.user, got, step.want)
			}
		}
	})
}

// A full backend does not delay requests for other backends, and Active bounds the running requests
// of all backends together.
func TestSlotsOfBackends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(2, 100)
		s.gate.Active = 3
		s.gate.Choose = func(req *infer.Request) (admit.Destination, error) {
			p := s.to
			p.Backend = named(p.Backend, req.ID[:1])
			return p, nil
		}
		var all sync.WaitGroup
		for _, id := range []string{"a1", "a2", "a3", "a4", "b1", "b2"} {
			all.Go(func() { s.ask(t.Context(), id) })
			synctest.Wait()
		}
		if want := []string{"a1", "a2", "b1"}; !slices.Equal(s.served, want) {
			t.Errorf("at first %v run, want %v", s.served, want)
		}
		stats := s.gate.Stats()
		if stats.Running != 3 || stats.Waiting != 3 || len(stats.Backends) != 2 ||
			stats.Backends[0].Counts != (admit.Counts{Running: 2, Waiting: 2}) || stats.Backends[1].Counts != (admit.Counts{Running: 1, Waiting: 1}) {
			t.Errorf("stats %+v", stats)
		}
		all.Wait()
		if len(s.served) != 6 || s.most != 3 {
			t.Errorf("served %v, %d at once", s.served, s.most)
		}
	})
}

// When a slot becomes free, the gate chooses the destination of the waiting requests again.
func TestChoosesAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(1, 10)
		var all sync.WaitGroup
		for _, id := range []string{"runs", "waits", "waits too"} {
			all.Go(func() { s.ask(t.Context(), id) })
			synctest.Wait()
		}
		s.goAway(infer.Errorf(infer.Unavailable, "no backend available"))
		all.Wait()
		s.ask(t.Context(), "comes")
		if !slices.Equal(s.served, []string{"runs"}) {
			t.Errorf("served %v", s.served)
		}
		for _, id := range []string{"waits", "waits too", "comes"} {
			if s.failed[id] != infer.Unavailable {
				t.Errorf("%s got %q", id, s.failed[id])
			}
		}
		s.goAway(nil)
		s.ask(t.Context(), "later")
		if stats := s.gate.Stats(); !slices.Equal(s.served, []string{"runs", "later"}) || stats.Running+stats.Waiting != 0 {
			t.Errorf("served %v, %+v", s.served, stats)
		}
	})
}

// No slot is lost or doubled, whenever requests leave.
func TestNoSlotIsLost(t *testing.T) {
	s := newScene(3, 20)
	s.to.Handler = infer.HandlerFunc(func(context.Context, *infer.Request, infer.Sink) error {
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
	for range 3 { // all three slots are free
		if err := s.gate.Handle(ctx, request(""), drop); err != nil {
			t.Error(err)
		}
	}
}

// named returns a copy of a backend with another name.
func named(b *backend.Backend, name string) *backend.Backend {
	other := *b
	other.Name = name
	return &other
}
