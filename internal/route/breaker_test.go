package route_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/breaker"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/route"
)

// faults are the codes that count as faults of the backends in these tests.
var faults = []infer.Code{infer.Unavailable, infer.Internal}

func failing(name string, state func() backend.State) *backend.Backend {
	return &backend.Backend{
		Name: name, State: func() (backend.State, string) { return state(), "" }, Faults: faults,
		Abilities: able(infer.Abilities{Generate: true}),
	}
}

func ready() backend.State { return backend.Ready }

// Only repeated errors with one of the backend's fault codes open its breaker.
func TestFaults(t *testing.T) {
	for name, test := range map[string]struct {
		err   error
		opens bool
	}{
		"an answer":                {nil, false},
		"unavailable":              {infer.Errorf(infer.Unavailable, "x"), true},
		"internal":                 {infer.Errorf(infer.Internal, "x"), true},
		"internal, wrapped":        {fmt.Errorf("x: %w", infer.Errorf(infer.Internal, "x")), true},
		"a request that is wrong":  {infer.Errorf(infer.Invalid, "x"), false},
		"what it cannot do":        {infer.Errorf(infer.Unsupported, "x"), false},
		"too many wait":            {infer.Errorf(infer.Busy, "x"), false},
		"the client has gone":      {io.ErrClosedPipe, false},
		"the request was canceled": {context.Canceled, false},
	} {
		t.Run(name, func(t *testing.T) {
			target := failing("a", ready)
			r := route.Router{Backends: []*backend.Backend{target}}
			for range 10 {
				if got := choose(&r, &infer.Generate{}); got == "a" {
					r.Begin(target)(test.err)
				}
			}
			want := breaker.Closed
			if test.opens {
				want = breaker.Open
			}
			if got := r.Breaker(target); got != want {
				t.Errorf("the breaker is %s, want %s", got, want)
			}
		})
	}
}

// An entry with a backend that keeps failing gets no requests for OpenFor, and Changed is called.
func TestFailsAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var changes []string
		a, b := failing("a", ready), failing("b", ready)
		r := route.Router{Backends: []*backend.Backend{a, b}, Changed: func(b *backend.Backend, s breaker.State) { changes = append(changes, b.Name+" "+string(s)) }}
		ask := func(want string, err error) {
			t.Helper()
			chosen, failed := r.Choose(&infer.Request{Task: &infer.Generate{}})
			switch {
			case failed != nil && want != string(infer.CodeOf(failed)):
				t.Fatalf("got %v, want %s", failed, want)
			case failed == nil && chosen.Name != want:
				t.Fatalf("got %s, want %s", chosen.Name, want)
			case failed == nil:
				r.Begin(chosen)(err)
			}
		}
		broken := infer.Errorf(infer.Unavailable, "broken")
		for range breaker.Failures {
			ask("a", broken)
		}
		for range breaker.Failures {
			ask("b", broken)
		}
		ask("unavailable", nil)
		if got := choose(&r, &infer.Generate{Model: "a"}); got != "unavailable" {
			t.Errorf("by its name: %s", got)
		}
		time.Sleep(breaker.OpenFor)
		ask("a", broken)
		ask("b", nil)
		ask("b", nil)
		time.Sleep(breaker.OpenFor)
		ask("a", nil)
		ask("a", nil)
		want := []string{"a open", "b open", "a half_open", "a open", "b half_open", "b closed", "a half_open", "a closed"}
		if !slices.Equal(changes, want) {
			t.Errorf("changes %q, want %q", changes, want)
		}
	})
}

// In any state of entries and breakers, the first of the best entries is chosen, but never one with
// an open breaker. An entry with a half-open breaker gets one request at a time. Errors that are
// not faults of the entry do not open its breaker.
func TestOrderIsKept(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const entries = 4
		var (
			now     = time.Unix(0, 0)
			states  [entries]backend.State
			running [entries][]func(error)
			rests   [entries]time.Time // the time until which its open breaker stays open
			targets []*backend.Backend
		)
		r := route.Router{Now: func() time.Time { return now }}
		for i := range entries {
			targets = append(targets, failing(strconv.Itoa(i), func() backend.State { return states[i] }))
		}
		r.Changed = func(b *backend.Backend, s breaker.State) {
			if s == breaker.Open {
				rests[slices.Index(targets, b)] = now.Add(breaker.OpenFor)
			}
		}
		r.Backends = targets
		end := func(i int) {
			before := r.Breaker(targets[i])
			err := rapid.SampledFrom([]error{
				nil, infer.Errorf(infer.Internal, "x"), infer.Errorf(infer.Unavailable, "x"),
				infer.Errorf(infer.Invalid, "x"), infer.Errorf(infer.Busy, "x"), errors.New("gone"),
			}).Draw(t, "outcome")
			which := rapid.IntRange(0, len(running[i])-1).Draw(t, "which")
			running[i][which](err)
			running[i] = slices.Delete(running[i], which, which+1)
			failure, typed := errors.AsType[*infer.Error](err)
			if typed && slices.Contains(faults, failure.Code) || r.Breaker(targets[i]) != breaker.Open {
				return
			}
			switch before {
			case breaker.Closed:
				t.Fatalf("%v opened the breaker", err)
			case breaker.HalfOpen: // the probe ended without a verdict, so the next request is a probe at once
				rests[i] = now
			case breaker.Open:
			}
		}
		ask := func() {
			best, at := backend.Down, -1
			for i, target := range targets {
				s := r.Breaker(target)
				passes := s == breaker.Closed || s == breaker.Open && !now.Before(rests[i])
				if passes && states[i] > best {
					best, at = states[i], i
				}
			}
			chosen, err := r.Choose(&infer.Request{Task: &infer.Generate{}})
			if at < 0 {
				if infer.CodeOf(err) != infer.Unavailable {
					t.Fatalf("chose %v, %v, want none", chosen, err)
				}
				return
			}
			if err != nil || chosen != targets[at] {
				t.Fatalf("chose %v, %v, want %d", chosen, err, at)
			}
			tries := r.Breaker(chosen) != breaker.Closed
			running[at] = append(running[at], r.Begin(chosen))
			if tries != (r.Breaker(chosen) == breaker.HalfOpen) {
				t.Fatalf("tries: %v, and its breaker is %s", tries, r.Breaker(chosen))
			}
		}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 10).Draw(t, "seconds")) * time.Second)
			i := rapid.IntRange(0, entries-1).Draw(t, "entry")
			switch rapid.SampledFrom([]string{"state", "ask", "end"}).Draw(t, "what") {
			case "state":
				states[i] = rapid.SampledFrom([]backend.State{backend.Ready, backend.Ready, backend.Loading, backend.Down}).Draw(t, "state")
			case "ask":
				ask()
			case "end":
				if len(running[i]) > 0 {
					end(i)
				}
			}
		}
	})
}
