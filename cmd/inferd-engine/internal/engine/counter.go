package engine

import (
	"context"
	"errors"
	"runtime"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/budget"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/chat"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/llama"
	"github.com/inferd-go/inferd/internal/infer"
)

// A Counter counts the tokens of prompts, one prompt at a time, on a thread that computes only
// while no other thread of the machine wants to: requests to count wait for no slot, so they must
// not take time from those that do.
type Counter struct {
	// CPU bounds the CPU time of rendering one prompt, as [Engine.Rendering] does. The bound on
	// the bytes of a prompt bounds the time to tokenise it.
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

// A renderer renders a conversation.
type renderer = func([]infer.Message) ([]chat.Segment, error)

// do runs f on the counter's thread, with a render within its budget of CPU time. Over it do
// fails with errSlowTemplate; the counter is free again when f returns.
func (c *Counter) do(ctx context.Context, render renderer, f func(renderer) (int, error)) (int, error) {
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 2)
	job := func() {
		n, err := f(func(messages []infer.Message) ([]chat.Segment, error) {
			w := c.CPU.Begin(func() { done <- result{err: errSlowTemplate} })
			segments, err := render(messages)
			if _, exceeded := w.End(); exceeded {
				return nil, errSlowTemplate
			}
			return segments, err
		})
		done <- result{n, err}
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
	most := maxCounted * e.Loop.Room()
	if n := textBytes(gen) + thinkingBytes(gen); n > most {
		return infer.Errorf(infer.TooLarge, "the prompt has %d bytes, at most %d are counted", n, most)
	}
	count := func(render renderer) (int, error) {
		tokens, err := e.prompt(ctx, gen, most, render)
		return len(tokens), err
	}
	var n int
	var err error
	if e.Counter != nil {
		n, err = e.Counter.do(ctx, e.Template.Render, count)
	} else {
		n, err = count(e.Template.Render)
	}
	if long, ok := errors.AsType[*sizeError](err); ok {
		return infer.Errorf(infer.TooLarge, "%w", long)
	}
	if err != nil {
		return err
	}
	return emit(&infer.Done{Reason: infer.EndOfTurn, In: n, Backend: Kind, Model: e.Model.Name()})
}
