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
	ends            []valueEnd // of arguments between tags
}

// add follows a symbol of a call.
func (p *Parser) add(x automaton.Symbol, marks automaton.Mark) {
	c := &p.call
	c.text = append(c.text, x)
	n := len(c.text)
	if marks&markNamed != 0 && !c.named {
		for _, from := range slices.Backward(c.names) {
			if tool, ok := p.speech.tools[textOf(c.text[from:n-1])]; ok {
				c.tool, c.named = tool, true
				break
			}
		}
	}
	if marks&markNameEnd != 0 {
		for _, from := range slices.Backward(c.names) {
			if tool, ok := p.speech.tools[textOf(c.text[from:n])]; ok {
				c.tool, c.named, c.args = tool, true, 0
				break
			}
		}
	}
	if marks&markName != 0 && !c.named {
		c.names = append(c.names, n)
	}
	if marks&markArgs != 0 && c.args == 0 {
		c.args = n
	}
	if end := marks & (markJSON | markLine | markRaw); end != 0 {
		c.ends = append(c.ends, valueEnd{end, n - c.args})
	}
	if marks&markArgsEnd != 0 {
		c.argsUntil = n
	}
	if marks&markCallEnd == 0 || !c.named {
		return
	}
	tool := &p.speech.named[c.tool]
	p.Calls++
	p.Out = append(p.Out, Part{Call: &Call{Name: tool.Name, Input: p.speech.input(c.text[c.args:max(c.args, c.argsUntil)], c.ends)}})
	*c = call{text: c.text[:0], names: c.names[:0], ends: c.ends[:0]}
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
