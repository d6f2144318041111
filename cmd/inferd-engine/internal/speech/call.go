package speech

import (
	"slices"
	"strconv"
	"strings"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
	"github.com/inferd-go/inferd/internal/automaton"
)

// A call is an unfinished call of the answer. Its offsets are indices of text.
type call struct {
	text               []automaton.Symbol // from the end of the previous call
	nameStarts         []int              // where the name may begin
	named              bool               // the name is known: it is the name of tool number tool
	tool               int
	argsStart, argsEnd int        // where the arguments begin and end; 0 means not yet
	ends               []valueEnd // in shape Params and with raw strings of Python, see valueEnd
	possibleEnd        ending
}

// An ending is a possible end of a call with a raw string: the string may still go on. The zero value means none.
type ending struct {
	argsEnd, end int
	next         int // where the name of the next call begins
}

// add processes a symbol of a call. marks are the marks that at least one parse of the answer has passed at the symbol,
// sure are those that all parses have passed.
func (p *Parser) add(x automaton.Symbol, marks, sure automaton.Mark) {
	c := &p.call
	c.text = append(c.text, x)
	p.decide(marks)
	n := len(c.text)
	if marks&markNamed != 0 && !c.named {
		p.findName(n - 1)
	}
	if marks&markNameEnd != 0 && p.findName(n) {
		c.argsStart = 0
	}
	if marks&markName != 0 {
		if c.possibleEnd.next = n; !c.named {
			c.nameStarts = append(c.nameStarts, n)
		}
	}
	if marks&markArgs != 0 && c.argsStart == 0 {
		c.argsStart = n
	}
	if end := marks & (markJSON | markLine | markRaw | markKey | markEquals); end != 0 {
		c.ends = append(c.ends, valueEnd{end, n - c.argsStart})
	}
	if marks&markArgsEnd != 0 {
		c.argsEnd = n
	}
	switch {
	case marks&markCallEnd == 0 || !c.named:
	case sure&markCallEnd == 0 && p.speech.Dialect.Calls.Param.Raw:
		c.possibleEnd = ending{argsEnd: c.argsEnd, end: n}
	default:
		p.emitCall(n, 0)
	}
}

// decide settles whether a call has ended at its possible end: if an equals sign follows, the raw string has gone on;
// if a further name or the end of all calls follows, the call has ended.
func (p *Parser) decide(marks automaton.Mark) {
	c := &p.call
	switch {
	case c.possibleEnd.end == 0:
	case marks&markEquals != 0:
		c.possibleEnd = ending{}
	case marks&(markNamed|markCallsEnd) != 0:
		c.argsEnd = c.possibleEnd.argsEnd
		p.emitCall(c.possibleEnd.end, c.possibleEnd.next)
	}
}

// findName looks for a tool's name that ends at offset until, and records the tool. It reports whether it found one.
func (p *Parser) findName(until int) bool {
	c := &p.call
	for _, from := range slices.Backward(c.nameStarts) {
		if tool, ok := p.speech.tools[textOf(c.text[from:until])]; ok {
			c.tool, c.named = tool, true
			return true
		}
	}
	return false
}

// emitCall adds the call that ends at offset until to Out. The symbols behind it begin the next call; next is the
// offset of that call's name, or 0 if its name has not begun.
func (p *Parser) emitCall(until, next int) {
	c := &p.call
	tool := &p.speech.named[c.tool]
	p.Calls++
	p.Out = append(p.Out, Part{Call: &Call{Name: tool.Name, Input: p.speech.input(c.text[c.argsStart:max(c.argsStart, c.argsEnd)], c.ends)}})
	rest := call{text: slices.Delete(c.text, 0, until), nameStarts: c.nameStarts[:0], ends: c.ends[:0]}
	if next > until {
		rest.nameStarts = append(rest.nameStarts, next-until)
	}
	*c = rest
}

// NextID returns the id or number of a call as the next prompt will spell it, if an id or number begins with the next
// symbol; otherwise nil. If its length is not fixed, behind is the fixed text that must follow it, so that the model
// does not continue it. If the marker of calls is bytes, a call is certain only at its name, so an id in front of the
// name is not returned.
func (p *Parser) NextID() (id, behind []automaton.Symbol) {
	if p.phase != calling {
		return nil, nil
	}
	var text string
	kind := dialect.ID
	switch m := p.position.Marks; {
	case m&markNine != 0:
		return p.speech.symbols(dialect.IDOf(dialect.Nine, p.LastID+p.Calls+1)), nil
	case m&markAnyLength != 0:
		text = dialect.IDOf(dialect.AnyLength, p.LastID+p.Calls+1)
	case m&markConvNumber != 0:
		text, kind = strconv.Itoa(p.CallsBefore+p.Calls), dialect.NumberInConversation
	case m&markAnsNumber != 0:
		text, kind = strconv.Itoa(p.Calls), dialect.NumberInAnswer
	default:
		return nil, nil
	}
	pieces := p.speech.Dialect.Calls.Call
	if at := kindAt(pieces, kind) + 1; at < len(pieces) && pieces[at].Kind == dialect.Fixed {
		behind = p.speech.symbols(pieces[at].Text)
	}
	return p.speech.symbols(text), behind
}

// textOf returns the bytes in a list of symbols as text, and leaves out the tokens.
func textOf(list []automaton.Symbol) string {
	var b strings.Builder
	for _, x := range list {
		if x < 256 {
			b.WriteByte(byte(x))
		}
	}
	return b.String()
}

// callStart returns the spelling of a call up to its name. If there is only one tool, it includes the name and the
// fixed text behind it.
func (s *Speech) callStart() []automaton.Symbol {
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
