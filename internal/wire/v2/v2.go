// Package v2 is the second dialect for generation, with typed content blocks, attachments and
// tools. It has two framings, which differ in the form of attachments: base64 in the request, or
// blobs after it. [Codec] is the server half, [Ask] the client half. Answers are computed elsewhere.
package v2

import (
	"errors"
	"time"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// codes are the error codes of v2.
var codes = wire.Common.With(wire.Codes{
	infer.Unsupported: "attachment_unsupported",
	infer.Malformed:   "tool_call_malformed",
})

// A versionError is the error for an unknown wire_version. Its code on the wire, versionCode, belongs
// to no [infer.Code].
type versionError struct{ error }

const versionCode = "wire_version_unsupported"

// A Codec is the server half of the dialect on one connection. A request must be answered before
// the next one is read.
type Codec struct {
	R     frame.Reader
	W     frame.Writer
	Blobs bool // attachments are blobs after the request, and the request has a wire_version

	asked    request // memory for a request; zero except during Read
	reply    wire.Reply
	withheld *held        // answer of the current request; nil if it is streamed
	logprobs []byte       // buffer for the logprobs of a frame
	prompt   infer.Prompt // token counts for the first frame; zero if unknown or already sent
}

// A held collects an answer that is sent only at its end, because stream is false.
type held struct {
	text, thinking []byte
	logprobs       []byte // as JSON
	calls          []infer.ToolCall
	size           int // total number of bytes
}

// Read returns the next request. Its task is an [infer.Generate] or an [infer.Count]. The errors are
// those of server.Codec.
func (c *Codec) Read() (*infer.Request, error) {
	c.reply.Reset()
	c.withheld, c.logprobs, c.prompt = nil, nil, infer.Prompt{}
	m := &c.asked
	defer func() { *m = request{} }()
	msg, err := wire.ReadMessage(c.R, m)
	if err != nil {
		return nil, err
	}
	if err := m.shape(c.Blobs); err != nil {
		return nil, err
	}
	idErr := c.reply.SetID(m.ID)
	if !m.Streams() {
		c.withheld = new(held)
	}
	var data map[string][]byte
	if c.Blobs {
		if !m.WireVersion.Is(wireVersion) {
			return nil, &wire.FatalError{Err: versionError{infer.Errorf(infer.Invalid,
				"unsupported wire_version %v: this daemon speaks wire_version %d", m.WireVersion, wireVersion)}}
		}
		// The blobs must be read even if the request is refused below.
		if data, err = c.readBlobs(m.Attachments); err != nil {
			return nil, err
		}
	}
	if idErr != nil {
		return nil, idErr
	}
	gen, err := m.generate()
	if err != nil {
		return nil, err
	}
	req := &infer.Request{ID: m.ID, Task: gen}
	if err := m.apply(req, gen); err != nil {
		return nil, err
	}
	for i := range gen.Attachments {
		a := &gen.Attachments[i]
		if c.Blobs {
			a.Data = data[a.ID]
		} else if a.Data, err = m.Attachments[i].Bytes.decode(msg); err != nil {
			return nil, wire.Invalid("attachment %.64q: bytes is not base64", a.ID)
		}
	}
	if m.CountOnly {
		req.Task = &infer.Count{Of: gen}
	}
	return req, nil
}

// reasons maps reasons to values of stop_reason.
var reasons = map[infer.Reason]string{
	infer.EndOfTurn:    "end_turn",
	infer.StopSequence: "stop_sequence",
	infer.CalledTool:   "tool_use",
	infer.Length:       "max_tokens",
	infer.Canceled:     "cancelled",
}

// The types of blocks with streamed text.
const (
	textBlock     = "text"
	thinkingBlock = "thinking"
)

// Write sends an event of the current request. An [infer.Error] means that v2 cannot encode the
// event or that the answer is too large, and that nothing was sent for the event; any other error
// is an error of the connection.
func (c *Codec) Write(ev infer.Event) error {
	switch ev := ev.(type) {
	case *infer.Admitted:
		return nil // v2 has no message for it
	case *infer.Prompt:
		c.prompt = infer.Prompt{Tokens: ev.Tokens, Cached: ev.Cached}
		return nil
	case *infer.Text:
		c.logprobs = appendLogprobs(c.logprobs[:0], ev.Logprobs)
		return c.delta(textBlock, ev.Delta, c.logprobs, ev.More)
	case *infer.Thinking:
		return c.delta(thinkingBlock, ev.Delta, nil, false)
	case *infer.ToolCall:
		if c.withheld != nil {
			return c.withheld.call(ev)
		}
		return c.call(ev, false)
	case *infer.Done:
		if h := c.withheld; h != nil {
			if err := c.flush(h); err != nil {
				return err
			}
		}
		return c.done(ev)
	default:
		return infer.Errorf(infer.Internal, "v2 cannot encode a %T", ev)
	}
}

// delta sends or withholds a piece of text, with the logprobs of its tokens as JSON. kind is the type
// of the block. If more is set, the message may be sent together with the next one.
func (c *Codec) delta(kind string, text, logprobs []byte, more bool) error {
	if c.withheld != nil {
		return c.withheld.add(kind, text, logprobs)
	}
	c.reply.Begin("frame")
	c.reply.Raw(`,"block":{"type":"`)
	c.reply.Raw(kind)
	c.reply.Raw(`","delta":`)
	c.reply.Bytes(text)
	c.reply.Raw("}")
	if len(logprobs) > 0 {
		c.reply.Raw(`,"logprobs":[`)
		c.reply.Value(logprobs)
		c.reply.Raw("]")
	}
	c.inputTokens()
	return c.send(more)
}

// inputTokens appends the token counts of the prompt to the first frame, if they are known.
func (c *Codec) inputTokens() {
	if c.prompt.Tokens == 0 {
		return
	}
	c.reply.Raw(`,"input_tokens":`)
	c.reply.Int(c.prompt.Tokens)
	c.cachedTokens(c.prompt.Cached)
	c.prompt = infer.Prompt{}
}

// cachedTokens appends the number of cached tokens of the prompt, unless it is 0.
func (c *Codec) cachedTokens(n int) {
	if n > 0 {
		c.reply.Raw(`,"cached_tokens":`)
		c.reply.Int(n)
	}
}

// send sends the message in the reply. If more is set, it may be sent together with the next one.
func (c *Codec) send(more bool) error {
	if more {
		return c.reply.Hold(c.W)
	}
	return c.reply.Send(c.W)
}

func (c *Codec) call(ev *infer.ToolCall, more bool) error {
	c.reply.Begin("frame")
	c.reply.Raw(`,"block":{"type":"tool_use","tool_call_id":`)
	c.reply.String(ev.ID)
	c.reply.Raw(`,"name":`)
	c.reply.String(ev.Name)
	c.reply.Raw(`,"input":`)
	c.reply.Value(ev.Input)
	c.reply.Raw("}")
	c.inputTokens()
	return c.send(more)
}

func (c *Codec) done(ev *infer.Done) error {
	c.reply.Begin("done")
	c.reply.Raw(`,"usage":{"input_tokens":`)
	c.reply.Int(ev.In)
	c.reply.Raw(`,"output_tokens":`)
	c.reply.Int(ev.Out)
	c.cachedTokens(ev.Cached)
	c.reply.Raw(`},"stop_reason":"`)
	c.reply.Raw(reasons[ev.Reason])
	c.reply.Raw(`","backend":`)
	c.reply.String(ev.Backend)
	if ev.Unsatisfied {
		c.reply.Raw(`,"tool_choice_unsatisfied":true`)
	}
	c.reply.AppendIgnored(ev)
	if t := ev.Timings; t != (infer.Timings{}) {
		c.reply.Raw(`,"timings":{"queue_ms":`)
		c.reply.Float(milliseconds(t.Queue), 64)
		c.reply.Raw(`,"prefill_ms":`)
		c.reply.Float(milliseconds(t.Prefill), 64)
		c.reply.Raw(`,"decode_ms":`)
		c.reply.Float(milliseconds(t.Decode), 64)
		c.reply.Raw(`}`)
	}
	return c.reply.Send(c.W)
}

// milliseconds returns d in milliseconds, rounded down to a whole microsecond.
func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// add adds a piece of text and its logprobs to a withheld answer.
func (h *held) add(kind string, text, logprobs []byte) error {
	if err := h.grow(len(text) + len(logprobs)); err != nil {
		return err
	}
	if len(h.logprobs) > 0 && len(logprobs) > 0 {
		h.logprobs = append(h.logprobs, ',')
	}
	h.logprobs = append(h.logprobs, logprobs...)
	if kind == thinkingBlock {
		h.thinking = append(h.thinking, text...)
	} else {
		h.text = append(h.text, text...)
	}
	return nil
}

// call adds a tool call to a withheld answer.
func (h *held) call(ev *infer.ToolCall) error {
	if err := h.grow(len(ev.ID) + len(ev.Name) + len(ev.Input)); err != nil {
		return err
	}
	h.calls = append(h.calls, infer.ToolCall{ID: ev.ID, Name: ev.Name, Input: append([]byte(nil), ev.Input...)})
	return nil
}

func (h *held) grow(n int) error {
	if h.size += n; h.size > frame.Limit {
		return wire.TooLarge()
	}
	return nil
}

// flush sends a withheld answer, except for its Done.
func (c *Codec) flush(h *held) error {
	c.withheld = nil
	for _, part := range []struct {
		kind           string
		text, logprobs []byte
	}{{thinkingBlock, h.thinking, nil}, {textBlock, h.text, h.logprobs}} {
		if len(part.text) > 0 {
			if err := c.delta(part.kind, part.text, part.logprobs, true); err != nil {
				return err
			}
		}
	}
	for i := range h.calls {
		if err := c.call(&h.calls[i], true); err != nil {
			return err
		}
	}
	return nil
}

// Fail sends the error that ends the current request, or a request that could not be read.
func (c *Codec) Fail(cause error) error {
	code, text := codes.Encode(cause)
	if _, ok := errors.AsType[versionError](cause); ok {
		code = versionCode
	}
	return c.reply.Fail(c.W, code, text)
}

// Unwrap returns the [infer.Error].
func (e versionError) Unwrap() error { return e.error }
