package speech

import (
	"slices"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/constraint"
	"github.com/inferd-go/inferd/internal/automaton"
)

// A Part is a parsed piece of an answer. Exactly one field is set.
type Part struct {
	Text    []byte // any bytes, not always whole characters
	Thought []byte // the same
	Call    *Call
}

// A Call is a whole call of a tool.
type Call struct {
	Name  string
	Input []byte // a JSON object
}

// A phase is the kind of the part of an answer that is being parsed. The set is closed.
type phase int

const (
	speaking phase = iota // text, and the markers and white space around it
	thinking
	calling
)

// A Parser divides one answer into parts, symbol by symbol, by the marks of the automaton. It holds back text that may
// still become the beginning of a call, of thoughts or of a marker, and white space in front of it.
type Parser struct {
	// Out holds the parts that are certain. The caller takes them and empties it.
	Out []Part
	// Calls counts the calls so far.
	Calls int
	// CallsBefore is the number of calls in the conversation before the answer; LastID is the largest number in their
	// ids. The caller may set both before the first symbol.
	CallsBefore, LastID int

	speech   *Speech
	phase    phase
	inFormat bool // the text is a value of the response format
	trim     bool // white space is dropped until other text comes
	position constraint.Position
	last     automaton.Symbol // the symbol that came last

	held    []symbol
	openers *automaton.Automaton // nil if no text can turn out to be something else
	start   automaton.State      // of openers
	pending []opener             // what may have begun in held, in the order of the offsets
	call    call
}

// A symbol is a symbol of the answer that does not belong to a part yet.
type symbol struct {
	sym   automaton.Symbol
	text  bool // it may be text
	marks automaton.Mark
}

// An opener is a possible beginning of a call, of thoughts or of a marker around a text: its offset in held, and the
// state of the openers' automaton behind the symbols since.
type opener struct {
	at    int
	state automaton.State
}

// Parser returns the parser of an answer; start is the position in front of its first symbol.
func (s *Speech) Parser(start constraint.Position) *Parser {
	p := &Parser{speech: s, position: start, trim: s.Format == nil && s.hasLead()}
	if s.opener != nil {
		p.openers = automaton.New(s.opener)
		p.start = p.openers.Start()
	}
	if start.Marks&markThought != 0 && start.Marks&markText == 0 {
		p.phase, p.trim = thinking, true
	}
	return p
}

// Symbol processes the next symbol of the answer; position is the position behind it.
func (p *Parser) Symbol(x automaton.Symbol, position constraint.Position) {
	switch p.phase {
	case speaking:
		p.speak(symbol{x, p.mayBeText(), position.Marks}, position)
	case thinking:
		p.think(symbol{x, true, position.Marks}, position)
	case calling:
		p.add(x, position.Marks, position.Sure)
	}
	p.position, p.last = position, x
}

// mayBeText reports whether the next symbol may be text.
func (p *Parser) mayBeText() bool {
	p.inFormat = p.inFormat || p.position.Marks&markValue != 0
	return p.inFormat || p.position.Marks&markText != 0
}

// speak processes a symbol outside thoughts and calls.
func (p *Parser) speak(x symbol, position constraint.Position) {
	p.advance(x.sym)
	p.held = append(p.held, x)
	switch {
	case position.Sure&markCall != 0:
		from := p.cut()
		p.phase = calling
		rest := p.held[from:]
		p.held, p.pending = nil, nil
		for _, x := range rest {
			p.add(x.sym, x.marks, 0)
		}
	case position.Sure&markThinking != 0:
		p.cut()
		p.held, p.pending = p.held[:0], p.pending[:0]
		p.phase, p.trim = thinking, true
	case position.Sure&markHeader != 0:
		p.cut()
		p.held, p.pending = p.held[:0], p.pending[:0]
		p.trim = true
	default:
		p.release()
	}
}

// advance follows a symbol in all pending openers and drops those that it does not fit. If an opener may begin with the
// symbol, it adds one.
func (p *Parser) advance(x automaton.Symbol) {
	if p.openers == nil {
		return
	}
	if p.openers.Full() {
		p.renew()
	}
	alive := p.pending[:0]
	for _, o := range p.pending {
		if o.state = p.openers.NextSymbol(o.state, x); o.state != automaton.Dead {
			alive = append(alive, o)
		}
	}
	p.pending = alive
	if p.position.Marks&markFork != 0 {
		if s := p.openers.NextSymbol(p.start, x); s != automaton.Dead {
			p.pending = append(p.pending, opener{len(p.held), s})
		}
	}
}

// renew drops all states of the openers' automaton that are not in use, to bound its memory.
func (p *Parser) renew() {
	live := []automaton.State{p.start}
	for _, o := range p.pending {
		live = append(live, o.state)
	}
	p.openers.Renew(live)
	p.start = live[0]
	for i := range p.pending {
		p.pending[i].state = live[i+1]
	}
}

