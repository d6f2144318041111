package speech

import (
	"slices"
	"strconv"
	"strings"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
	"github.com/inferd-go/inferd/internal/automaton"
)

// A call is a call under way: its symbols from behind the previous one, and the places in them that the
// marks have named.
type call struct {
	text            []automaton.Symbol
	names           []int // where the name may begin
	named           bool
	tool            int
	args, argsUntil int
	ends            []valueEnd // of arguments between tags, or with raw strings
	maybe           ending
}

// An ending is where a call with a raw string has ended, unless the string goes on. The zero value is none.
type ending struct {
	argsUntil, until int
	next             int // where the name of the next call begins
}

// add follows a symbol of a call. marks are those of at least one way, sure those of all.
func (p *Parser) add(x automaton.Symbol, marks, sure automaton.Mark) {
	c := &p.call
	c.text = append(c.text, x)
	p.decide(marks)
	n := len(c.text)
	if marks&markNamed != 0 && !c.named {
		p.name(n - 1)
	}
	if marks&markNameEnd != 0 && p.name(n) {
		c.args = 0
	}
	if marks&markName != 0 {
		if c.maybe.next = n; !c.named {
			c.names = append(c.names, n)
		}
	}
	if marks&markArgs != 0 && c.args == 0 {
		c.args = n
	}
	if end := marks & (markJSON | markLine | markRaw | markKey | markEquals); end != 0 {
		c.ends = append(c.ends, valueEnd{end, n - c.args})
	}
	if marks&markArgsEnd != 0 {
		c.argsUntil = n
	}
	switch {
	case marks&markCallEnd == 0 || !c.named:
	case sure&markCallEnd == 0 && p.speech.Dialect.Calls.Param.Raw:
		c.maybe = ending{argsUntil: c.argsUntil, until: n}
	default:
		p.whole(n, 0)
	}
}

// decide follows a symbol by which it is known whether a raw string has ended with its call, or has gone on.
func (p *Parser) decide(marks automaton.Mark) {
	c := &p.call
	switch {
	case c.maybe.until == 0:
	case marks&markEquals != 0:
		c.maybe = ending{}
	case marks&(markNamed|markCallsEnd) != 0:
		c.argsUntil = c.maybe.argsUntil
		p.whole(c.maybe.until, c.maybe.next)
	}
}

// name finds the name of the call, which ends at a place. It reports whether there is one.
func (p *Parser) name(until int) bool {
	c := &p.call
	for _, from := range slices.Backward(c.names) {
		if tool, ok := p.speech.tools[textOf(c.text[from:until])]; ok {
			c.tool, c.named = tool, true
			return true
		}
	}
	return false
}

// whole ends the call at a place in its symbols; the others belong to the next one, whose name begins at next, or at a place
// still to come if that is 0.
func (p *Parser) whole(until, next int) {
	c := &p.call
	tool := &p.speech.named[c.tool]
	p.Calls++
	p.Out = append(p.Out, Part{Call: &Call{Name: tool.Name, Input: p.speech.input(c.text[c.args:max(c.args, c.argsUntil)], c.ends)}})
	rest := call{text: slices.Delete(c.text, 0, until), names: c.names[:0], ends: c.ends[:0]}
	if next > until {
		rest.names = append(rest.names, next-until)
	}
	*c = rest
}

// Numbered returns the id or the number that begins here, as the next prompt will have it; nil elsewhere. behind is the text
// that ends it, if more letters or digits could follow. Behind a marker of bytes a call is not certain before its name, and
// an id there is not known.
func (p *Parser) Numbered() (id, behind []automaton.Symbol) {
	if p.phase != calling {
		return nil, nil
	}
	var text string
	kind := dialect.ID
	switch m := p.before.Marks; {
	case m&markNine != 0:
		return p.speech.symbols(dialect.IDOf(dialect.Nine, p.LastID+p.Calls+1)), nil
	case m&markWords != 0:
		text = dialect.IDOf(dialect.Words, p.LastID+p.Calls+1)
	case m&markCounter != 0:
		text, kind = strconv.Itoa(p.CallsBefore+p.Calls), dialect.Counter
	case m&markIndex != 0:
		text, kind = strconv.Itoa(p.Calls), dialect.Index
	default:
		return nil, nil
	}
	pieces := p.speech.Dialect.Calls.Call
	if at := kindAt(pieces, kind) + 1; at < len(pieces) && pieces[at].Kind == dialect.Fixed {
		behind = p.speech.symbols(pieces[at].Text)
	}
	return p.speech.symbols(text), behind
}

// textOf returns symbols as text, without tokens.
func textOf(list []automaton.Symbol) string {
	var b strings.Builder
	for _, x := range list {
		if x < 256 {
			b.WriteByte(byte(x))
		}
	}
	return b.String()
}

// beginning is the text of a call up to the name; with the name, and the text behind it, if there is only one tool.
func (s *Speech) beginning() []automaton.Symbol {
	c := &s.Dialect.Calls
	var text strings.Builder
	text.WriteString(c.Lead + c.Begin)
	at := 0
	for ; at < len(c.Call) && c.Call[at].Kind == dialect.Fixed; at++ {
		text.WriteString(c.Call[at].Text)
	}
	if len(s.named) == 1 && at < len(c.Call) && c.Call[at].Kind == dialect.Name {
		text.WriteString(s.spellName(s.named[0].Name))
		if next := c.Call[at+1]; next.Kind == dialect.Fixed {
			text.WriteString(next.Text)
		}
	}
	return s.symbols(text.String())
}
