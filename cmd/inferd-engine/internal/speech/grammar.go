package speech

import (
	"slices"
	"strings"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/constraint"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/infer"
)

// Marks of the grammar, for the parser.
const (
	markText       automaton.Mark = automaton.User << iota // the next symbol may be text
	markThought                                            // the next symbol may be a thought
	markFork                                               // a call, thoughts or the marker of a text may begin with the next symbol
	markHeader                                             // the marker in front of a text, or behind it, has ended
	markValue                                              // a value of the response format begins
	markThinking                                           // thoughts have begun
	markThoughtEnd                                         // thoughts have ended
	markCall                                               // this is a call
	markName                                               // the tool's name begins
	markNamed                                              // the name has ended before this symbol
	markNameEnd                                            // the name ends with this symbol, unless a longer one goes on
	markArgs                                               // the arguments begin
	markArgsEnd                                            // the arguments have ended
	markCallEnd                                            // the call is whole
	markJSON                                               // an argument in JSON has ended
	markLine                                               // a raw argument has ended, before the white space of the tag
	markRaw                                                // a raw argument has ended, right before the tag
	markNine                                               // an id of nine letters and digits begins
	markAnyLength                                          // an id of letters, digits, - and _ begins
	markConvNumber                                         // the number of the call in the conversation begins
	markAnsNumber                                          // the number of the call in the answer begins
	markKey                                                // the name of an argument begins, if the raw string before it has ended
	markEquals                                             // the value of an argument begins
	markCallsEnd                                           // all calls are whole
)

// maxSpace limits white space of free length, in bytes.
const maxSpace = 8

// A writer writes the grammar of a speech, or of its openers. A method that writes a part of a text returns the part's
// first node; it is passed the node that follows the part.
type writer struct {
	*Speech
	b       *automaton.Builder
	opening bool             // calls are written only up to the symbol that makes them certain
	args    []automaton.Rule // the arguments of each tool, unless opening
	guarded []bool           // by tool: whether the rule in args has guards
	space   automaton.Rule   // one byte of white space
	strict  bool             // white space between the parts of calls must be the template's
}

func (s *Speech) writer(b *automaton.Builder) *writer {
	w := &writer{Speech: s, b: b, space: b.Rule(), strict: s.strict()}
	var space automaton.Set
	for _, c := range []byte(" \t\r\n") {
		space.Add(c, c)
	}
	b.Body(w.space, b.Set(space, b.End()))
	return w
}

// strict reports whether calls must have the template's white space between all their parts.
func (s *Speech) strict() bool { return s.strictBehindName() && s.certain() }

// strictBehindName reports whether calls must have the template's white space behind the name, where they are certain.
func (s *Speech) strictBehindName() bool { return s.Dialect.Calls.Space != nil }

// behindName returns a copy of w for the text behind the name of a call.
func (w *writer) behindName() *writer {
	behind := *w
	behind.strict = w.strictBehindName()
	return &behind
}

// Grammar implements [constraint.Source]: it returns the grammar of the whole answer. If the answer may have openers, it
// also builds their grammar and stores it in s.
func (s *Speech) Grammar(model constraint.Vocabulary, budget *automaton.Budget) (*automaton.Grammar, error) {
	if s.mayCall() || s.mayThink() || s.header() != nil {
		g, err := s.openerGrammar(budget)
		if err != nil {
			return nil, infer.Refusef("tools", "tools: %w", err)
		}
		s.opener = g
	}
	w := s.writer(&automaton.Builder{Budget: budget})
	if s.mayCall() {
		for i := range s.named {
			rule, err := w.arguments(i)
			if err != nil {
				return nil, err
			}
			w.args = append(w.args, rule)
		}
	}
	end := w.b.End()
	if s.Format != nil {
		g, err := constraint.Format{Format: s.Format}.Grammar(model, budget)
		if err != nil {
			return nil, err
		}
		end = w.b.Mark(markValue, w.b.Call(w.b.Include(g), end))
	}
	rule := w.b.Rule()
	w.b.Body(rule, w.answer(end))
	g, err := w.b.Build(rule)
	if err != nil {
		return nil, infer.Refusef(s.Member(), "%s: %w", s.Member(), err)
	}
	return g, nil
}

