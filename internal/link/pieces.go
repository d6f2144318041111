package link

import "github.com/inferd-go/inferd/internal/infer"

// A piece is an event of an answer other than its end. kind selects the field that is in use.
type piece struct {
	kind     pieceKind
	prompt   infer.Prompt
	text     infer.Text
	thinking infer.Thinking
	tool     *infer.ToolCall
}

type pieceKind int

const (
	textPiece pieceKind = iota
	thinkingPiece
	toolPiece
	promptPiece
)

// event returns the event of the piece. It may point into the piece.
func (p *piece) event() infer.Event {
	switch p.kind {
	case thinkingPiece:
		return &p.thinking
	case toolPiece:
		return p.tool
	case promptPiece:
		return &p.prompt
	default:
		return &p.text
	}
}

// logprobBytes is the approximate size, in bytes, of one alternative in a token's logprobs.
const logprobBytes = 64

// size returns the approximate memory of the piece, in bytes.
func (p *piece) size() int {
	switch p.kind {
	case thinkingPiece:
		return len(p.thinking.Delta)
	case toolPiece:
		return sizeOfTool(p.tool)
	case promptPiece:
		return 0
	default:
		return sizeOfText(&p.text)
	}
}

func sizeOfText(ev *infer.Text) int {
	n := len(ev.Delta)
	for i := range ev.Logprobs {
		n += logprobBytes * (1 + len(ev.Logprobs[i].Top))
	}
	return n
}

func sizeOfTool(ev *infer.ToolCall) int { return len(ev.ID) + len(ev.Name) + len(ev.Input) }

// pieces are events in order. Adjacent text is joined, and so is adjacent thinking.
type pieces []piece

// end returns the piece that an event of kind k is joined to: the last one or a new one.
func (ps *pieces) end(k pieceKind) *piece {
	n := len(*ps)
	if n > 0 && (*ps)[n-1].kind == k && k != toolPiece && k != promptPiece {
		return &(*ps)[n-1]
	}
	if n < cap(*ps) {
		*ps = (*ps)[:n+1]
	} else {
		*ps = append(*ps, piece{})
	}
	p := &(*ps)[n]
	*p = piece{kind: k, text: infer.Text{Delta: p.text.Delta[:0]}, thinking: infer.Thinking{Delta: p.thinking.Delta[:0]}}
	return p
}

// addText copies the bytes of ev, and retains its logprobs. It adds the tokens, the cost and the
// logprobs of carry, and clears carry.
func (ps *pieces) addText(ev, carry *infer.Text) {
	t := &ps.end(textPiece).text
	t.Delta = append(t.Delta, ev.Delta...)
	t.Tokens += carry.Tokens + ev.Tokens
	t.Cost += carry.Cost + ev.Cost
	t.Logprobs = append(append(t.Logprobs, carry.Logprobs...), ev.Logprobs...)
	*carry = infer.Text{}
}

// addThinking copies the bytes of ev. It adds the tokens and the cost of carry and clears both; the
// logprobs of carry stay for the next text.
func (ps *pieces) addThinking(ev *infer.Thinking, carry *infer.Text) {
	t := &ps.end(thinkingPiece).thinking
	t.Delta = append(t.Delta, ev.Delta...)
	t.Tokens += carry.Tokens + ev.Tokens
	t.Cost += carry.Cost + ev.Cost
	carry.Tokens, carry.Cost = 0, 0
}

// addPrompt copies ev.
func (ps *pieces) addPrompt(ev *infer.Prompt) { ps.end(promptPiece).prompt = *ev }

// addTool retains ev.
func (ps *pieces) addTool(ev *infer.ToolCall) { ps.end(toolPiece).tool = ev }

// reset returns an empty list that reuses the memory of the first piece. A stream of one kind needs
// no more, and the memory of the other pieces is freed.
func (ps pieces) reset() pieces {
	if len(ps) > 1 {
		clear(ps[1:])
	}
	return ps[:0]
}
