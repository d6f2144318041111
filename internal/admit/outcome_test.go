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
	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/infer"
)

// The function that Begin returned gets the outcome of its request once, before the next request
// begins: an answer, a failure of the backend, or the client's departure.
func TestEndGetsTheOutcome(t *testing.T) {
	type handle = func(context.Context, infer.Sink) error
	lost := errors.New("broken pipe")
	failed := infer.Errorf(infer.Internal, "failed")
	for name, test := range map[string]struct {
		handle handle
		emit   infer.Sink
		want   string
	}{
		"answered":        {func(_ context.Context, emit infer.Sink) error { return emit(&infer.Done{}) }, drop, "answered"},
		"failed":          {func(context.Context, infer.Sink) error { return failed }, drop, "failed"},
		"no end":          {func(context.Context, infer.Sink) error { return nil }, drop, "the backend ended the answer without a terminal"},
		"another failure": {func(context.Context, infer.Sink) error { return errors.New("what?") }, drop, "the backend ended the answer without a terminal"},
		"the client is lost": {
			func(_ context.Context, emit infer.Sink) error { return emit(&infer.Text{}) },
			later(lost), "the client has left before the end of the answer",
		},
		"the client is lost at its admission": {
			func(context.Context, infer.Sink) error { panic("the handler is called") },
			func(infer.Event) error { return lost }, "the client has left before the end of the answer",
		},
		"the client is lost at the end": {
			func(_ context.Context, emit infer.Sink) error { return emit(&infer.Done{}) },
			later(lost), "answered",
		},
		"an event that cannot be encoded": {
			func(_ context.Context, emit infer.Sink) error { return emit(&infer.Text{}) },
			later(failed), "failed",
		},
		"canceled": {
			func(ctx context.Context, _ infer.Sink) error { <-ctx.Done(); return failed }, drop, "the client has left before the end of the answer",
		},
		"a panic": {func(context.Context, infer.Sink) error { panic("x") }, drop, "the backend ended the answer without a terminal"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var calls []string
				handler := infer.HandlerFunc(func(ctx context.Context, _ *infer.Request, emit infer.Sink) error {
					return test.handle(ctx, emit)
				})
				gate := &admit.Gate{
					Depth: 1, Total: 1,
					Choose: func(*infer.Request) (admit.Destination, error) {
						return admit.Destination{Backend: &backend.Backend{Slots: 1, Handler: handler}}, nil
					},
					Begin: func(*backend.Backend) func(error) {
						calls = append(calls, "begins")
						return func(err error) {
							outcome := "answered"
							if err != nil {
								outcome = err.Error()
							}
							calls = append(calls, outcome)
						}
					},
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				var both sync.WaitGroup
				times := 2
				if name == "canceled" { // the second one might never get a slot
					times = 1
				}
				for range times {
					both.Go(func() {
						defer func() { _ = recover() }()
						_ = gate.Handle(ctx, request("1"), test.emit)
					})
					synctest.Wait()
				}
				both.Wait()
				if want := slices.Repeat([]string{"begins", test.want}, times); !slices.Equal(calls, want) {
					t.Errorf("calls %q, want %q", calls, want)
				}
			})
		})
	}
}

// later returns a sink that accepts Admitted and returns err for each later event.
func later(err error) infer.Sink {
	return func(ev infer.Event) error {
		if _, admitted := ev.(*infer.Admitted); admitted {
			return nil
		}
		return err
	}
}

// The first event of a request with a slot is Admitted, with the wait and the destination. A
// refused request has no event.
func TestAdmittedIsTheFirstEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(1, 1)
		s.to.Kind, s.to.Model = "mock", func() string { return "chain" }
		want := map[string]infer.Admitted{
			"runs":  {Entry: "gen", Backend: "mock", Model: "chain"},
			"waits": {Entry: "gen", Backend: "mock", Model: "chain", Queued: time.Second},
		}
		var all sync.WaitGroup
		for _, id := range []string{"runs", "waits", "refused"} {
			all.Go(func() {
				var events []infer.Event
				_ = s.gate.Handle(t.Context(), request(id), func(ev infer.Event) error {
					if in, ok := ev.(*infer.Admitted); ok {
						if len(events) > 0 || *in != want[id] {
							t.Errorf("%s: event %d is %+v, want %+v", id, len(events), *in, want[id])
						}
						if served := slices.Contains(s.served, id); served {
							t.Errorf("%s: the handler was called before", id)
						}
					}
					events = append(events, ev)
					return nil
				})
				if _, admitted := want[id]; admitted != (len(events) == 2) {
					t.Errorf("%s: %d events", id, len(events))
				}
			})
			synctest.Wait() // so that they arrive in this order
		}
		all.Wait()
	})
}
