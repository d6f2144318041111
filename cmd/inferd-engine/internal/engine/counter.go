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

// A Counter counts the tokens of prompts, one prompt at a time, on a thread of idle priority.
// Requests to count need no slot, so they must not delay the requests that have slots.
type Counter struct {
	// CPU bounds the CPU time of rendering one prompt, as [Engine.Rendering] does. The bound on
	// the bytes of a prompt bounds the time to tokenise it.
	CPU budget.CPU

	jobs chan func()
}

// NewCounter returns a Counter, which counts while Run runs.
func NewCounter() *Counter { return &Counter{jobs: make(chan func())} }

// Run counts until ctx ends. Its thread keeps the idle priority, so the process should end
// afterwards.
func (c *Counter) Run(ctx context.Context) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = llama.SetIdlePriority() // after an error, counting has normal priority
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
type renderer = func(*chat.Conversation) ([]chat.Segment, error)

// do runs f on the counter's thread, and passes it render with a budget of CPU time. If rendering
// exceeds the budget, do fails at once, but the counter stays busy until f returns. If ctx ends
// before f begins, do returns the cause; afterwards it waits for f, which checks ctx itself.
func (c *Counter) do(ctx context.Context, render renderer, f func(renderer) (*infer.Prompt, error)) (*infer.Prompt, error) {
	type result struct {
		prompt *infer.Prompt
		err    error
	}
	done := make(chan result, 2)
	job := func() {
		prompt, err := f(func(conversation *chat.Conversation) ([]chat.Segment, error) {
			w := c.CPU.Begin(func() { done <- result{err: errSlowTemplate(&c.CPU)} })
			segments, err := render(conversation)
			if _, exceeded := w.End(); exceeded {
				return nil, errSlowTemplate(&c.CPU)
			}
			return segments, err
		})
		done <- result{prompt, err}
	}
	select {
	case c.jobs <- job:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	r := <-done
	return r.prompt, r.err
}

// maxCounted bounds the text to count, in bytes per token of the context. Usual text has fewer
// bytes per token, so a text that exceeds the bound would not fit into the context. It also bounds
// the text that is made from tokens.
const maxCounted = 16

// maxRevealed is the maximum number of tokens of a prompt that an answer lists one by one.
const maxRevealed = 1 << 20

// count answers a request to count. The prompt may have more tokens than the context holds.
func (e *Engine) count(ctx context.Context, t *infer.Count, emit infer.Sink) error {
	gen, most := t.Of, maxCounted*e.Loop.Room()
	if n := textBytes(gen) + optionalBytes(gen) + len(gen.Tokens); n > most {
		return infer.Errorf(infer.TooLarge, "the prompt has %d bytes, at most %d are counted", n, most)
	}
	render := func(c *chat.Conversation) ([]chat.Segment, error) {
		c.History = t.History
		return e.Template.Prompt(c)
	}
	count := func(render renderer) (*infer.Prompt, error) {
		p, err := e.prompt(ctx, gen, promptOptions{render: render, maxBytes: most, bare: t.Bare, literal: t.Literal})
		if err != nil {
			return nil, err
		}
		return e.counted(gen.Reveal, p, most)
	}
	var counted *infer.Prompt
	var err error
	if e.Counter != nil {
		counted, err = e.Counter.do(ctx, render, count)
	} else {
		counted, err = count(render)
	}
	if long, ok := errors.AsType[*sizeError](err); ok {
		return infer.Errorf(infer.TooLarge, "%w", long)
	}
	if err != nil {
		return err
	}
	if gen.Reveal != (infer.Reveal{}) {
		if err := emit(counted); err != nil {
			return err
		}
	}
	return emit(&infer.Done{Reason: infer.EndOfTurn, In: counted.Tokens, Backend: Kind, Model: e.Model.Name()})
}

// counted returns the event about a prompt, like reveal, but an error if it would have more than
// maxRevealed tokens, or more than most bytes of text.
func (e *Engine) counted(want infer.Reveal, p prompt, most int) (*infer.Prompt, error) {
	if (want.IDs || want.Pieces) && len(p.tokens) > maxRevealed {
		return nil, infer.Errorf(infer.TooLarge, "the prompt has %d tokens, at most %d are returned", len(p.tokens), maxRevealed)
	}
	if (want.Text || want.Pieces) && p.text == nil {
		size := 0
		var piece []byte
		for _, tok := range p.tokens {
			piece = e.Model.AppendSpelling(piece[:0], tok)
			if size += len(piece); size > most {
				return nil, infer.Errorf(infer.TooLarge, "the tokens have more than %d bytes of text", most)
			}
		}
	}
	return e.reveal(want, p), nil
}
