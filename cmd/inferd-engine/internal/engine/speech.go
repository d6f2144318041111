package engine

import (
	"errors"
	"strconv"
	"strings"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/batch"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/constraint"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/speech"
	"github.com/inferd-go/inferd/internal/infer"
)

// speech returns the constraint of the answer to a prompt, or nil if any text is allowed. tail is the template's text
// at the end of the prompt, behind all text of clients.
func (e *Engine) speech(gen *infer.Generate, tail string) (*speech.Speech, error) {
	o := speech.Options{
		Dialect: e.Dialect, Markers: e.Markers, Ends: e.Ends,
		Tools: gen.Tools, Choice: gen.Choice, OneCall: gen.OneCall,
	}
	if o.Dialect == nil || gen.Raw() {
		o.Dialect = new(dialect.Dialect)
	}
	if gen.Format.Constrains() {
		o.Format = &gen.Format
	}
	o.Position = o.Dialect.Thinking.Position(tail)
	o.NoThoughts = gen.Thinking == infer.ThinkOff && o.Dialect.Thinking.CanStop()
	if !speech.Needed(&o) {
		return nil, nil //nolint:nilnil // any text is no error
	}
	return speech.New(o)
}

// speechState is the state of a generation that is used only with a parser.
type speechState struct {
	thoughts      answer // turns thoughts into whole characters
	thoughtTokens int    // tokens of thoughts so far
	drawFirst     bool   // tokens may be chosen without a mask where nearly all fit
	lastCall      int    // number in the id of the last call, in the conversation or in the answer
	mustCall      bool   // the request demands a call
	dropText      bool   // text is dropped until the next call
	called        bool   // a call has been parsed
}

const callPrefix = dialect.CallPrefix

// attachParser attaches a parser to the answer, and lets the numbers of its calls follow those of the conversation.
func (g *generation) attachParser(k *constraint.Constraint) {
	if s, ok := k.Source().(*speech.Speech); ok { // every source here is
		g.parser = s.Parser(g.constrained.Position())
	}
	g.constrained.Watch = g.parser.Symbol
	g.drawFirst = g.sampler.MaskOptional()
	g.mustCall = g.gen.Choice.Mode == infer.ToolRequired || g.gen.Choice.Mode == infer.ToolNamed
	for _, m := range g.gen.Messages {
		for _, part := range m.Content {
			if c, ok := part.(*infer.CallPart); ok {
				g.parser.CallsBefore++
				if n, err := strconv.Atoi(strings.TrimPrefix(c.ID, callPrefix)); err == nil && n < 1<<30 {
					g.lastCall = max(g.lastCall, n)
				}
			}
		}
	}
	g.parser.LastID = g.lastCall
}

// maxChoices is the maximum number of attempts to choose one token. It is more than the number of tokens that a
// [constraint.Answer] refuses at one position.
const maxChoices = 100

// chooseAllowed chooses the next token among the tokens that fit. In free text nearly all tokens fit: there a
// token is drawn without a mask, and if it does not fit, another one with a mask. The mask is made on the
// loop's thread, right before the choice, and its time counts as part of the choice. A goroutine that makes
// masks during a decode would delay the return of the decode thread to Go.
func (g *generation) chooseAllowed(i int) (batch.Token, error) {
	g.limitThoughts()
	g.constrained.Force(g.parser.NextID())
	if g.drawFirst && g.parser.Loose() {
		tok, err := g.sampler.Sample(g.engine.Context, i)
		if err != nil || g.constrained.Try(tok) {
			return tok, err
		}
		if g.engine.Model.IsEOG(tok) { // the answer may not end before the demanded call
			g.constrained.Force(g.parser.CallStart(), nil)
		}
	}
	mask, err := g.constrained.Mask()
	mayEnd := err == nil && g.offerEnd(mask)
	for range maxChoices {
		if err != nil {
			return 0, err
		}
		var tok batch.Token
		tok, err = g.sampler.Choose(g.engine.Context, i, mask)
		switch {
		case err == nil && mayEnd && g.engine.Model.IsEOG(tok):
			mayEnd = false
			g.constrained.Force(g.parser.CallStart(), nil)
			mask, err = g.constrained.Mask()
		case err == nil && g.constrained.Take(tok):
			g.sampler.Accept(tok)
			return tok, nil
		}
	}
	return 0, errors.New("internal error: all tokens of the mask are refused")
}

