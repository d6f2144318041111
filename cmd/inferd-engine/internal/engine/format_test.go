package engine_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/batch"
	"github.com/inferd-go/inferd/internal/infer"
)

// costly is a grammar with many ways to parse a text.
const costly = `root ::= ([a-z]? [a-z]? [a-z]?){0,60}`

// Every answer fits an ambiguous grammar, even beside streams and while other clients hang up.
func TestCostlyGrammars(t *testing.T) {
	e := load(t, "tiny", batch.Limits{Context: 2048, Batch: 64, Sequences: 8})
	beside := 400
	if testing.Short() {
		beside = 100
	}
	var all sync.WaitGroup
	for i := range 2 {
		all.Go(func() { ask(t, e, user(strings.Repeat("a", i+1), beside)) })
	}
	for i := range 4 {
		all.Go(func() {
			gen := user(strings.Repeat("b", i+1), 12)
			gen.Format.Grammar = costly
			gen.Logprobs = 1
			tokens, likely := 0, 0
			var text strings.Builder
			err := e.Handle(t.Context(), &infer.Request{ID: "7", Task: gen}, func(ev infer.Event) error {
				if ev, ok := ev.(*infer.Text); ok {
					tokens, likely = tokens+ev.Tokens, likely+len(ev.Logprobs)
					text.Write(ev.Delta)
				}
				return nil
			})
			if err != nil || strings.Trim(text.String(), "abcdefghijklmnopqrstuvwxyz") != "" || likely != tokens {
				t.Errorf("%q, %d tokens, %d logprobs, %v", text.String(), tokens, likely, err)
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
