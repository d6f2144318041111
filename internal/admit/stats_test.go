package admit_test

import (
	"context"
	"fmt"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/inferd-go/inferd/internal/admit"
	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/infer"
)

func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(1, 1)
		var all sync.WaitGroup
		for _, req := range []*infer.Request{from("2", "y", "1"), from("1", "x", "2"), from("1", "x", "3")} {
			all.Go(func() { s.send(t.Context(), req) })
			synctest.Wait()
		}
		want := admit.Stats{
			Running: 1, Waiting: 1,
			Callers: []admit.Caller{
				{User: "1", Program: "x", Exe: "/bin/x", Counts: admit.Counts{Waiting: 1}, Place: 1, Refused: 1},
				{User: "2", Program: "y", Exe: "/bin/y", Counts: admit.Counts{Running: 1}},
			},
			Backends: []admit.BackendCounts{{Name: "gen", Counts: admit.Counts{Running: 1, Waiting: 1}}},
		}
		ignore := cmp.Options{cmpopts.EquateApprox(0, 1e-9)}
		if diff := cmp.Diff(want, s.gate.Stats(), ignore); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
		all.Wait()
		// Each request has three tokens. One request ended a second ago and one ends now; the
		// weight of tokens in the rate decays with their age.
		one, before := admit.Counts{Requests: 1, InputTokens: 2, OutputTokens: 3, Rate: 3.0 / 5}, 3.0/5*math.Exp(-1.0/5)
		first := one
		first.Rate = before
		want = admit.Stats{
			Callers: []admit.Caller{
				{User: "1", Program: "x", Exe: "/bin/x", Counts: one, Refused: 1},
				{User: "2", Program: "y", Exe: "/bin/y", Counts: first},
			},
			Backends: []admit.BackendCounts{{Name: "gen", Counts: admit.Counts{Requests: 2, InputTokens: 4, OutputTokens: 6, Rate: one.Rate + before}}},
		}
		if diff := cmp.Diff(want, s.gate.Stats(), ignore); diff != "" {
			t.Errorf("afterwards: -want +got\n%s", diff)
		}
		time.Sleep(time.Minute)
		if r := s.gate.Stats().Backends[0].Rate; r > 0.001 {
			t.Errorf("a minute later %v tokens are written a second", r)
		}
	})
}

// The number of idle callers in the stats is bounded.
func TestCallersAreBounded(t *testing.T) {
	gate := &admit.Gate{Choose: func(*infer.Request) (admit.Destination, error) {
		return admit.Destination{Backend: &backend.Backend{Name: "x", Handler: infer.HandlerFunc(func(context.Context, *infer.Request, infer.Sink) error { return nil })}}, nil
	}}
	for i := range 3000 {
		if err := gate.Handle(t.Context(), from("1", fmt.Sprint(i), ""), drop); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(gate.Stats().Callers); n > 1024 {
		t.Errorf("%d are remembered", n)
	}
}
