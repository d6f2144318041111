package engine

import (
	"errors"
	"sync/atomic"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/batch"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/constraint"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/llama"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/speech"
	"github.com/inferd-go/inferd/internal/infer"
)

// A generation converts the tokens of one answer to events. Each token passes through these stages:
//
//	sample ─▶ token ─▶ pieces of bytes ─▶ answer (characters, stop sequences) ─▶ send
//
// A parser, if there is one, follows the tokens as they are chosen. Its parts (text, thoughts and
// calls, see speech.go) then take the place of the pieces. The methods of a generation run on the
// loop's thread, except pause, and finish, which runs after the sequence has ended.
type generation struct {
	engine      *Engine
	gen         *infer.Generate
	prompt      *infer.Prompt
	sampler     *llama.Sampler
	constrained *constraint.Answer // the constraint; nil if any text is allowed
	parser      *speech.Parser     // parses the answer; nil if constrained is nil
	emit        infer.Sink
	paused      atomic.Bool

	text        answer
	ev          infer.Text    // the tokens since the last event
	piece       []byte        // the bytes of the current token
	logprob     infer.Logprob // of the current token, if the request asks for logprobs
	speechState               // used if there is a parser
	emitErr     error         // the first error of emit
}

func (g *generation) pause(on bool) {
	g.paused.Store(on)
	g.engine.Loop.Wake()
}

// repeats reports whether the answer must be the same whenever the request runs alone: with a seed,
// and at temperature 0 if the kernels compute row by row.
func (g *generation) repeats() bool {
	s := &g.gen.Sampling
	greedy := s.Temperature == nil || *s.Temperature == 0
	return s.Seed != nil || greedy && g.engine.Model.RowByRow()
}

// sequence returns a sequence for the loop with the functions of g. The caller adds the prompt, the
// limits and the owner.
func (g *generation) sequence() batch.Sequence {
	return batch.Sequence{
		Paused: g.paused.Load, Repeats: g.repeats(),
		Begin: g.begin, Sample: g.sample,
		Ends: g.engine.Model.IsEOG,
		Emit: g.token,
	}
}

// begin emits the prompt, with the number of its tokens that were found in the cache.
func (g *generation) begin(cached int) {
	g.prompt.Cached = cached
	g.emitErr = g.emit(g.prompt)
}

// sample chooses the next token from the logits of entry i of the batch.
func (g *generation) sample(i int) (batch.Token, error) {
	tok, err := g.choose(i)
	if err == nil && g.gen.Logprobs > 0 {
		g.logprob, err = g.engine.Model.Logprobs(g.engine.Context, i, tok, g.gen.Logprobs)
	}
	return tok, err
}

// choose chooses the next token, within the constraint if the answer has one.
func (g *generation) choose(i int) (batch.Token, error) {
	if g.constrained == nil {
		return g.sampler.Sample(g.engine.Context, i)
	}
	return g.chooseAllowed(i)
}

// token adds a chosen token to the answer, with the cost of choosing it, and emits text that is
// complete. It reports false to end the sequence.
func (g *generation) token(tok batch.Token, cost int) bool {
	g.ev.Tokens++
	g.ev.Cost += cost
	if g.gen.Logprobs > 0 {
		g.ev.Logprobs = append(g.ev.Logprobs, g.logprob)
	}
	if g.parser != nil {
		return g.sendParts()
	}
	g.piece = g.engine.Model.AppendPiece(g.piece[:0], tok)
	delta, stopped := g.text.add(g.piece)
	g.send(delta)
	return !stopped && g.emitErr == nil
}

// maxUnreported limits the tokens that no event has reported: at this number, an event without text
// reports them, so that admission charges them.
const maxUnreported = 32

// send emits text, with the number, the cost and the logprobs of the tokens since the last event.
// Without text, it emits number and cost once there are maxUnreported tokens.
func (g *generation) send(delta []byte) {
	g.ev.Logprobs = g.text.withoutTrimmed(g.ev.Logprobs)
	switch {
	case g.emitErr != nil:
	case len(delta) > 0:
		g.ev.Delta = delta
		g.emitErr = g.emit(&g.ev)
		g.ev.Tokens, g.ev.Cost, g.ev.Logprobs = 0, 0, g.ev.Logprobs[:0]
	case g.ev.Tokens >= maxUnreported:
		g.emitErr = g.emit(&infer.Text{Tokens: g.ev.Tokens, Cost: g.ev.Cost})
		g.ev.Tokens, g.ev.Cost = 0, 0
	}
}

// finish emits the remaining text of the answer and its Done, or returns err, the error of its
// sequence. An end at the deadline is no error.
func (g *generation) finish(result batch.Result, err error) error {
	done := infer.Done{
		In: g.prompt.Tokens, Cached: result.Cached, Out: result.Out,
		Backend: Kind, Model: g.engine.Model.Name(),
		StopIgnored: g.gen.Format.Constrains() && len(g.gen.Stop) > 0,
	}
	late := errors.Is(err, errLate)
	switch {
	case late:
	case err != nil:
		return err
	}
	if g.parser != nil {
		g.parser.End()
		g.sendParts()
		done.Unsatisfied = g.unsatisfied()
	}
	g.endThoughts()
	g.send(g.text.end())
	if g.emitErr != nil {
		return g.emitErr
	}
	switch {
	case late:
		done.Reason = infer.Canceled
	case g.text.stopped:
		done.Reason, done.Stop = g.text.reason, g.text.stop
	case result.End == batch.Reached:
		done.Reason = infer.Length
	case g.parser != nil && g.parser.Calls > 0:
		done.Reason = infer.CalledTool
	default:
		done.Reason = infer.EndOfTurn
	}
	return g.emit(&done)
}
