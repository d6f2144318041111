package engine

import (
	"context"
	"runtime"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/budget"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/llama"
	"github.com/inferd-go/inferd/internal/infer"
)

// A Counter counts the tokens of prompts, one prompt at a time, on a thread that computes only
// while no other thread of the machine wants to: requests to count wait for no slot, so they must
// not take time from those that do.
type Counter struct {
	// CPU bounds the CPU time of one prompt, as [Engine.Rendering] does.
	CPU budget.CPU

	jobs chan func()
}

// NewCounter returns a Counter, which counts while Run runs.
func NewCounter() *Counter { return &Counter{jobs: make(chan func())} }

// Run counts until ctx ends. Its thread keeps the priority, so the process should end then.
func (c *Counter) Run(ctx context.Context) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = llama.SetIdlePriority() // without it counting is as urgent as the rest
	for {
		select {
		case job := <-c.jobs:
			job()
		case <-ctx.Done():
			return
		}
	}
}

// do runs f on the counter's thread. Over its budget of CPU time f fails with
// errSlowTemplate; the counter is free again when f returns.
func (c *Counter) do(ctx context.Context, f func() (int, error)) (int, error) {
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 2)
	job := func() {
		w := c.CPU.Begin(func() { done <- result{err: errSlowTemplate} })
		n, err := f()
		if _, exceeded := w.End(); !exceeded {
			done <- result{n, err}
		}
	}
	select {
	case c.jobs <- job:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	select {
	case r := <-done:
		return r.n, r.err
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// maxCounted is the longest text to count, in bytes for each token of the context. Text with
// fewer tokens than it is long counts for most of what clients send; a longer text cannot fit.
const maxCounted = 16

// count answers with the number of tokens of a prompt, which may be more than the context holds.
func (e *Engine) count(ctx context.Context, gen *infer.Generate, emit infer.Sink) error {
	if n, most := textBytes(gen), maxCounted*e.Loop.Room(); n > most {
		return infer.Errorf(infer.TooLarge, "the prompt has %d bytes, at most %d are counted", n, most)
	}
	count := func() (int, error) {
		tokens, err := e.prompt(gen, e.Template.Render)
		return len(tokens), err
	}
	var n int
	var err error
	if e.Counter != nil {
		n, err = e.Counter.do(ctx, count)
	} else {
		n, err = count()
	}
	if err != nil {
		return err
	}
	return emit(&infer.Done{Reason: infer.EndOfTurn, In: n, Backend: Kind, Model: e.Model.Name()})
}