// offerEnd adds the end tokens to the mask while the model writes free text before a demanded call. If the model then
// chooses one, its text has ended, and the call is forced there. offerEnd reports whether it has added them. With
// drawFirst that is not necessary, because tokens are drawn without a mask.
func (g *generation) offerEnd(mask []uint64) bool {
	if g.drawFirst || !g.mustCall || g.parser.Calls > 0 || !g.parser.Loose() || len(g.parser.CallStart()) == 0 {
		return false
	}
	for _, id := range g.engine.Ends {
		mask[id>>6] |= 1 << (id & 63)
	}
	return true
}

// limitThoughts counts the tokens of thoughts, and ends the thoughts after a whole character once their
// budget is used up.
func (g *generation) limitThoughts() {
	if !g.parser.Thinking() {
		return
	}
	if g.thoughtTokens++; g.gen.ThinkingBudget > 0 && g.thoughtTokens > g.gen.ThinkingBudget && len(g.thoughts.raw) == 0 {
		g.constrained.Force(g.parser.ThoughtEnd(), nil)
	}
}

// sendParts sends the parts that the parser has found. It reports false to end the sequence.
func (g *generation) sendParts() bool {
	stopped := false
	for i := range g.parser.Out {
		p := &g.parser.Out[i]
		if g.emitErr != nil || stopped {
			break
		}
		switch {
		case p.Thought != nil:
			delta, _ := g.thoughts.add(p.Thought)
			g.sendThought(delta)
		case p.Text != nil && g.dropText:
		case p.Text != nil:
			g.endThoughts()
			var delta []byte
			delta, stopped = g.text.add(p.Text)
			g.send(delta)
			stopped = stopped && !g.demandAtStop()
		case p.Call != nil:
			g.endThoughts()
			g.send(g.text.end())
			g.text.stopped, g.dropText, g.called = false, false, true
			g.sendCall(p.Call)
		}
	}
	if len(g.parser.Out) == 0 {
		g.send(nil) // reports many tokens without text
	}
	g.parser.Out = g.parser.Out[:0]
	return !stopped && g.emitErr == nil
}

// demandAtStop forces a demanded call that is missing when a stop ends the text: a stop of the request, or a marker of
// the end of the turn. It reports false if no call is missing, so that the answer ends. Further text before the call is
// dropped if the stop was the request's, or if the call cannot be forced: then the call is already under way, or comes
// as the tokens run out.
func (g *generation) demandAtStop() bool {
	if !g.mustCall || g.called {
		return false
	}
	forced := g.constrained.Force(g.parser.CallStart(), nil)
	g.dropText = g.text.reason == infer.StopSequence || !forced
	g.text.resume()
	return true
}

// endThoughts sends the held text of the thoughts.
func (g *generation) endThoughts() { g.sendThought(g.thoughts.end()) }

// sendThought emits thoughts with the number of tokens since the last event. To a client that takes only text, it emits
// only that number.
func (g *generation) sendThought(delta []byte) {
	switch {
	case g.emitErr != nil || len(delta) == 0:
	case !g.gen.Blocks:
		g.send(nil)
	default:
		g.emitErr = g.emit(&infer.Thinking{Delta: delta, Tokens: g.ev.Tokens, Cost: g.ev.Cost})
		g.ev.Tokens, g.ev.Cost, g.ev.Logprobs = 0, 0, g.ev.Logprobs[:0]
	}
}

// sendCall emits a call with the number of tokens since the last event, if the client takes calls.
func (g *generation) sendCall(c *speech.Call) {
	if g.emitErr != nil || !g.gen.Blocks {
		return
	}
	g.lastCall++
	g.emitErr = g.emit(&infer.ToolCall{
		ID: callPrefix + strconv.Itoa(g.lastCall), Name: c.Name, Input: c.Input, Tokens: g.ev.Tokens, Cost: g.ev.Cost,
	})
	g.ev.Tokens, g.ev.Cost, g.ev.Logprobs = 0, 0, g.ev.Logprobs[:0]
}

// unsatisfied reports whether a call that the request demands is missing.
func (g *generation) unsatisfied() bool { return g.mustCall && g.parser.Calls == 0 }
