package openai

import (
	"strconv"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// fingerprint is the system_fingerprint of every answer.
const fingerprint = "fp_inferd"

// reasons maps reasons to values of finish_reason.
var reasons = map[infer.Reason]string{
	infer.EndOfTurn: "stop", infer.StopSequence: "stop", infer.Length: "length", infer.CalledTool: "tool_calls",
}

// An Answer encodes the events of one chat completion.
type Answer struct {
	ID      string
	Model   string // as the client spelled it
	Created int64  // seconds since 1970
	Chat    *Chat

	begun   bool
	calls   int
	thought int // number of tokens of thinking

	head  []byte // the beginning of every chunk
	whole whole
}

// A whole collects an answer in one piece.
type whole struct {
	text, thinking  []byte
	calls, logprobs []byte // as JSON, without brackets
}

// Stream appends the chunks for ev; there may be none. An [infer.Error] means that the answer has
// failed.
func (a *Answer) Stream(dst []byte, ev infer.Event) ([]byte, error) {
	switch ev := ev.(type) {
	case *infer.Admitted, *infer.Prompt:
	case *infer.Text:
		dst = a.begin(dst)
		dst = a.chunk(dst, `{"content":`)
		dst = wire.AppendString(dst, ev.Delta)
		dst = append(dst, '}')
		dst = a.endChunk(dst, ev.Logprobs, "")
	case *infer.Thinking:
		a.thought += ev.Tokens
		dst = a.begin(dst)
		dst = a.chunk(dst, `{"reasoning_content":`)
		dst = wire.AppendString(dst, ev.Delta)
		dst = append(dst, `,"reasoning":`...)
		dst = wire.AppendString(dst, ev.Delta)
		dst = append(dst, '}')
		dst = a.endChunk(dst, nil, "")
	case *infer.ToolCall:
		dst = a.begin(dst)
		dst = a.call(dst, ev)
	case *infer.Done:
		if ev.Reason == infer.Canceled {
			return dst, web.ErrCanceled
		}
		dst = a.begin(dst)
		dst = a.chunk(dst, "{}")
		dst = a.endChunk(dst, nil, a.reason(ev))
		if a.Chat.Usage {
			dst = append(a.start(dst), `[],"usage":`...)
			dst = a.usage(dst, ev)
			dst = append(web.AppendTimings(dst, ev.Timings), "}\n\n"...)
		}
		dst = append(dst, "data: [DONE]\n\n"...)
	default:
		return dst, infer.Errorf(infer.Internal, "chat completions cannot encode a %T", ev)
	}
	return dst, nil
}

// Fail appends the end of a stream that has failed with cause.
func (*Answer) Fail(dst []byte, cause error) []byte {
	dst = append(dst, "data: "...)
	dst = ErrorOf(cause).Append(dst)
	return append(dst, "\n\ndata: [DONE]\n\n"...)
}

// KeepAlive appends a comment that keeps an idle stream alive.
func (*Answer) KeepAlive(dst []byte) []byte { return append(dst, KeepAlive...) }

// KeepAlive is a comment without a blank line. With a blank line some SDKs take it for an event
// without data, and fail (openai/openai-python#2722).
const KeepAlive = ": ping\n"

// begin appends the first chunk of the stream, unless it was sent.
func (a *Answer) begin(dst []byte) []byte {
	if a.begun {
		return dst
	}
	a.begun = true
	dst = a.chunk(dst, `{"role":"assistant","content":""}`)
	return a.endChunk(dst, nil, "")
}

// start appends the beginning of a chunk, up to its choices.
func (a *Answer) start(dst []byte) []byte {
	if a.head == nil {
		a.head = append(a.appendHead([]byte("data: "), "chat.completion.chunk"), `,"choices":`...)
	}
	return append(dst, a.head...)
}

// appendHead appends the members that both chunks and whole answers have.
func (a *Answer) appendHead(dst []byte, object string) []byte {
	dst = append(dst, `{"id":`...)
	dst = wire.AppendString(dst, a.ID)
	dst = append(dst, `,"object":"`...)
	dst = append(dst, object...)
	dst = append(dst, `","created":`...)
	dst = strconv.AppendInt(dst, a.Created, 10)
	dst = append(dst, `,"model":`...)
	dst = wire.AppendString(dst, a.Model)
	return append(dst, `,"system_fingerprint":"`+fingerprint+`"`...)
}

// chunk appends the beginning of a chunk, followed by delta.
func (a *Answer) chunk(dst []byte, delta string) []byte {
	dst = append(a.start(dst), `[{"index":0,"delta":`...)
	return append(dst, delta...)
}

// endChunk appends the rest of a chunk after its delta.
func (a *Answer) endChunk(dst []byte, logprobs []infer.Logprob, reason string) []byte {
	dst = append(dst, `,"logprobs":`...)
	if a.Chat.Logprobs && len(logprobs) > 0 {
		dst = append(dst, `{"content":[`...)
		dst = web.AppendLogprobs(dst, logprobs, a.Chat.Top)
		dst = append(dst, `],"refusal":null}`...)
	} else {
		dst = append(dst, "null"...)
	}
	dst = append(dst, `,"finish_reason":`...)
	dst = web.AppendNullable(dst, reason)
	dst = append(dst, "}]"...)
	if a.Chat.Usage {
		dst = append(dst, `,"usage":null`...)
	}
	return append(dst, "}\n\n"...)
}

// call appends the two chunks of a tool call: its name, and then all its arguments. Only the first
// has the ID (openai/codex#7517), and its arguments are empty (ggml-org/llama.cpp#22722).
func (a *Answer) call(dst []byte, ev *infer.ToolCall) []byte {
	index := strconv.Itoa(a.calls)
	a.calls++
	dst = a.chunk(dst, `{"tool_calls":[{"index":`)
	dst = append(dst, index...)
	dst = append(dst, `,"id":`...)
	dst = wire.AppendString(dst, callID(ev, a.calls))
	dst = append(dst, `,"type":"function","function":{"name":`...)
	dst = wire.AppendString(dst, ev.Name)
	dst = append(dst, `,"arguments":""}}]}`...)
	dst = a.endChunk(dst, nil, "")
	dst = a.chunk(dst, `{"tool_calls":[{"index":`)
	dst = append(dst, index...)
	dst = append(dst, `,"function":{"arguments":`...)
	dst = wire.AppendString(dst, ev.Input)
	dst = append(dst, `}}]}`...)
	return a.endChunk(dst, nil, "")
}

// callID returns the ID of the nth call of an answer; n begins with 1. It is never empty, because
// clients use it to assign results to calls.
func callID(ev *infer.ToolCall, n int) string {
	if ev.ID == "" {
		return "call_" + strconv.Itoa(n)
	}
	return ev.ID
}

func (a *Answer) reason(ev *infer.Done) string {
	if a.calls > 0 && ev.Reason == infer.EndOfTurn {
		return reasons[infer.CalledTool]
	}
	return reasons[ev.Reason]
}

// usage appends the numbers of tokens of an answer.
func (a *Answer) usage(dst []byte, ev *infer.Done) []byte {
	for _, n := range []struct {
		name  string
		value int
	}{
		{`{"prompt_tokens":`, ev.In},
		{`,"completion_tokens":`, ev.Out},
		{`,"total_tokens":`, ev.In + ev.Out},
		{`,"prompt_tokens_details":{"cached_tokens":`, ev.Cached},
		{`},"completion_tokens_details":{"reasoning_tokens":`, a.thought},
	} {
		dst = append(dst, n.name...)
		dst = strconv.AppendInt(dst, int64(n.value), 10)
	}
	return append(dst, "}}"...)
}

// Collect takes an event of an answer in one piece. For the Done it returns the body of the answer,
// otherwise nil. An [infer.Error] means that the answer has failed.
func (a *Answer) Collect(ev infer.Event) ([]byte, error) {
	w := &a.whole
	switch ev := ev.(type) {
	case *infer.Admitted, *infer.Prompt:
	case *infer.Text:
		w.text = append(w.text, ev.Delta...)
		if a.Chat.Logprobs && len(ev.Logprobs) > 0 {
			w.logprobs = web.AppendLogprobs(web.Comma(w.logprobs), ev.Logprobs, a.Chat.Top)
		}
	case *infer.Thinking:
		a.thought += ev.Tokens
		w.thinking = append(w.thinking, ev.Delta...)
	case *infer.ToolCall:
		a.calls++
		w.calls = append(web.Comma(w.calls), `{"id":`...)
		w.calls = wire.AppendString(w.calls, callID(ev, a.calls))
		w.calls = append(w.calls, `,"type":"function","function":{"name":`...)
		w.calls = wire.AppendString(w.calls, ev.Name)
		w.calls = append(w.calls, `,"arguments":`...)
		w.calls = wire.AppendString(w.calls, ev.Input)
		w.calls = append(w.calls, "}}"...)
	case *infer.Done:
		if ev.Reason == infer.Canceled {
			return nil, web.ErrCanceled
		}
		return a.body(ev), nil
	default:
		return nil, infer.Errorf(infer.Internal, "chat completions cannot encode a %T", ev)
	}
	if len(w.text)+len(w.thinking)+len(w.calls)+len(w.logprobs) > web.MaxAnswer {
		return nil, web.TooLong()
	}
	return nil, nil
}

// emptyAnswer is the capacity in bytes that body allocates for all but the texts; it suffices for most
// answers.
const emptyAnswer = 560

// body returns the whole answer.
func (a *Answer) body(ev *infer.Done) []byte {
	w := &a.whole
	dst := a.appendHead(make([]byte, 0, len(w.text)+len(w.calls)+2*len(w.thinking)+len(w.logprobs)+emptyAnswer), "chat.completion")
	dst = append(dst, `,"choices":[{"index":0,"message":{"role":"assistant","content":`...)
	if len(w.text) == 0 && a.calls > 0 {
		dst = append(dst, "null"...)
	} else {
		dst = wire.AppendString(dst, w.text)
	}
	dst = append(dst, `,"refusal":null`...)
	if len(w.thinking) > 0 {
		dst = append(dst, `,"reasoning_content":`...)
		dst = wire.AppendString(dst, w.thinking)
		dst = append(dst, `,"reasoning":`...)
		dst = wire.AppendString(dst, w.thinking)
	}
	if len(w.calls) > 0 {
		dst = append(dst, `,"tool_calls":[`...)
		dst = append(dst, w.calls...)
		dst = append(dst, ']')
	}
	dst = append(dst, `},"logprobs":`...)
	if a.Chat.Logprobs {
		dst = append(dst, `{"content":[`...)
		dst = append(dst, w.logprobs...)
		dst = append(dst, `],"refusal":null}`...)
	} else {
		dst = append(dst, "null"...)
	}
	dst = append(dst, `,"finish_reason":`...)
	dst = web.AppendNullable(dst, a.reason(ev))
	dst = append(dst, `}],"usage":`...)
	dst = a.usage(dst, ev)
	dst = web.AppendTimings(dst, ev.Timings)
	return append(dst, '}')
}
