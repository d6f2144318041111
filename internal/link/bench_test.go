package link_test

import (
	"context"
	"testing"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/link"
)

// BenchmarkToken measures the cost of a token over the link, both ends together.
func BenchmarkToken(b *testing.B) {
	srv := &link.Server{Deferred: true}
	srv.Handler = infer.HandlerFunc(func(_ context.Context, _ *infer.Request, emit infer.Sink) error {
		ev := infer.Text{Delta: []byte(" token"), Tokens: 1}
		b.ReportAllocs()
		for b.Loop() {
			if err := emit(&ev); err != nil {
				return err
			}
			if err := srv.Flush(); err != nil {
				return err
			}
		}
		return emit(&infer.Done{})
	})
	client := join(b, srv)
	if err := client.Handle(b.Context(), ask("x"), func(infer.Event) error { return nil }); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkCall measures the cost of a call with an answer of two words.
func BenchmarkCall(b *testing.B) {
	client := join(b, &link.Server{Handler: infer.HandlerFunc(words)})
	drop := func(infer.Event) error { return nil }
	b.ReportAllocs()
	for b.Loop() {
		if err := client.Handle(b.Context(), ask("a b"), drop); err != nil {
			b.Fatal(err)
		}
	}
}
