package engine

import (
	"errors"
	"sync/atomic"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/batch"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/budget"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/llama"
	"github.com/inferd-go/inferd/internal/infer"
)

// A generation is the path of one answer from the loop to the sink. Each token passes
//
//	sample ─▶ token ─▶ pieces of bytes ─▶ answer (characters, stop sequences) ─▶ send
//
// Its methods run on the loop's thread, apart from pause, from finish, which runs after
// the sequence has ended, and from a detached choice.
type generation struct {
	engine  *Engine
	gen     *infer.Generate
	sampler *llama.Sampler
	emit    infer.Sink
	paused  atomic.Bool

	text   answer
	ev     infer.Text    // the tokens since the last event
	piece  []byte        // the bytes of the present token
	likely infer.Logprob // of the present token, if the request asks for logprobs
	lost   error         // the first error of emit
}

func (g *generation) pause(on bool) {
	g.paused.Store(on)
	g.engine.Loop.Wake()
}

// repeats reports whether the answer is to be the same whenever the request runs alone. A request asks
// for that with a seed; at temperature 0 it is promised only with kernels that compute row by row.
func (g *generation) repeats() bool {
	s := &g.gen.Sampling
	greedy := s.Temperature == nil || *s.Temperature == 0
	return s.Seed != nil || greedy && g.engine.Model.RowByRow()
}

// sequence returns the functions of a sequence. Detached samples run beside the steps.
func (g *generation) sequence(detached bool) batch.Sequence {
	seq := batch.Sequence{
		Paused: g.paused.Load, Repeats: g.repeats(),
		Sample: g.sample,
		Ends:   g.engine.Model.IsEOG,
		Emit:   g.token,
	}
	if detached {
		seq.Detach = g.detach
	}
	return seq
}

// sample chooses the next token from the logits of entry i of the batch.
func (g *generation) sample(i int) (batch.Token, error) {
	tok, err := g.sampler.Sample(g.engine.Context, i)
	if err == nil && g.gen.Logprobs > 0 {
		g.likely, err = g.engine.Model.Logprobs(g.engine.Context, i, tok, g.gen.Logprobs)
	}
	return tok, err
}

// detach copies the logits of entry i, and returns the choice for another thread.
func (g *generation) detach(i int) (choose func() (batch.Token, error), err error) {
	return func() (batch.Token, error) {
		tok, err := g.sampler.Choose()
		if err == nil && g.gen.Logprobs > 0 {
			g.likely, err = g.sampler.Logprobs(tok, g.gen.Logprobs)
		}
		return tok, err
	}, g.sampler.Detach(g.engine.Context, i)
}

// token adds a token and the cost of choosing it. It reports false to end the sequence.
func (g *generation) token(tok batch.Token, cost int) bool {
	g.ev.Tokens++
	g.ev.Cost += cost
	if g.gen.Logprobs > 0 {
		g.ev.Logprobs = append(g.ev.Logprobs, g.likely)
	}
	g.piece = g.engine.Model.AppendPiece(g.piece[:0], tok)
	delta, stopped := g.text.add(g.piece)
	g.send(delta)
	return !stopped && g.lost == nil
}

// maxUnreported is the number of tokens without text after which they are reported without any,
// so that admission charges them.
const maxUnreported = 32

// send emits text with the tokens since the last event.
func (g *generation) send(delta []byte) {
	g.ev.Logprobs = g.text.withoutTrimmed(g.ev.Logprobs)
	switch {
	case g.lost != nil:
	case len(delta) > 0:
		g.ev.Delta = delta
		g.lost = g.emit(&g.ev)
		g.ev.Tokens, g.ev.Cost, g.ev.Logprobs = 0, 0, g.ev.Logprobs[:0]
	case g.ev.Tokens >= maxUnreported:
		g.lost = g.emit(&infer.Text{Tokens: g.ev.Tokens, Cost: g.ev.Cost})
		g.ev.Tokens, g.ev.Cost = 0, 0
	}
}

// finish ends the answer, or returns the failure of its sequence.
func (g *generation) finish(result batch.Result, prompt int, err error) error {
	done := infer.Done{
		In: prompt, Cached: result.Cached, Out: result.Out,
		Backend: Kind, Model: g.engine.Model.Name(),
	}
	late := errors.Is(err, errLate)
	switch {
	case late:
	case errors.Is(err, budget.ErrExceeded):
		return errSlowGrammar
	case err != nil:
		return err
	}
	g.send(g.text.end())
	if g.lost != nil {
		return g.lost
	}
	switch {
	case late:
		done.Reason = infer.Canceled
	case g.text.stopped:
		done.Reason = g.text.reason
	case result.End == batch.Reached:
		done.Reason = infer.Length
	default:
		done.Reason = infer.EndOfTurn
	}
	return g.emit(&done)
}