// openerGrammar returns the grammar of the openers, which may look like text at first: the beginning of a call up to
// the symbol that makes it certain, the marker of thoughts, and the markers around a text.
func (s *Speech) openerGrammar(budget *automaton.Budget) (*automaton.Grammar, error) {
	w := s.writer(&automaton.Builder{Budget: budget})
	w.opening = true
	var ways []automaton.Node
	if s.mayCall() {
		ways = append(ways, w.calls().unfenced)
	}
	if s.mayThink() {
		ways = append(ways, w.exact(w.symbols(strings.TrimSpace(s.Dialect.Thinking.Begin)), w.b.End()))
	}
	if begin := s.header(); begin != nil {
		ways = append(ways, w.exact(begin, w.b.End()))
	}
	if s.encloses() {
		ways = append(ways, w.exact(s.symbols(s.Dialect.Text.End), w.b.End()))
	}
	rule := w.b.Rule()
	w.b.Body(rule, w.b.Alt(ways...))
	return w.b.Build(rule)
}

// answer writes the whole answer. value is the value of a response format, in place of the text; without a format it is
// the end.
func (w *writer) answer(value automaton.Node) automaton.Node {
	d := w.Dialect
	if d.Next != "" {
		return w.messages(value)
	}
	text := w.headerAndText(value)
	behind := text // behind thoughts
	switch end := d.Thinking.End; {
	case w.Format != nil:
		behind = w.spaces(text)
	case w.mustCall() && d.Calls.Alone && w.strict: // the white space in front of the call must be that of the next prompt
		behind = w.exact(w.symbols(trailing(end, strings.TrimSpace(end))), text)
	}
	if !d.Thinking.Has() || w.Position == dialect.Behind {
		return text
	}
	if w.Position == dialect.Inside {
		return w.thoughts(behind)
	}
	begin := w.symbols(strings.TrimSpace(d.Thinking.Begin))
	opened := w.b.Mark(automaton.Commit|markThinking, w.thoughts(behind))
	if w.NoThoughts {
		opened = w.b.Mark(automaton.Forbid, w.b.End())
	}
	return w.b.Alt(text, w.spaces(w.b.Mark(markFork, w.exact(begin, opened))))
}

// header returns the marker in front of a text, without leading white space; nil means none.
func (s *Speech) header() []automaton.Symbol {
	if d := s.Dialect; d.Next == "" && len(d.Text.Begins) > 0 {
		return s.symbols(strings.TrimLeft(d.Text.Begins[0], " \t\r\n"))
	}
	return nil
}

// hasLead reports whether the template writes white space between the prompt and a text.
func (s *Speech) hasLead() bool {
	d := &s.Dialect.Text
	return d.Lead != "" || len(d.Begins) > 0 && isSpace(automaton.Symbol(d.Begins[0][0]))
}

// headerAndText writes text and calls, with an optional marker in front of the text. In front of a demanded call that
// has no marker of its own, the marker or the white space that the template writes in front of a text is required,
// because the next prompt will have it.
func (w *writer) headerAndText(value automaton.Node) automaton.Node {
	d, begin, text := &w.Dialect.Text, w.header(), w.textAndCalls(value)
	exactly := w.mustCall() && w.Dialect.Calls.Alone && w.strict
	if begin == nil {
		if exactly {
			return w.exact(w.symbols(d.Lead), text)
		}
		return text
	}
	if exactly {
		return w.exact(w.symbols(d.Begins[0]), w.b.Mark(automaton.Commit|markHeader, text))
	}
	inner := text
	if w.encloses() {
		end := w.symbols(d.End)
		inner = w.textAndCalls(value, w.newFork(w.exact(end, w.b.Mark(automaton.Commit|markHeader, w.behindText())), end[0] >= 256))
	}
	behind := w.b.Mark(automaton.Commit|markHeader, inner)
	return w.b.Alt(text, w.spaces(w.b.Mark(markFork, w.exact(begin, behind))))
}

// encloses reports whether a text has markers in front of it and behind it. A value of a response format has none.
func (s *Speech) encloses() bool {
	return s.header() != nil && s.Dialect.Text.End != "" && s.Format == nil
}

// behindText writes calls, or the end, behind the marker that ends a text.
func (w *writer) behindText() automaton.Node {
	var ways []automaton.Node
	if len(w.named) > 0 {
		ways = append(ways, w.b.Mark(markFork, w.calls().unfenced))
	}
	if !w.mustCall() {
		ways = append(ways, w.end())
	}
	return w.spaces(w.b.Alt(ways...))
}

