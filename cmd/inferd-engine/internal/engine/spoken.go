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

// speech returns the constraint of the answer to a prompt; nil if any text is allowed. tail is the
// end of the prompt, as far as the template wrote it.
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
	o.Place = o.Dialect.Thinking.Place(tail)
	o.NoThoughts = gen.Thinking == infer.ThinkOff && o.Dialect.Thinking.CanStop()
	if !speech.Needed(&o) {
		return nil, nil //nolint:nilnil // any text is no error
	}
	return speech.New(o)
}

// spoken is the part of a generation that an answer with a parser needs.
type spoken struct {
	thoughts answer // whole characters of thoughts
	thought  int    // tokens of thoughts so far
	free     bool   // tokens may be chosen without a mask where nearly all fit
	calls    int    // the number of the last call: of the conversation before the answer, then of the answer
	demands  bool   // the request demands a call
}

const callPrefix = dialect.CallPrefix

// understand lets a parser follow the answer.
func (g *generation) understand(k *constraint.Constraint) {
	if s, ok := k.Source().(*speech.Speech); ok { // all are
		g.parser = s.Parser(g.allowed.Place())
	}
	g.allowed.Watch = g.parser.Symbol
	g.free = g.sampler.Loose()
	g.demands = g.gen.Choice.Mode == infer.ToolRequired || g.gen.Choice.Mode == infer.ToolNamed
	for _, m := range g.gen.Messages {
		for _, part := range m.Content {
			if c, ok := part.(*infer.CallPart); ok {
				g.parser.CallsBefore++
				if n, err := strconv.Atoi(strings.TrimPrefix(c.ID, callPrefix)); err == nil && n < 1<<30 {
					g.calls = max(g.calls, n)
				}
			}
		}
	}
	g.parser.LastID = g.calls
}

// maxChoices bounds the choices at one place: an answer refuses fewer tokens there.
const maxChoices = 100

// chooseAllowed chooses among the tokens that may come. In free text nearly all may: there a token is drawn
// without a mask, and drawn again with one if it does not fit. Elsewhere the mask is made here, on the
// loop's thread and right before the choice: a goroutine that makes it meanwhile would delay the
// return of the decode thread to Go. So its time is part of the choice's.
func (g *generation) chooseAllowed(i int) (batch.Token, error) {
	g.limitThoughts()
	g.allowed.Force(g.parser.Numbered())
	if g.free && g.parser.Loose() {
		tok, err := g.sampler.Sample(g.engine.Context, i)
		if err != nil || g.allowed.Try(tok) {
			return tok, err
		}
		if g.engine.Model.IsEOG(tok) { // a demanded call is missing: it comes now
			g.allowed.Force(g.parser.Open(), nil)
		}
	}
	mask, err := g.allowed.Mask()
	for range maxChoices {
		if err != nil {
			return 0, err
		}
		var tok batch.Token
		if tok, err = g.sampler.Choose(g.engine.Context, i, mask); err == nil && g.allowed.Take(tok) {
			g.sampler.Accept(tok)
			return tok, nil
		}
	}
	return 0, errors.New("internal error: all tokens of the mask are refused")
}

// limitThoughts ends the thoughts once their budget is used up, behind a whole character.
func (g *generation) limitThoughts() {
	if !g.parser.Thinking() {
		return
	}
	if g.thought++; g.gen.ThinkingBudget > 0 && g.thought > g.gen.ThinkingBudget && len(g.thoughts.raw) == 0 {
		g.allowed.Force(g.parser.Conclude(), nil)
	}
}

// parts sends the parts that the parser has found. It reports false to end the sequence.
func (g *generation) parts() bool {
	stopped := false
	for i := range g.parser.Out {
		p := &g.parser.Out[i]
		if g.lost != nil || stopped {
			break
		}
		switch {
		case p.Thought != nil:
			delta, _ := g.thoughts.add(p.Thought)
			g.sendThought(delta)
		case p.Text != nil:
			g.endThoughts()
			var delta []byte
			delta, stopped = g.text.add(p.Text)
			g.send(delta)
			stopped = stopped && !g.demandAtStop()
		case p.Call != nil:
			g.endThoughts()
			g.send(g.text.end())
			g.text.stopped = false
			g.sendCall(p.Call)
		}
	}
	if len(g.parser.Out) == 0 {
		g.send(nil) // reports many tokens without text
	}
	g.parser.Out = g.parser.Out[:0]
	return !stopped && g.lost == nil
}

// demandAtStop begins the demanded call where the model ends its turn by a text. It reports false
// if the answer ends there.
func (g *generation) demandAtStop() bool {
	if g.text.reason != infer.EndOfTurn || !g.demands || g.parser.Calls > 0 || !g.allowed.Force(g.parser.Open(), nil) {
		return false
	}
	g.text.resume()
	return true
}

// endThoughts sends the rest of the thoughts.
func (g *generation) endThoughts() { g.sendThought(g.thoughts.end()) }

// sendThought emits a thought with the tokens since the last event. A client that takes only text
// gets only the number of tokens.
func (g *generation) sendThought(delta []byte) {
	switch {
	case g.lost != nil || len(delta) == 0:
	case !g.gen.Blocks:
		g.send(nil)
	default:
		g.lost = g.emit(&infer.Thinking{Delta: delta, Tokens: g.ev.Tokens, Cost: g.ev.Cost})
		g.ev.Tokens, g.ev.Cost, g.ev.Logprobs = 0, 0, g.ev.Logprobs[:0]
	}
}

// sendCall emits a call with the tokens since the last event.
func (g *generation) sendCall(c *speech.Call) {
	if g.lost != nil || !g.gen.Blocks {
		return
	}
	g.calls++
	g.lost = g.emit(&infer.ToolCall{
		ID: callPrefix + strconv.Itoa(g.calls), Name: c.Name, Input: c.Input, Tokens: g.ev.Tokens, Cost: g.ev.Cost,
	})
	g.ev.Tokens, g.ev.Cost, g.ev.Logprobs = 0, 0, g.ev.Logprobs[:0]
}

// unsatisfied reports whether a call that the request demands is missing.
func (g *generation) unsatisfied() bool { return g.demands && g.parser.Calls == 0 }