// cut emits the text in front of the first pending opener, which is now certain, without trailing white space. It
// returns the offset of the opener in held, or len(held) if none is pending.
func (p *Parser) cut() (from int) {
	from = len(p.held)
	if len(p.pending) > 0 {
		from = p.pending[0].at
	}
	n := from
	for n > 0 && (!p.held[n-1].text || isSpace(p.held[n-1].sym)) {
		n--
	}
	p.emitText(p.held[:n])
	p.trim = false
	return from
}

// release emits the held text in front of the first pending opener, but not white space at its end that a call or a
// marker may follow.
func (p *Parser) release() {
	n := len(p.held)
	if len(p.pending) > 0 {
		n = p.pending[0].at
	}
	for (p.speech.mayCall() || p.speech.encloses()) && !p.inFormat && n > 0 && isSpace(p.held[n-1].sym) {
		n--
	}
	if n == 0 {
		return
	}
	p.emitText(p.held[:n])
	p.held = slices.Delete(p.held, 0, n)
	for i := range p.pending {
		p.pending[i].at -= n
	}
}

// emitText adds to Out those symbols of a list that are text, without leading white space if that is to be dropped.
func (p *Parser) emitText(list []symbol) {
	for _, x := range list {
		if !x.text || x.sym >= 256 || p.trim && isSpace(x.sym) {
			continue
		}
		p.trim = false
		n := len(p.Out)
		if n == 0 || p.Out[n-1].Text == nil {
			p.Out = append(p.Out, Part{})
			n++
		}
		p.Out[n-1].Text = append(p.Out[n-1].Text, byte(x.sym))
	}
}

// think processes a symbol of thoughts.
func (p *Parser) think(x symbol, position constraint.Position) {
	p.held = append(p.held, x)
	end := p.speech.end
	if position.Sure&markThoughtEnd != 0 {
		p.emitThought(p.held[:p.withoutSpace(len(p.held)-len(end))])
		p.held = p.held[:0]
		p.phase, p.trim = speaking, true
		return
	}
	n := p.withoutSpace(len(p.held) - overlapping(p.held, end))
	p.emitThought(p.held[:n])
	p.held = slices.Delete(p.held, 0, n)
}

// withoutSpace returns n minus the number of white space symbols at the end of held[:n].
func (p *Parser) withoutSpace(n int) int {
	for n > 0 && isSpace(p.held[n-1].sym) {
		n--
	}
	return n
}

// overlapping returns the length of the longest suffix of list that is a proper prefix of text.
func overlapping(list []symbol, text []automaton.Symbol) int {
	for n := min(len(list), len(text)-1); n > 0; n-- {
		if slices.EqualFunc(list[len(list)-n:], text[:n], func(x symbol, y automaton.Symbol) bool { return x.sym == y }) {
			return n
		}
	}
	return 0
}

// emitThought adds symbols of thoughts to Out, without tokens and leading white space.
func (p *Parser) emitThought(list []symbol) {
	for _, x := range list {
		if x.sym >= 256 || p.trim && isSpace(x.sym) {
			continue
		}
		p.trim = false
		n := len(p.Out)
		if n == 0 || p.Out[n-1].Thought == nil {
			p.Out = append(p.Out, Part{})
			n++
		}
		p.Out[n-1].Thought = append(p.Out[n-1].Thought, byte(x.sym))
	}
}

// End ends the answer and emits held symbols as text or thoughts. It reports whether the answer ended within a call
// that already had its name.
func (p *Parser) End() (cut bool) {
	switch p.phase {
	case speaking:
		p.emitText(p.held)
	case thinking:
		p.emitThought(p.held)
	case calling:
		cut = p.call.named
	}
	p.held, p.pending = nil, nil
	return cut
}

// Thinking reports whether the next symbol belongs to thoughts or ends them.
func (p *Parser) Thinking() bool { return p.phase == thinking }

// Loose reports whether nearly all tokens are accepted next, as in free text and in thoughts.
func (p *Parser) Loose() bool {
	return p.phase == thinking || p.phase == speaking && !p.inFormat && p.position.Marks&markText != 0
}

// ThoughtEnd returns the symbols that are still missing in the marker that ends thoughts, as the template spells it.
func (p *Parser) ThoughtEnd() []automaton.Symbol {
	text := p.speech.symbols(p.speech.Dialect.Thinking.End)
	for len(text) > 0 && isSpace(text[0]) && len(p.held) > 0 { // held already has white space or a part of the marker
		text = text[1:]
	}
	return text[overlapping(p.held, p.speech.end):]
}

// CallStart returns the text that begins a call, as the template spells it, or nil if no call may follow here. If the
// answer is in a fenced block, where the call would be quoted, or in a message, the text first ends the block or the
// message.
func (p *Parser) CallStart() []automaton.Symbol {
	if p.phase != speaking || p.inFormat || !p.speech.mayCall() {
		return nil
	}
	var end []automaton.Symbol
	if p.position.Marks&markText != 0 && p.position.Marks&markFork == 0 {
		end = p.speech.leaveText(p.last == '\n')
	}
	return append(end, p.speech.callStart()...)
}
