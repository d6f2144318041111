// Package v1 is the first dialect for generation: the client sends messages of text, and gets the
// answer token by token, and the whole answer again at the end. It is frozen: the bytes of its
// messages do not change, except for new members, which older clients ignore. [Codec] is the server
// half, [Ask] the client half. Answers are computed elsewhere.
package v1

import (
	"fmt"
	"slices"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// defaultMaxTokens is the default of max_tokens.
const defaultMaxTokens = 1000

// budgets are the valid values of image_token_budget. It has no effect, because requests of v1 have
// no images.
var budgets = []uint32{70, 140, 280, 560, 1120}

// A request is a message from a client. A null member counts as missing.
type request struct {
	ID               string        `json:"id,omitzero"`
	Messages         []message     `json:"messages"` // required
	ImageTokenBudget *wire.Integer `json:"image_token_budget,omitzero"`
	Grammar          string        `json:"grammar,omitzero"`
	wire.Options
}

type message struct {
	Role    infer.Role `json:"role"`    // required
	Content *string    `json:"content"` // required
}

// shape completes the decoding: it checks that required members are present, and that roles are known.
// An error ends the connection.
func (m *request) shape() error {
	if m.Messages == nil {
		return wire.Missing("messages")
	}
	for i, msg := range m.Messages {
		switch msg.Role {
		case infer.System, infer.User, infer.Assistant:
		default:
			return wire.Decodef("messages[%d].role is not one of system, user, assistant", i)
		}
		if msg.Content == nil {
			return wire.Missing(fmt.Sprintf("messages[%d].content", i))
		}
	}
	return m.Shape()
}

// infer checks the values of the members and returns the request.
func (m *request) infer() (*infer.Request, error) {
	if len(m.Messages) == 0 {
		return nil, wire.Invalid("messages must not be empty")
	}
	if b := m.ImageTokenBudget; b != nil && !slices.ContainsFunc(budgets, b.Is) {
		return nil, wire.Invalid("image_token_budget %v not in [70, 140, 280, 560, 1120]", *b)
	}
	gen := &infer.Generate{
		Thinking: infer.ThinkOff, // clients of v1 would not get the thinking
		Messages: make([]infer.Message, len(m.Messages)),
		Format:   infer.Format{Grammar: m.Grammar},
	}
	for i, msg := range m.Messages {
		gen.Messages[i] = infer.TextMessage(msg.Role, *msg.Content)
	}
	req := &infer.Request{ID: m.ID, Task: gen}
	if err := m.Apply(req, gen, defaultMaxTokens); err != nil {
		return nil, err
	}
	if err := wire.CheckGrammar(m.Grammar); err != nil {
		return nil, err
	}
	return req, nil
}

// A Codec is the server half of the dialect on one connection. A request must be answered before
// the next one is read.
type Codec struct {
	R frame.Reader
	W frame.Writer

	reply wire.Reply

	// The state of the current request.
	withheld bool   // stream is false: the text is sent only with the Done
	text     []byte // the answer so far
}

// Read returns the next request. Its task is an [infer.Generate]. The errors are those of
// server.Codec.
func (c *Codec) Read() (*infer.Request, error) {
	c.reply.Reset()
	c.text = reuse(c.text)
	var m request
	if err := wire.ReadJSON(c.R, &m); err != nil {
		return nil, err
	}
	if err := m.shape(); err != nil {
		return nil, err
	}
	if err := c.reply.SetID(m.ID); err != nil {
		return nil, err
	}
	c.withheld = !m.Streams()
	return m.infer()
}

// maxReused bounds the bytes of a buffer that is reused for the next answer.
const maxReused = 64 << 10

func reuse(buf []byte) []byte {
	if cap(buf) > maxReused {
		return nil
	}
	return buf[:0]
}

// reasons maps reasons to values of stop_reason.
var reasons = map[infer.Reason]string{
	infer.EndOfTurn:    "end",
	infer.StopSequence: "end",
	infer.CalledTool:   "end",
	infer.Length:       "length",
	infer.Canceled:     "cancelled",
}

// Write sends an event of the current request. An [infer.Error] means that v1 cannot encode the
// event or that the answer is too large, and that nothing was sent for the event; any other error
// is an error of the connection.
func (c *Codec) Write(ev infer.Event) error {
	switch ev := ev.(type) {
	case *infer.Admitted, *infer.Prompt:
		return nil // v1 has no message for them
	case *infer.Text:
		if len(c.text)+len(ev.Delta) > frame.Limit {
			return wire.TooLarge() // the Done repeats the whole text
		}
		c.text = append(c.text, ev.Delta...)
		if c.withheld {
			return nil
		}
		c.reply.Begin("token")
		c.content(ev.Delta)
		if ev.More {
			return c.reply.Hold(c.W)
		}
	case *infer.Done:
		c.reply.Begin("done")
		c.content(c.text)
		c.reply.Raw(`,"usage":{"prompt_tokens":`)
		c.reply.Int(ev.In)
		c.reply.Raw(`,"completion_tokens":`)
		c.reply.Int(ev.Out)
		c.reply.Raw(`},"stop_reason":"`)
		c.reply.Raw(reasons[ev.Reason])
		c.reply.Raw(`","backend":`)
		c.reply.String(ev.Backend)
		c.reply.AppendIgnored(ev)
	default:
		return infer.Errorf(infer.Internal, "v1 cannot encode a %T", ev)
	}
	return c.reply.Send(c.W)
}

func (c *Codec) content(text []byte) {
	c.reply.Raw(`,"content":`)
	c.reply.Bytes(text)
}

// Fail sends the error that ends the current request, or a request that could not be read.
func (c *Codec) Fail(cause error) error {
	code, text := wire.Common.Encode(cause)
	return c.reply.Fail(c.W, code, text)
}
