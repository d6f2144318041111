package speech

import (
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
	"github.com/inferd-go/inferd/internal/automaton"
)

// maxReversed limits the number of tools for calls with the arguments in front of the name: until the name comes, the
// automaton follows the arguments of all tools at once.
const maxReversed = 16

// certainByToken reports whether the first symbol of a call is a token that only calls begin with.
func (s *Speech) certainByToken() bool {
	c := &s.Dialect.Calls
	begin := c.Begin
	if begin == "" && len(c.Call) > 0 && c.Call[0].Kind == dialect.Fixed {
		begin = c.Call[0].Text
	}
	return begin != "" && s.Dialect.Next == "" && s.symbols(begin)[0] >= 256
}

// certain reports whether the first symbol of a call already shows that it is a call and not text.
func (s *Speech) certain() bool {
	return s.Dialect.Next != "" || s.certainByToken() || s.mustCall() && s.Dialect.Calls.Alone
}

// reversed writes one call with the arguments in front of the name, as one way for each tool. It writes none if there
// are more than maxReversed tools. A tool with guards in its arguments is left out, unless it is the only tool and the
// call is certain at once: all ways would share the memory of a guard.
func (w *writer) reversed(pieces []dialect.Piece, after automaton.Node) (ways []automaton.Node) {
	if len(w.tools) > maxReversed || w.opening && w.certainByToken() {
		return nil
	}
	args, at := kindAt(pieces, dialect.Arguments), kindAt(pieces, dialect.Name)
	before, between, behind := pieces[:args], pieces[args+1:at], w.withoutEnd(pieces[at+1:])
	way := func(rule automaton.Rule, names automaton.Node) automaton.Node {
		b := w.b
		behind := b.Mark(markArgsEnd, w.pieces(between, 0, b.Mark(markName, names)))
		return w.pieces(before, w.markOf(before), b.Mark(markArgs, b.Call(rule, behind)))
	}
	if w.opening || !w.mayCall() {
		sure := automaton.Commit | markCall | markNamed
		if !w.opening {
			sure = automaton.Forbid
		}
		end := w.symbol(w.firstOf(behind), w.b.Mark(sure, w.b.End()))
		return []automaton.Node{way(w.anyObject(), w.names(w.allNames(), 0, func(int, bool) automaton.Node { return end }))}
	}
	end := w.pieces(behind, automaton.Commit|markCall|markNamed, w.b.Mark(markCallEnd, after))
	alone := len(w.tools) == 1 && w.certain()
	for _, n := range w.allNames() {
		if !w.guarded[n.tool] || alone {
			ways = append(ways, way(w.args[n.tool], w.b.Bytes(n.text, end)))
		}
	}
	return ways
}

// anyObject returns a rule for any JSON object, without a guard. It takes any sequence of the characters of numbers for
// a number.
func (w *writer) anyObject() automaton.Rule {
	b := w.b
	object, value := b.Rule(), b.Rule()
	space := func(next automaton.Node) automaton.Node { return b.Repeat(w.space, 0, automaton.Unlimited, next) }
	text := func(next automaton.Node) automaton.Node {
		return b.Bytes(`"`, b.Text(0, automaton.Unlimited, b.Bytes(`"`, next)))
	}
	// list writes items and the bracket that closes them.
	list := func(open, end string, item func(automaton.Node) automaton.Node) automaton.Node {
		first := b.Forward()
		behind := b.Alt(b.Bytes(",", space(first)), b.Bytes(end, b.End()))
		b.Define(first, item(space(behind)))
		return b.Bytes(open, space(b.Alt(b.Bytes(end, b.End()), first)))
	}
	one := func(next automaton.Node) automaton.Node { return b.Nest(value, next) }
	body := list("{", "}", func(next automaton.Node) automaton.Node { return text(space(b.Bytes(":", space(one(next))))) })
	b.Body(object, body)
	var digits automaton.Set
	for _, c := range []byte("0123456789+-.eE") {
		digits.Add(c, c)
	}
	digit := b.Rule()
	b.Body(digit, b.Set(digits, b.End()))
	b.Body(value, b.Alt(
		b.Nest(object, b.End()), list("[", "]", one), text(b.End()), b.Repeat(digit, 1, automaton.Unlimited, b.End()),
		b.Bytes("true", b.End()), b.Bytes("false", b.End()), b.Bytes("null", b.End()),
	))
	return object
}
