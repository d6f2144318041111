package refhttp

import (
	"strconv"

	"github.com/inferd-go/inferd/client"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// reasons maps the daemon's stop reasons to the reference's values of finish_reason.
var reasons = map[client.StopReason]string{
	client.EndTurn: "stop", client.StopSequence: "stop", client.Cancelled: "stop",
	client.MaxTokens: "length", client.ToolUse: "tool_calls",
}

// An Answer encodes one answer, as a stream or in one piece.
type Answer struct {
	ID, Model string
	Created   int64 // seconds since 1970

	text  []byte // the text of an answer in one piece
	calls []client.ToolCall
	role  bool // the role was sent
}

// Stream appends the server-sent events for ev; there may be none. Tool calls are sent with the last
// event, and thinking is not sent.
func (a *Answer) Stream(dst []byte, ev *client.Event) []byte {
	switch {
	case ev.Done != nil:
		dst = a.chunk(dst)
		if len(a.calls) > 0 {
			dst = append(dst, `"tool_calls":`...)
			dst = a.appendCalls(dst, true)
		}
		dst = append(dst, `},"finish_reason":`...)
		dst = wire.AppendString(dst, reasonOf(ev.Done))
		dst = append(dst, `}],"usage":`...)
		dst = appendUsage(dst, ev.Done.InputTokens, ev.Done.OutputTokens)
		dst = append(dst, "}\n\n"...)
		return append(dst, end...)
	case ev.Call != nil:
		a.calls = append(a.calls, *ev.Call)
	case ev.Text != "":
		dst = a.chunk(dst)
		if !a.role {
			a.role = true
			dst = append(dst, `"role":"assistant",`...)
		}
		dst = append(dst, `"content":`...)
		dst = wire.AppendString(dst, ev.Text)
		dst = append(dst, "},\"finish_reason\":null}]}\n\n"...)
	}
	return dst
}

// end is the last event of a stream.
const end = "data: [DONE]\n\n"

// Fail appends the end of a stream that has failed. If the daemon cannot be reached, the stream has
// no [DONE].
func (a *Answer) Fail(dst []byte, cause error) []byte {
	f := *ErrorOf(cause)
	lost := f.Code == ""
	f.Type = serverType
	dst = append(dst, "data: "...)
	dst = f.Append(dst)
	dst = append(dst, "\n\n"...)
	if lost {
		return dst
	}
	return append(dst, end...)
}

// Collect takes an event of an answer in one piece. For the last event it returns the body,
// otherwise nil. A text of more than [web.MaxAnswer] bytes is an error.
func (a *Answer) Collect(ev *client.Event) ([]byte, error) {
	switch {
	case ev.Done != nil:
		return a.body(ev.Done), nil
	case ev.Call != nil:
		a.calls = append(a.calls, *ev.Call)
	default:
		a.text = append(a.text, ev.Text...)
	}
	if len(a.text) > web.MaxAnswer {
		return nil, &client.Error{Code: client.FrameTooLarge, Message: "the answer is too long: ask for a stream"}
	}
	return nil, nil
}

func (a *Answer) body(d *client.Done) []byte {
	dst := a.head(nil, "chat.completion")
	dst = append(dst, `"message":{"role":"assistant","content":`...)
	if len(a.text) == 0 && len(a.calls) > 0 {
		dst = append(dst, "null"...)
	} else {
		dst = wire.AppendString(dst, a.text)
	}
	if len(a.calls) > 0 {
		dst = append(dst, `,"tool_calls":`...)
		dst = a.appendCalls(dst, false)
	}
	dst = append(dst, `},"finish_reason":`...)
	dst = wire.AppendString(dst, reasonOf(d))
	dst = append(dst, `}],"usage":`...)
	dst = appendUsage(dst, d.InputTokens, d.OutputTokens)
	return append(dst, '}')
}

// reasonOf returns the finish_reason; it is "stop" for an unknown reason of a newer daemon.
func reasonOf(d *client.Done) string {
	if reason, ok := reasons[d.StopReason]; ok {
		return reason
	}
	return "stop"
}

// chunk appends the beginning of an event, up to the first member of its delta.
func (a *Answer) chunk(dst []byte) []byte {
	dst = a.head(append(dst, "data: "...), "chat.completion.chunk")
	return append(dst, `"delta":{`...)
}

// head appends the beginning of an object, up to the index in its only choice.
func (a *Answer) head(dst []byte, object string) []byte {
	dst = append(dst, `{"id":`...)
	dst = wire.AppendString(dst, a.ID)
	dst = append(dst, `,"object":"`...)
	dst = append(dst, object...)
	dst = append(dst, `","created":`...)
	dst = strconv.AppendInt(dst, a.Created, 10)
	dst = append(dst, `,"model":`...)
	dst = wire.AppendString(dst, a.Model)
	return append(dst, `,"choices":[{"index":0,`...)
}

// appendCalls appends the array of calls. In a stream they have indices.
func (a *Answer) appendCalls(dst []byte, indices bool) []byte {
	for i, call := range a.calls {
		dst = append(dst, "[,"[min(i, 1)], '{')
		if indices {
			dst = append(dst, `"index":`...)
			dst = append(strconv.AppendInt(dst, int64(i), 10), ',')
		}
		dst = append(dst, `"id":`...)
		dst = wire.AppendString(dst, call.ID)
		dst = append(dst, `,"type":"function","function":{"name":`...)
		dst = wire.AppendString(dst, call.Name)
		dst = append(dst, `,"arguments":`...)
		dst = wire.AppendString(dst, call.Input)
		dst = append(dst, "}}"...)
	}
	return append(dst, ']')
}

// appendUsage appends the numbers of tokens. A negative out means that completion_tokens is left out.
func appendUsage(dst []byte, in, out int) []byte {
	dst = append(dst, `{"prompt_tokens":`...)
	dst = strconv.AppendInt(dst, int64(in), 10)
	if out >= 0 {
		dst = append(dst, `,"completion_tokens":`...)
		dst = strconv.AppendInt(dst, int64(out), 10)
	}
	dst = append(dst, `,"total_tokens":`...)
	dst = strconv.AppendInt(dst, int64(in+max(out, 0)), 10)
	return append(dst, '}')
}
