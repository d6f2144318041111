package speech

import (
	"strings"

	"github.com/inferd-go/inferd/internal/automaton"
)

// States of free text that distinguish fenced blocks of code. The state info, and those with an f, are inside
// a block.
const (
	line  = iota // at the beginning of a line, white space aside
	mid          // in a line
	tick1        // behind a backtick at the beginning of a line
	tick2
	info // in the line that opens a block
	fline
	fmid
	ftick1
	ftick2
	states
)
const other = -1 // any other byte
// fences holds, for each state and byte, the next state.
var fences = [states]map[int]int{
	line:   {'\n': line, ' ': line, '\t': line, '`': tick1, other: mid},
	mid:    {'\n': line, other: mid},
	tick1:  {'\n': line, '`': tick2, other: mid},
	tick2:  {'\n': line, '`': info, other: mid},
	info:   {'\n': fline, '`': mid, other: info},
	fline:  {'\n': fline, ' ': fline, '\t': fline, '`': ftick1, other: fmid},
	fmid:   {'\n': fline, other: fmid},
	ftick1: {'\n': fline, '`': ftick2, other: fmid},
	ftick2: {'\n': fline, '`': mid, other: fmid},
}

// A fork is a way out of a text, such as a call, that the next symbol may begin. The node unfenced is for positions
// outside fenced blocks of code, the node fenced for positions in one. If the way begins with a token, the two are the
// same. If it begins with bytes, it would be a quotation in a block, so fenced accepts nothing.
type fork struct{ unfenced, fenced automaton.Node }

// newFork returns the fork to a node; token reports whether the node begins with a token.
func (w *writer) newFork(to automaton.Node, token bool) fork {
	to = w.b.Mark(markFork, to)
	if token {
		return fork{to, to}
	}
	return fork{to, w.b.Alt()}
}

// freeText writes free text. After each byte it may go on with out, or with a fork: its node unfenced
// outside a fenced block of code, its node fenced inside one. A block opens with a line that begins,
// white space aside, with three backticks and has no further backtick. It ends with the next line that
// begins with three.
func (w *writer) freeText(out []automaton.Node, forks []fork) automaton.Node {
	b := w.b
	if len(forks) == 0 {
		var all automaton.Set
		all.Add(0, 255)
		loop := b.Forward()
		b.Define(loop, append([]automaton.Node{b.Mark(markText, b.Set(all, loop))}, out...)...)
		return loop
	}
	var nodes [states]automaton.Node
	for i := range nodes {
		nodes[i] = b.Forward()
	}
	for i, edges := range fences {
		rest := automaton.Set{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)}
		var ways []automaton.Node
		for _, c := range []int{'\n', '\t', ' ', '`'} {
			to, ok := edges[c]
			if !ok {
				continue
			}
			rest[c>>6] &^= 1 << (c & 63)
			ways = append(ways, w.symbol(automaton.Symbol(c), nodes[to]))
		}
		ways = append(ways, b.Set(rest, nodes[edges[other]]))
		ways = []automaton.Node{b.Mark(markText, b.Alt(ways...))}
		ways = append(ways, out...)
		for _, f := range forks {
			if i < info {
				ways = append(ways, b.Mark(markText, f.unfenced))
			} else {
				ways = append(ways, b.Mark(markText, f.fenced))
			}
		}
		b.Define(nodes[i], ways...)
	}
	return nodes[line]
}

// leaveText returns the text to write in front of a call in order to end a message, in a dialect with messages, or else
// a fenced block. newLine reports whether a line has just begun.
func (s *Speech) leaveText(newLine bool) []automaton.Symbol {
	if s.Dialect.Next != "" {
		return s.symbols(s.Dialect.Text.End + s.Dialect.Next)
	}
	fence := "```"
	if !newLine {
		fence = "\n" + fence
	}
	if !strings.HasPrefix(s.Dialect.Calls.Lead, "\n") {
		fence += "\n"
	}
	return s.symbols(fence)
}
