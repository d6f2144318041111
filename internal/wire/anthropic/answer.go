package anthropic

import (
	"slices"
	"strconv"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// An Answer encodes the events of a message:
//
//	message_start ─▶ blocks, one after the other ─▶ message_delta, message_stop
//
// Consecutive text events form one block, and so do consecutive thinking events; each call is a
// block of its own. Blocks never overlap, and a delta has the kind of its block
// (BerriAI/litellm#33224).
type Answer struct {
	ID        string // suffix of the ID of the message
	RequestID string
	Model     string // as the client spelled it
	Request   *Request

	begun  bool
	open   kind // kind of the current block
	blocks int  // number of blocks that have ended
	calls  int
	prompt infer.Prompt // token counts; zero unless the backend reports them before the end

	content []byte // blocks of an answer in one piece that have ended, as JSON, without brackets
	text    []byte // text of the current block
}

// A kind is the kind of a block that is sent in pieces.
type kind int

const (
	none kind = iota
	text
	thinking
)

// signature is the signature of every block of thinking. Clients send it back with the block; it is
// not checked.
const signature = "aW5mZXJk"

// Stream appends the server-sent events for ev; there may be none. An [infer.Error] means that the
// answer has failed.
func (a *Answer) Stream(dst []byte, ev infer.Event) ([]byte, error) {
	switch ev := ev.(type) {
	case *infer.Admitted:
	case *infer.Prompt:
		a.prompt = infer.Prompt{Tokens: ev.Tokens, Cached: ev.Cached}
	case *infer.Text:
		dst = a.turnTo(a.start(dst, a.prompt.Tokens, a.prompt.Cached), text)
		dst = a.delta(dst, `{"type":"text_delta","text":`, ev.Delta)
	case *infer.Thinking:
		dst = a.turnTo(a.start(dst, a.prompt.Tokens, a.prompt.Cached), thinking)
		dst = a.delta(dst, `{"type":"thinking_delta","thinking":`, ev.Delta)
	case *infer.ToolCall:
		dst = a.close(a.start(dst, a.prompt.Tokens, a.prompt.Cached))
		dst = append(a.beginBlockEvent(dst, "content_block_start"), `,"content_block":`...)
		dst = end(a.call(dst, ev, "{}"))
		dst = a.delta(dst, `{"type":"input_json_delta","partial_json":`, ev.Input)
		dst = a.closeBlock(dst)
	case *infer.Done:
		if ev.Reason == infer.Canceled {
			return dst, web.ErrCanceled
		}
		dst = a.close(a.start(dst, ev.In, ev.Cached))
		dst = append(begin(dst, "message_delta"), `,"delta":{`...)
		dst = a.stop(dst, ev)
		dst = append(dst, `},"usage":`...)
		dst = end(usage(dst, ev.In, ev.Cached, ev.Out))
		dst = end(begin(dst, "message_stop"))
	default:
		return dst, infer.Errorf(infer.Internal, "messages cannot encode a %T", ev)
	}
	return dst, nil
}

// Fail appends the end of a stream that has failed with cause.
func (a *Answer) Fail(dst []byte, cause error) []byte {
	as, text := errorOf(cause)
	dst = append(dst, "event: error\ndata: "...)
	return append(appendError(dst, as.kind, text, a.RequestID), "\n\n"...)
}

// KeepAlive appends the event that keeps an idle stream alive.
func (*Answer) KeepAlive(dst []byte) []byte { return end(begin(dst, "ping")) }

// begin appends the beginning of an event: its type, which is also in the data.
func begin(dst []byte, event string) []byte {
	dst = append(dst, "event: "...)
	dst = append(dst, event...)
	dst = append(dst, "\ndata: {\"type\":\""...)
	return append(append(dst, event...), '"')
}

func end(dst []byte) []byte { return append(dst, "}\n\n"...) }

// beginBlockEvent appends the beginning of an event with the index of the current block, or of the next block
// if there is no current one.
func (a *Answer) beginBlockEvent(dst []byte, event string) []byte {
	dst = append(begin(dst, event), `,"index":`...)
	return strconv.AppendInt(dst, int64(a.blocks), 10)
}

// delta appends an event with a piece of the current block. head is the beginning of the member
// delta, up to the piece.
func (a *Answer) delta(dst []byte, head string, piece []byte) []byte {
	dst = append(a.beginBlockEvent(dst, "content_block_delta"), `,"delta":`...)
	dst = append(dst, head...)
	dst = wire.AppendString(dst, piece)
	return end(append(dst, '}'))
}

// start appends the first event of the stream, unless it was sent.
func (a *Answer) start(dst []byte, in, cached int) []byte {
	if a.begun {
		return dst
	}
	a.begun = true
	dst = append(begin(dst, "message_start"), `,"message":`...)
	dst = append(a.head(dst), `],"stop_reason":null,"stop_sequence":null,"usage":`...)
	return end(append(usage(dst, in, cached, 0), '}'))
}

// head appends the beginning of a message, up to its content.
func (a *Answer) head(dst []byte) []byte {
	dst = append(dst, `{"id":"msg_`...)
	dst = append(dst, a.ID...)
	dst = append(dst, `","type":"message","role":"assistant","model":`...)
	dst = wire.AppendString(dst, a.Model)
	return append(dst, `,"content":[`...)
}

// turnTo ends the current block and begins one of the given kind, unless the current block has that
// kind.
func (a *Answer) turnTo(dst []byte, to kind) []byte {
	if a.open == to {
		return dst
	}
	dst = a.close(dst)
	a.open = to
	dst = append(a.beginBlockEvent(dst, "content_block_start"), `,"content_block":`...)
	if to == text {
		return end(append(dst, `{"type":"text","text":""}`...))
	}
	return end(append(dst, `{"type":"thinking","thinking":"","signature":""}`...))
}

// close ends the current block, if there is one. Thinking ends with its signature.
func (a *Answer) close(dst []byte) []byte {
	if a.open == none {
		return dst
	}
	if a.open == thinking {
		dst = a.delta(dst, `{"type":"signature_delta","signature":`, []byte(signature))
	}
	a.open = none
	return a.closeBlock(dst)
}

func (a *Answer) closeBlock(dst []byte) []byte {
	dst = end(a.beginBlockEvent(dst, "content_block_stop"))
	a.blocks++
	return dst
}

// call appends the block of a tool call, with the given input as JSON.
func (a *Answer) call(dst []byte, ev *infer.ToolCall, input string) []byte {
	a.calls++
	id := ev.ID
	if id == "" { // clients assign results to calls by this ID
		id = "toolu_" + a.ID + "_" + strconv.Itoa(a.calls)
	}
	dst = append(dst, `{"type":"tool_use","id":`...)
	dst = wire.AppendString(dst, id)
	dst = append(dst, `,"name":`...)
	dst = wire.AppendString(dst, ev.Name)
	dst = append(dst, `,"input":`...)
	return append(append(dst, input...), '}')
}

// reasons maps reasons to values of stop_reason. For infer.Length, the value depends on the limit;
// see stop.
var reasons = map[infer.Reason]string{
	infer.EndOfTurn: "end_turn", infer.StopSequence: "stop_sequence", infer.CalledTool: "tool_use",
}

// stop appends the members stop_reason and stop_sequence.
func (a *Answer) stop(dst []byte, ev *infer.Done) []byte {
	reason, sequence := reasons[ev.Reason], ""
	switch most := a.Request.Generate.MaxTokens; {
	case ev.Reason == infer.Length && most > 0 && ev.Out >= most:
		reason = "max_tokens"
	case ev.Reason == infer.Length:
		reason = "model_context_window_exceeded"
	case ev.Reason == infer.EndOfTurn && a.calls > 0:
		reason = reasons[infer.CalledTool]
	case ev.Reason == infer.StopSequence && slices.Contains(a.Request.Generate.Stop, ev.Stop):
		sequence = ev.Stop
	case ev.Reason == infer.StopSequence && len(a.Request.Generate.Stop) == 1: // the backend does not report the stop sequence
		sequence = a.Request.Generate.Stop[0]
	}
	dst = append(dst, `"stop_reason":"`...)
	dst = append(dst, reason...)
	dst = append(dst, `","stop_sequence":`...)
	return web.AppendNullable(dst, sequence)
}

// usage appends the numbers of tokens of an answer. in includes the cached tokens; input_tokens does
// not.
func usage(dst []byte, in, cached, out int) []byte {
	for _, n := range []struct {
		name  string
		value int
	}{
		{`{"input_tokens":`, in - cached},
		{`,"cache_creation_input_tokens":`, 0},
		{`,"cache_read_input_tokens":`, cached},
		{`,"output_tokens":`, out},
	} {
		dst = append(dst, n.name...)
		dst = strconv.AppendInt(dst, int64(n.value), 10)
	}
	return append(dst, '}')
}

// Collect takes an event of an answer in one piece. For the Done it returns the body of the answer,
// otherwise nil. An [infer.Error] means that the answer has failed.
func (a *Answer) Collect(ev infer.Event) ([]byte, error) {
	switch ev := ev.(type) {
	case *infer.Admitted, *infer.Prompt:
	case *infer.Text:
		a.collectAs(text)
		a.text = append(a.text, ev.Delta...)
	case *infer.Thinking:
		a.collectAs(thinking)
		a.text = append(a.text, ev.Delta...)
	case *infer.ToolCall:
		a.collectAs(none)
		a.content = a.call(web.Comma(a.content), ev, string(ev.Input))
	case *infer.Done:
		if ev.Reason == infer.Canceled {
			return nil, web.ErrCanceled
		}
		a.collectAs(none)
		dst := append(a.head(nil), a.content...)
		dst = a.stop(append(dst, "],"...), ev)
		dst = append(dst, `,"usage":`...)
		dst = usage(dst, ev.In, ev.Cached, ev.Out)
		return append(web.AppendTimings(dst, ev.Timings), '}'), nil
	default:
		return nil, infer.Errorf(infer.Internal, "messages cannot encode a %T", ev)
	}
	if len(a.content)+len(a.text) > web.MaxAnswer {
		return nil, web.TooLong()
	}
	return nil, nil
}

// collectAs makes next the kind of the current block, to which a piece will be added. If the
// current block has another kind, collectAs first adds that block to the content.
func (a *Answer) collectAs(next kind) {
	if a.open == next {
		return
	}
	switch a.open {
	case none:
	case text:
		a.content = append(web.Comma(a.content), `{"type":"text","text":`...)
		a.content = append(wire.AppendString(a.content, a.text), '}')
	case thinking:
		a.content = append(web.Comma(a.content), `{"type":"thinking","thinking":`...)
		a.content = wire.AppendString(a.content, a.text)
		a.content = append(a.content, `,"signature":"`+signature+`"}`...)
	}
	a.open, a.text = next, a.text[:0]
}

// A Count encodes the answer to a request that counts tokens.
type Count struct{}

// Collect takes an event. For the Done it returns the body of the answer, otherwise nil.
func (Count) Collect(ev infer.Event) ([]byte, error) {
	switch ev := ev.(type) {
	case *infer.Admitted, *infer.Prompt:
		return nil, nil
	case *infer.Done:
		return append(strconv.AppendInt([]byte(`{"input_tokens":`), int64(ev.In), 10), '}'), nil
	default:
		return nil, infer.Errorf(infer.Internal, "a count cannot encode a %T", ev)
	}
}
