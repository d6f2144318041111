package ollama

import (
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// reasons maps reasons to values of done_reason.
var reasons = map[infer.Reason]string{
	infer.EndOfTurn: "stop", infer.StopSequence: "stop", infer.Length: "length", infer.CalledTool: "stop",
}

// An Answer encodes the events of an answer to a chat or a prompt, as a stream of lines or as one
// line.
type Answer struct {
	Request *Request
	Model   string // as the client spelled it
	// Now returns the time; nil is time.Now.
	Now func() time.Time

	calls    int
	text     []byte // the text of an answer in one piece
	thinking []byte
	called   []byte // tool calls of that answer as JSON, without brackets
	logprobs []byte // logprobs of that answer as JSON, without brackets
}

// Stream appends the line for ev; events such as [infer.Prompt] have none. An [infer.Error] means that
// the answer has failed.
func (a *Answer) Stream(dst []byte, ev infer.Event) ([]byte, error) {
	switch ev := ev.(type) {
	case *infer.Admitted, *infer.Prompt:
	case *infer.Text:
		dst = a.begin(dst)
		dst = a.content(dst, ev.Delta, nil, nil)
		if a.Request.Generate.Logprobs > 0 && len(ev.Logprobs) > 0 {
			dst = append(dst, `,"logprobs":[`...)
			dst = append(web.AppendLogprobs(dst, ev.Logprobs, a.Request.top), ']')
		}
		dst = append(dst, `,"done":false}`+"\n"...)
	case *infer.Thinking:
		dst = a.begin(dst)
		dst = a.content(dst, nil, ev.Delta, nil)
		dst = append(dst, `,"done":false}`+"\n"...)
	case *infer.ToolCall:
		if a.Request.prompt {
			return dst, errCall
		}
		dst = a.begin(dst)
		dst = a.content(dst, nil, nil, a.appendCall(nil, ev))
		dst = append(dst, `,"done":false}`+"\n"...)
	case *infer.Done:
		if ev.Reason == infer.Canceled {
			return dst, web.ErrCanceled
		}
		dst = a.begin(dst)
		dst = a.content(dst, nil, nil, nil)
		dst = append(a.end(dst, ev), '\n')
	default:
		return dst, infer.Errorf(infer.Internal, "Ollama's lines cannot encode a %T", ev)
	}
	return dst, nil
}

var errCall = infer.Errorf(infer.Internal, "the answer to a prompt cannot have a tool call")

// KeepAlive appends a line with an empty text, because clients fail on an empty line.
func (a *Answer) KeepAlive(dst []byte) []byte {
	return append(a.content(a.begin(dst), nil, nil, nil), `,"done":false}`+"\n"...)
}

// Fail appends the end of a stream that has failed.
func (a *Answer) Fail(dst []byte, cause error) []byte {
	return append(appendFailure(dst, web.ErrorOf(cause)), '\n')
}

// begin appends the beginning of a line, with the model and the time.
func (a *Answer) begin(dst []byte) []byte {
	dst = append(dst, `{"model":`...)
	dst = wire.AppendString(dst, a.Model)
	dst = append(dst, `,"created_at":`...)
	now := time.Now
	if a.Now != nil {
		now = a.Now
	}
	return appendTime(dst, now())
}

// content appends the members with the text, the thinking and the calls.
func (a *Answer) content(dst, text, thinking, calls []byte) []byte {
	if a.Request.prompt {
		dst = append(dst, `,"response":`...)
	} else {
		dst = append(dst, `,"message":{"role":"assistant","content":`...)
	}
	dst = wire.AppendString(dst, text)
	if len(thinking) > 0 {
		dst = append(dst, `,"thinking":`...)
		dst = wire.AppendString(dst, thinking)
	}
	if len(calls) > 0 {
		dst = append(dst, `,"tool_calls":[`...)
		dst = append(dst, calls...)
		dst = append(dst, ']')
	}
	if !a.Request.prompt {
		dst = append(dst, '}')
	}
	return dst
}

// appendCall appends a call. Its arguments are always an object, because clients accept no other
// value: any other input becomes the member value of an object. They have no white space, because
// an event is one line.
func (a *Answer) appendCall(dst []byte, ev *infer.ToolCall) []byte {
	id := ev.ID
	if id == "" {
		id = "call_" + strconv.Itoa(a.calls+1)
	}
	dst = append(dst, `{"id":`...)
	dst = wire.AppendString(dst, id)
	dst = append(dst, `,"function":{"index":`...)
	dst = strconv.AppendInt(dst, int64(a.calls), 10)
	dst = append(dst, `,"name":`...)
	dst = wire.AppendString(dst, ev.Name)
	dst = append(dst, `,"arguments":`...)
	a.calls++
	input := jsontext.Value(ev.Input).Clone()
	if input.Compact() != nil {
		input = jsontext.Value("{}") // cannot happen: the link checks it
	}
	if input.Kind() == jsontext.KindBeginObject {
		return append(append(dst, input...), "}}"...)
	}
	dst = append(dst, `{"value":`...)
	return append(append(dst, input...), "}}}"...)
}

// end appends the last members of the last line, and its closing brace.
func (a *Answer) end(dst []byte, ev *infer.Done) []byte {
	dst = append(dst, `,"done":true,"done_reason":"`...)
	dst = append(dst, reasons[ev.Reason]...)
	dst = append(dst, '"')
	return append(appendCosts(dst, ev), '}')
}

// appendCosts appends numbers of tokens, and times in nanoseconds. The time in the queue is
// reported as the time for loading the model.
func appendCosts(dst []byte, ev *infer.Done) []byte {
	t := ev.Timings
	for _, of := range []struct {
		name  string
		value int64
	}{
		{`,"total_duration":`, int64(t.Queue + t.Prefill + t.Decode)},
		{`,"load_duration":`, int64(t.Queue)},
		{`,"prompt_eval_count":`, int64(ev.In)},
		{`,"prompt_eval_duration":`, int64(t.Prefill)},
		{`,"eval_count":`, int64(ev.Out)},
		{`,"eval_duration":`, int64(t.Decode)},
	} {
		dst = append(dst, of.name...)
		dst = strconv.AppendInt(dst, of.value, 10)
	}
	return dst
}

// Collect takes an event of an answer in one piece. For the Done it returns the body of the answer,
// otherwise nil. An [infer.Error] means that the answer has failed.
func (a *Answer) Collect(ev infer.Event) ([]byte, error) {
	switch ev := ev.(type) {
	case *infer.Admitted, *infer.Prompt:
	case *infer.Text:
		a.text = append(a.text, ev.Delta...)
		if a.Request.Generate.Logprobs > 0 && len(ev.Logprobs) > 0 {
			a.logprobs = web.AppendLogprobs(web.Comma(a.logprobs), ev.Logprobs, a.Request.top)
		}
	case *infer.Thinking:
		a.thinking = append(a.thinking, ev.Delta...)
	case *infer.ToolCall:
		if a.Request.prompt {
			return nil, errCall
		}
		a.called = a.appendCall(web.Comma(a.called), ev)
	case *infer.Done:
		if ev.Reason == infer.Canceled {
			return nil, web.ErrCanceled
		}
		dst := a.content(a.begin(nil), a.text, a.thinking, a.called)
		if len(a.logprobs) > 0 {
			dst = append(dst, `,"logprobs":[`...)
			dst = append(append(dst, a.logprobs...), ']')
		}
		return a.end(dst, ev), nil
	default:
		return nil, infer.Errorf(infer.Internal, "Ollama's answer cannot encode a %T", ev)
	}
	if len(a.text)+len(a.thinking)+len(a.called)+len(a.logprobs) > web.MaxAnswer {
		return nil, web.TooLong()
	}
	return nil, nil
}

// Loaded returns the answer to a request that only loads a model.
func (a *Answer) Loaded() []byte {
	dst := a.content(a.begin(nil), nil, nil, nil)
	return append(dst, `,"done":true,"done_reason":"load"}`+"\n"...)
}
