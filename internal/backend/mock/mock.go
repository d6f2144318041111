// Package mock is a backend without a model, for tests of ours and of other
// people's clients: it answers with a fixed list of tokens and fails on demand. It
// reads nothing of a request.
package mock

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/inferd-go/inferd/internal/infer"
)

// Kind is what a mock calls itself in its answers.
const Kind = "mock"

// A Backend answers every request in the same way. The zero value yields the one
// token "mock-response".
type Backend struct {
	Tokens     []string      // the answer; nil is one token "mock-response"
	TokenDelay time.Duration // passes before every token
	// PreStream fails every request before its first token: "not_ready",
	// "invalid_request", "unavailable" or "internal"; empty does not.
	PreStream string
	DropAfter int // tokens after which the answer ends without a terminal event; 0 never
	FailFirst int // that many first requests fail as unavailable

	asked atomic.Int64
}

var _ infer.Handler = (*Backend)(nil)

// failures are the values of Backend.PreStream.
var failures = map[string]error{
	"not_ready":       infer.Errorf(infer.Unavailable, "backend not ready"),
	"invalid_request": infer.Errorf(infer.Invalid, "mock"),
	"unavailable":     infer.Errorf(infer.Unavailable, "mock"),
	"internal":        infer.Errorf(infer.Internal, "mock"),
}

// KnowsFailure reports whether name may stand in Backend.PreStream.
func KnowsFailure(name string) bool {
	_, ok := failures[name]
	return ok || name == ""
}

// Handle answers req.
func (b *Backend) Handle(ctx context.Context, _ *infer.Request, emit infer.Sink) error {
	if b.asked.Add(1) <= int64(b.FailFirst) {
		return failures["unavailable"]
	}
	if err := failures[b.PreStream]; err != nil {
		return err
	}
	tokens := b.Tokens
	if tokens == nil {
		tokens = []string{"mock-response"}
	}
	drops := b.DropAfter > 0 && b.DropAfter <= len(tokens)
	if drops {
		tokens = tokens[:b.DropAfter]
	}
	var ev infer.Text
	for _, token := range tokens {
		if err := pause(ctx, b.TokenDelay); err != nil {
			return err
		}
		ev.Delta = append(ev.Delta[:0], token...)
		if len(token) == 0 {
			continue // an event has text
		}
		if err := emit(&ev); err != nil {
			return err
		}
	}
	if drops {
		return nil
	}
	return emit(&infer.Done{Reason: infer.EndOfTurn, Out: len(tokens), By: Kind})
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
