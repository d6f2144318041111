package engine_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/batch"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/budget"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/llama"
	"github.com/inferd-go/inferd/internal/infer"
)

// costly is a grammar that costs up to 80 ms a token.
const costly = `root ::= ([a-z]? [a-z]? [a-z]?){0,60}`

// Costly grammars beside streams: each answer follows its grammar, and reports its cost; a
// client may hang up in the middle of a choice.
func TestCostlyGrammars(t *testing.T) {
	e := load(t, "tiny", batch.Limits{Context: 2048, Batch: 64, Sequences: 8})
	var all sync.WaitGroup
	for i := range 2 {
		all.Go(func() { ask(t, e, user(strings.Repeat("a", i+1), 400)) })
	}
	for i := range 4 {
		all.Go(func() {
			gen := user(strings.Repeat("b", i+1), 12)
			gen.Format.Grammar = costly
			gen.Logprobs = 1
			cost, tokens, likely := 0, 0, 0
			var text strings.Builder
			err := e.Handle(t.Context(), &infer.Request{ID: "7", Task: gen}, func(ev infer.Event) error {
				if ev, ok := ev.(*infer.Text); ok {
					cost, tokens, likely = cost+ev.Cost, tokens+ev.Tokens, likely+len(ev.Logprobs)
					text.Write(ev.Delta)
				}
				return nil
			})
			if err != nil || strings.Trim(text.String(), "abcdefghijklmnopqrstuvwxyz") != "" || likely != tokens {
				t.Errorf("%q, %d tokens, %d logprobs, %v", text.String(), tokens, likely, err)
			}
			if tokens > 1 && cost < tokens {
				t.Errorf("%d tokens cost %d", tokens, cost)
			}
		})
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+10*i)*time.Millisecond)
			defer cancel()
			gen := user(strings.Repeat("c", i+1), 100)
			gen.Format.Grammar = costly
			if err := e.Handle(ctx, &infer.Request{Task: gen}, func(infer.Event) error { return nil }); err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// A grammar or a template over its budget is the fault of the request.
func TestOverBudget(t *testing.T) {
	// A clock with which any call is over its budget at the first check.
	over := func() *budget.CPU {
		var mu sync.Mutex
		var now time.Duration
		return &budget.CPU{Limit: time.Millisecond, Clock: func(int) time.Duration {
			mu.Lock()
			defer mu.Unlock()
			now += time.Hour
			return now
		}}
	}
	e := loadWith(t, "tiny", batch.Limits{Context: 2048, Batch: 64, Sequences: 2}, func(l *batch.Loop, _ *llama.Model) { l.Samples = over() })
	gen := user("a", 50)
	gen.Format.Grammar = costly
	err := e.Handle(t.Context(), &infer.Request{Task: gen}, func(infer.Event) error { return nil })
	if infer.CodeOf(err) != infer.Invalid || err.Error() != "the grammar takes too long: one token took more than 5 s of CPU time" {
		t.Errorf("a grammar: %v", err)
	}
	ask(t, e, user("a", 10)) // other requests are answered
	for _, running := e.Loop.Samples.Overrun(); running; _, running = e.Loop.Samples.Overrun() {
		runtime.Gosched() // the model must not be closed before
	}
	e.Rendering = &budget.CPU{}
	ask(t, e, user("a", 10))
}
