package responses

import (
	"strconv"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/openai"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// An Answer encodes the events of a response:
//
//	created, in_progress ─▶ items, one after the other ─▶ completed, incomplete or failed
//
// Consecutive text events form one item, a message. Consecutive thinking events form one item as
// well. Each call is an item of its own.
type Answer struct {
	ID      string // suffix of the IDs of the response and its items
	Model   string // as the client spelled it
	Created int64  // seconds since 1970
	Request *Request

	sequence int // number of the next event
	begun    bool
	items    int    // number of items that have begun
	output   []byte // finished items as JSON, without brackets
	thought  int    // number of tokens of thinking

	open     kind   // kind of the current item
	id       []byte // ID of the current item
	text     []byte // text of the current item
	logprobs []byte // logprobs of the current item as JSON, without brackets

	unsent []byte // a buffer for the events of an answer in one piece: they are encoded, but not sent
}

// A kind is the kind of an item that is sent in pieces.
type kind int

const (
	none kind = iota
	message
	reasoning
)

// Stream appends the server-sent events for ev; there may be none. An [infer.Error] means that the
// answer has failed.
func (a *Answer) Stream(dst []byte, ev infer.Event) ([]byte, error) {
	switch ev := ev.(type) {
	case *infer.Admitted, *infer.Prompt:
		return dst, nil
	case *infer.Text:
		dst = a.turnTo(a.start(dst), message)
		dst = a.textDelta(dst, ev)
	case *infer.Thinking:
		a.thought += ev.Tokens
		dst = a.turnTo(a.start(dst), reasoning)
		dst = a.thoughtDelta(dst, ev.Delta)
	case *infer.ToolCall:
		dst = a.close(a.start(dst), completed)
		dst = a.call(dst, ev)
	case *infer.Done:
		if ev.Reason == infer.Canceled {
			return dst, web.ErrCanceled
		}
		state := completed
		if ev.Reason == infer.Length {
			state = incomplete
		}
		dst = a.close(a.start(dst), state)
		dst = append(a.begin(dst, "response."+state), `,"response":`...)
		return end(a.object(dst, state, ev, nil)), nil
	default:
		return dst, infer.Errorf(infer.Internal, "responses cannot encode a %T", ev)
	}
	if len(a.output)+len(a.text)+len(a.logprobs) > web.MaxAnswer {
		return dst, infer.Errorf(infer.TooLarge, "the answer has more than %d bytes", web.MaxAnswer)
	}
	return dst, nil
}

// Collect takes an event of an answer in one piece. For the Done it returns the body of the answer,
// otherwise nil. An [infer.Error] means that the answer has failed.
func (a *Answer) Collect(ev infer.Event) (body []byte, err error) {
	done, ended := ev.(*infer.Done)
	if !ended || done.Reason == infer.Canceled {
		a.unsent, err = a.Stream(a.unsent[:0], ev)
		return nil, err
	}
	state := completed
	if done.Reason == infer.Length {
		state = incomplete
	}
	a.unsent = a.close(a.unsent[:0], state)
	return a.object(nil, state, done, nil), nil
}

// Fail appends the end of a stream that has failed with cause.
func (a *Answer) Fail(dst []byte, cause error) []byte {
	dst = a.start(dst)
	a.finish(incomplete) // no event reports the end of the current item
	dst = append(a.begin(dst, "response."+failed), `,"response":`...)
	return end(a.object(dst, failed, nil, errorOf(cause)))
}

// KeepAlive appends a comment that keeps an idle stream alive.
func (*Answer) KeepAlive(dst []byte) []byte { return append(dst, openai.KeepAlive...) }

// start appends the first events of the stream, unless they were sent.
func (a *Answer) start(dst []byte) []byte {
	if a.begun {
		return dst
	}
	a.begun = true
	for _, event := range []string{"response.created", "response.in_progress"} {
		dst = append(a.begin(dst, event), `,"response":`...)
		dst = end(a.object(dst, inProgress, nil, nil))
	}
	return dst
}

// begin appends the beginning of an event: its type, which is also in the data, and its number.
func (a *Answer) begin(dst []byte, event string) []byte {
	dst = append(dst, "event: "...)
	dst = append(dst, event...)
	dst = append(dst, "\ndata: {\"type\":\""...)
	dst = append(dst, event...)
	dst = append(dst, `","sequence_number":`...)
	dst = strconv.AppendInt(dst, int64(a.sequence), 10)
	a.sequence++
	return dst
}

func end(dst []byte) []byte { return append(dst, "}\n\n"...) }

// beginItemEvent appends the beginning of an event with the ID and the index of the current item.
func (a *Answer) beginItemEvent(dst []byte, event string) []byte {
	dst = append(a.begin(dst, event), `,"item_id":"`...)
	dst = append(dst, a.id...)
	dst = append(dst, `","output_index":`...)
	return strconv.AppendInt(dst, int64(a.items-1), 10)
}

// beginWholeItem appends the beginning of an event that contains the current item.
func (a *Answer) beginWholeItem(dst []byte, event string) []byte {
	dst = append(a.begin(dst, event), `,"output_index":`...)
	dst = strconv.AppendInt(dst, int64(a.items-1), 10)
	return append(dst, `,"item":`...)
}

// next begins an item: it makes the item's ID, and clears text and logprobs.
func (a *Answer) next(prefix string) {
	a.id = append(append(append(a.id[:0], prefix...), a.ID...), '_')
	a.id = strconv.AppendInt(a.id, int64(a.items), 10)
	a.items++
	a.text, a.logprobs = a.text[:0], a.logprobs[:0]
}

// turnTo begins an item of the given kind, unless the current item has that kind. It ends the
// current item first.
func (a *Answer) turnTo(dst []byte, to kind) []byte {
	if a.open == to {
		return dst
	}
	dst = a.close(dst, completed)
	a.open = to
	if to == message {
		a.next("msg_")
	} else {
		a.next("rs_")
	}
	dst = a.beginWholeItem(dst, "response.output_item.added")
	dst = end(a.item(dst, inProgress))
	switch {
	case to == message:
		dst = append(a.beginItemEvent(dst, "response.content_part.added"), `,"content_index":0,"part":`...)
		dst = end(a.part(dst))
	case a.Request.summary:
		dst = append(a.beginItemEvent(dst, "response.reasoning_summary_part.added"), `,"summary_index":0,"part":`...)
		dst = end(a.summaryPart(dst))
	}
	return dst
}

// item appends the current item, a message or thinking, as a JSON object in the given state. In the
// state inProgress, the item has no text.
func (a *Answer) item(dst []byte, state string) []byte {
	if a.open == message {
		dst = append(dst, `{"type":"message","id":"`...)
	} else {
		dst = append(dst, `{"type":"reasoning","id":"`...)
	}
	dst = append(dst, a.id...)
	dst = append(dst, `","status":"`...)
	dst = append(dst, state...)
	switch whole := state != inProgress; {
	case a.open == message:
		dst = append(dst, `","role":"assistant","content":[`...)
		if whole {
			dst = a.part(dst)
		}
		dst = append(dst, "]}"...)
	case !whole:
		dst = append(dst, `","summary":[]}`...)
	case a.Request.summary:
		dst = append(dst, `","summary":[`...)
		dst = a.sealed(append(a.summaryPart(dst), ']'))
	default:
		dst = append(dst, `","summary":[],"content":[{"type":"reasoning_text","text":`...)
		dst = wire.AppendString(dst, a.text)
		dst = a.sealed(append(dst, "}]"...))
	}
	return dst
}

// sealed appends the end of an item of thinking: the sealed form (see seal), if the request asks for
// it, and the closing brace.
func (a *Answer) sealed(dst []byte) []byte {
	if a.Request.encrypted {
		dst = append(dst, `,"encrypted_content":"`...)
		dst = append(dst, seal(a.text)...)
		dst = append(dst, '"')
	}
	return append(dst, '}')
}

// part appends the only content part of the current item, a message.
func (a *Answer) part(dst []byte) []byte {
	dst = append(dst, `{"type":"output_text","annotations":[],"logprobs":[`...)
	dst = append(dst, a.logprobs...)
	dst = append(dst, `],"text":`...)
	return append(wire.AppendString(dst, a.text), '}')
}

func (a *Answer) summaryPart(dst []byte) []byte {
	dst = append(dst, `{"type":"summary_text","text":`...)
	return append(wire.AppendString(dst, a.text), '}')
}

func (a *Answer) textDelta(dst []byte, ev *infer.Text) []byte {
	a.text = append(a.text, ev.Delta...)
	dst = append(a.beginItemEvent(dst, "response.output_text.delta"), `,"content_index":0,"delta":`...)
	dst = wire.AppendString(dst, ev.Delta)
	dst = append(dst, `,"logprobs":[`...)
	if a.Request.logprobs && len(ev.Logprobs) > 0 {
		a.logprobs = web.Comma(a.logprobs)
		before := len(a.logprobs)
		a.logprobs = web.AppendLogprobs(a.logprobs, ev.Logprobs, a.Request.top)
		dst = append(dst, a.logprobs[before:]...)
	}
	return end(append(dst, ']'))
}

func (a *Answer) thoughtDelta(dst, delta []byte) []byte {
	a.text = append(a.text, delta...)
	if a.Request.summary {
		dst = append(a.beginItemEvent(dst, "response.reasoning_summary_text.delta"), `,"summary_index":0,"delta":`...)
	} else {
		dst = append(a.beginItemEvent(dst, "response.reasoning_text.delta"), `,"content_index":0,"delta":`...)
	}
	return end(wire.AppendString(dst, delta))
}

// close appends the events that end the current item, if there is one, and moves it to the output.
// state is its final state.
func (a *Answer) close(dst []byte, state string) []byte {
	if a.open == none {
		return dst
	}
	switch {
	case a.open == message:
		dst = append(a.beginItemEvent(dst, "response.output_text.done"), `,"content_index":0,"text":`...)
		dst = append(wire.AppendString(dst, a.text), `,"logprobs":[`...)
		dst = end(append(append(dst, a.logprobs...), ']'))
		dst = append(a.beginItemEvent(dst, "response.content_part.done"), `,"content_index":0,"part":`...)
		dst = end(a.part(dst))
	case a.Request.summary:
		dst = append(a.beginItemEvent(dst, "response.reasoning_summary_text.done"), `,"summary_index":0,"text":`...)
		dst = end(wire.AppendString(dst, a.text))
		dst = append(a.beginItemEvent(dst, "response.reasoning_summary_part.done"), `,"summary_index":0,"part":`...)
		dst = end(a.summaryPart(dst))
	default:
		dst = append(a.beginItemEvent(dst, "response.reasoning_text.done"), `,"content_index":0,"text":`...)
		dst = end(wire.AppendString(dst, a.text))
	}
	dst = a.beginWholeItem(dst, "response.output_item.done")
	dst = end(a.item(dst, state))
	a.finish(state)
	return dst
}

// finish moves the current item, if there is one, to the output, in the given state.
func (a *Answer) finish(state string) {
	if a.open == none {
		return
	}
	a.output = a.item(web.Comma(a.output), state)
	a.open = none
}
