package admit_test

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"testing"

	"github.com/inferd-go/inferd/internal/admit"
	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/infer"
)

func BenchmarkHandle(b *testing.B) {
	gate := &admit.Gate{Choose: func(*infer.Request) (admit.Destination, error) {
		return admit.Destination{Backend: &backend.Backend{Name: "x", Slots: 4, Handler: infer.HandlerFunc(func(_ context.Context, _ *infer.Request, emit infer.Sink) error {
			return emit(&infer.Done{})
		})}}, nil
	}}
	req := from("1", "x", "")
	b.ReportAllocs()
	for b.Loop() {
		if err := gate.Handle(b.Context(), req, drop); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkToken measures the cost of the gate for each token of an answer while other requests
// wait.
func BenchmarkToken(b *testing.B) {
	var (
		gate   *admit.Gate
		others sync.WaitGroup
		ev     = infer.Text{Delta: []byte("x"), Tokens: 1}
	)
	handle := func(ctx context.Context, req *infer.Request, emit infer.Sink) error {
		if req.ID != "measured" {
			return emit(&infer.Done{})
		}
		for i := range 10 {
			others.Go(func() {
				if err := gate.Handle(context.WithoutCancel(ctx), from("1", "x", fmt.Sprint(i)), drop); err != nil {
					b.Error(err)
				}
			})
		}
		for gate.Stats().Waiting < 10 {
			runtime.Gosched()
		}
		b.ReportAllocs()
		for b.Loop() {
			if err := emit(&ev); err != nil {
				return err
			}
		}
		return emit(&infer.Done{})
	}
	gate = &admit.Gate{Depth: 10, Total: 20, Choose: func(*infer.Request) (admit.Destination, error) {
		return admit.Destination{Backend: &backend.Backend{Name: "gen", Slots: 1, Handler: infer.HandlerFunc(handle)}, Pausable: true}, nil
	}}
	if err := gate.Handle(b.Context(), from("1", "x", "measured"), drop); err != nil {
		b.Fatal(err)
	}
	others.Wait()
}

// BenchmarkBesideWaiting measures the cost of the gate for a request at an idle backend while 60
// requests, of one caller or of 60 callers, wait at another backend.
func BenchmarkBesideWaiting(b *testing.B) {
	for name, user := range map[string]func(i int) string{
		"one caller":   func(int) string { return "0" },
		"many callers": strconv.Itoa,
	} {
		b.Run(name, func(b *testing.B) {
			short := infer.HandlerFunc(func(_ context.Context, _ *infer.Request, emit infer.Sink) error {
				return emit(&infer.Done{In: 1, Out: 1})
			})
			long := infer.HandlerFunc(func(ctx context.Context, _ *infer.Request, _ infer.Sink) error {
				<-ctx.Done()
				return context.Cause(ctx)
			})
			gate := &admit.Gate{Depth: 64, Total: 256, Choose: func(req *infer.Request) (admit.Destination, error) {
				if req.ID == "short" {
					return admit.Destination{Backend: &backend.Backend{Name: "idle", Slots: 4, Handler: short}, Pausable: true}, nil
				}
				return admit.Destination{Backend: &backend.Backend{Name: "busy", Slots: 4, Handler: long}, Pausable: true}, nil
			}}
			ctx, cancel := context.WithCancel(b.Context())
			var others sync.WaitGroup
			defer others.Wait()
			defer cancel()
			for i := range 64 {
				others.Go(func() { _ = gate.Handle(ctx, from(user(i), "x", "long"), drop) })
			}
			for gate.Stats().Waiting < 60 {
				runtime.Gosched()
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := gate.Handle(ctx, from("short", "x", "short"), drop); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