// textEnd writes the end of an answer behind its text.
func (w *writer) textEnd() automaton.Node { return w.b.Mark(markText, w.end()) }

// end writes the end of an answer. The template's Stop marker may stand in front of it, if that is a token that does
// not end an answer by itself.
func (w *writer) end() automaton.Node {
	end := w.b.End()
	if stop := w.symbols(w.Dialect.Stop); len(stop) == 1 && stop[0] >= 256 && !w.isEnd(stop[0]) {
		end = w.b.Alt(end, w.symbol(stop[0], end))
	}
	return end
}

// messages writes an answer that consists of messages: each is thoughts, text or a call.
func (w *writer) messages(value automaton.Node) automaton.Node {
	b, d := w.b, w.Dialect
	again := b.Forward()
	next := w.exact(w.symbols(d.Next), again)
	ways := []automaton.Node{
		w.exact(w.symbols(d.Thinking.Begin), b.Mark(automaton.Commit|markThinking, w.thoughts(next))),
	}
	if w.mayCall() {
		ways = append(ways, b.Mark(markFork, w.calls().unfenced))
	}
	for i, begin := range d.Text.Begins {
		switch {
		case w.Format == nil:
			more := w.exact(w.symbols(d.Text.End), next)
			body := []automaton.Node{b.Mark(markText, more)}
			if !w.mustCall() {
				body = append(body, b.Mark(markText, b.End()))
			}
			ways = append(ways, w.exact(w.symbols(begin), w.freeText(body, nil)))
		case i == 0:
			ways = append(ways, w.exact(w.symbols(begin), value))
		}
	}
	b.Define(again, ways...)
	return again
}

// thoughts writes thoughts and the marker that ends them, followed by next.
func (w *writer) thoughts(next automaton.Node) automaton.Node {
	b := w.b
	end := w.exact(w.symbols(strings.TrimSpace(w.Dialect.Thinking.End)), b.Mark(automaton.Commit|markThoughtEnd, next))
	var all automaton.Set
	all.Add(0, 255)
	loop := b.Forward()
	ways := []automaton.Node{b.Set(all, loop), end}
	for _, text := range w.Dialect.Thinking.InnerMarkers {
		if x := w.symbols(text); len(x) == 1 && x[0] >= 256 {
			ways = append(ways, w.symbol(x[0], loop))
		}
	}
	if !w.mustCall() && w.Format == nil {
		ways = append(ways, b.End())
	}
	b.Define(loop, b.Mark(markThought, b.Alt(ways...)))
	return loop
}

// textAndCalls writes the text and the calls behind it. others are further ways out of the text.
func (w *writer) textAndCalls(value automaton.Node, others ...fork) automaton.Node {
	b := w.b
	if len(w.named) == 0 {
		if w.Format != nil {
			return value
		}
		return w.freeText([]automaton.Node{w.textEnd()}, others)
	}
	calls := w.calls()
	call := b.Mark(markFork, calls.unfenced)
	forks := append([]fork{{call, b.Mark(markFork, calls.fenced)}}, others...)
	switch alone := w.Dialect.Calls.Alone; {
	case w.Format != nil && !w.mayCall():
		return value
	case w.Format != nil:
		return b.Alt(value, call)
	case w.mustCall() && alone && w.strict:
		return call
	case w.mustCall() && alone:
		return w.spaces(call)
	case w.mustCall():
		return w.freeText(nil, forks)
	case alone:
		return b.Alt(w.freeText([]automaton.Node{w.textEnd()}, others), w.spaces(call))
	}
	return w.freeText([]automaton.Node{w.textEnd()}, forks)
}

// spaces writes optional white space of up to maxSpace bytes.
func (w *writer) spaces(next automaton.Node) automaton.Node {
	return w.b.Repeat(w.space, 0, maxSpace, next)
}

// exact writes the given symbols, without other white space.
func (w *writer) exact(text []automaton.Symbol, next automaton.Node) automaton.Node {
	for _, x := range slices.Backward(text) {
		next = w.symbol(x, next)
	}
	return next
}

func (w *writer) symbol(x automaton.Symbol, next automaton.Node) automaton.Node {
	if x >= 256 {
		return w.b.Token(int32(x-256), next)
	}
	var s automaton.Set
	s.Add(byte(x), byte(x))
	return w.b.Set(s, next)
}
