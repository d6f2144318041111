// Package embed is the dialect for embeddings: the client sends texts, and gets a vector for each
// in one message. [Codec] is the server half, [Ask] the client half. Vectors are computed elsewhere.
package embed

import (
	"math"
	"slices"
	"strings"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// codes are the error codes of embed.
var codes = wire.Common.With(wire.Codes{infer.Unsupported: "embed_unsupported"})

// embedTasks are the values of the member task.
var embedTasks = []infer.EmbedTask{
	infer.RetrievalQuery, infer.RetrievalDocument, infer.Similarity, infer.Classification, infer.Clustering,
	infer.QuestionAnswering, infer.FactVerification, infer.CodeRetrievalQuery,
}

// join returns the tasks as a list for an error.
func join(all []infer.EmbedTask) string {
	words := make([]string, len(all))
	for i, p := range all {
		words[i] = string(p)
	}
	return strings.Join(words, ", ")
}

// A request is a message from a client. A null member counts as missing.
type request struct {
	ID         string           `json:"id,omitzero"`
	Input      []*string        `json:"input"` // required; elements must not be null
	Dimensions *wire.Integer    `json:"dimensions,omitzero"`
	Task       *infer.EmbedTask `json:"task,omitzero"`

	// Extensions to the protocol of the reference daemon.
	Model string `json:"model,omitzero"`
}

// shape completes the decoding: it checks that input is present and has no null. An error ends the
// connection.
func (m *request) shape() error {
	if m.Input == nil {
		return wire.Missing("input")
	}
	if i := slices.Index(m.Input, nil); i >= 0 {
		return wire.Decodef("input[%d] is null", i)
	}
	return nil
}

// infer checks the values of m and returns the request.
func (m *request) infer() (*infer.Request, error) {
	if len(m.Input) == 0 {
		return nil, wire.Invalid("input must not be empty")
	}
	task := &infer.Embed{
		Model: m.Model, Inputs: make([]string, len(m.Input)),
		Task: wire.ValueOr(m.Task, infer.NoEmbedTask),
	}
	for i, text := range m.Input {
		if *text == "" {
			return nil, wire.Invalid("input[%d] must not be empty", i)
		}
		task.Inputs[i] = *text
	}
	if m.Task != nil && !slices.Contains(embedTasks, *m.Task) {
		return nil, wire.Invalid("task uses an unknown variant: want one of %s", join(embedTasks))
	}
	if m.Dimensions != nil {
		var err error
		if task.Dimensions, err = m.Dimensions.Within("dimensions", 1); err != nil {
			return nil, err
		}
	}
	return &infer.Request{ID: m.ID, Task: task}, nil
}

// A Codec is the server half of the dialect on one connection. A request must be answered before
// the next one is read.
type Codec struct {
	R frame.Reader
	W frame.Writer

	reply   wire.Reply
	vectors [][]float32 // the answer to the current request
}

// Read returns the next request. Its task is an [infer.Embed]. The errors are those of server.Codec.
func (c *Codec) Read() (*infer.Request, error) {
	c.reply.Reset()
	c.vectors = nil
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
	return m.infer()
}

// Write sends an event of the current request. Vectors are sent together with the Done. An
// [infer.Error] means that embed cannot encode the event or its numbers, or that the answer is too
// large, and that nothing was sent; any other error is an error of the connection.
func (c *Codec) Write(ev infer.Event) error {
	switch ev := ev.(type) {
	case *infer.Admitted, *infer.Prompt:
		return nil // embed has no message for them
	case *infer.Vectors:
		c.vectors = ev.Values
		return nil
	case *infer.Done:
		return c.done(ev)
	default:
		return infer.Errorf(infer.Internal, "embed cannot encode a %T", ev)
	}
}

func (c *Codec) done(ev *infer.Done) error {
	c.reply.Begin("embeddings")
	c.reply.Raw(`,"embeddings":[`)
	dimensions := 0
	for i, v := range c.vectors {
		if i > 0 {
			c.reply.Raw(",")
		}
		if err := c.vector(v); err != nil {
			return err
		}
		dimensions = len(v)
	}
	c.reply.Raw(`],"dimensions":`)
	c.reply.Int(dimensions)
	c.reply.Raw(`,"model":`)
	c.reply.String(ev.Model)
	c.reply.Raw(`,"usage":{"input_tokens":`)
	c.reply.Int(ev.In)
	c.reply.Raw(`},"backend":`)
	c.reply.String(ev.Backend)
	return c.reply.Send(c.W)
}

// vector appends a vector. It returns an error if a number is not finite, or once the message is too
// large to be sent.
func (c *Codec) vector(v []float32) error {
	c.reply.Raw("[")
	for i, x := range v {
		if f := float64(x); math.IsNaN(f) || math.IsInf(f, 0) {
			return infer.Errorf(infer.Internal, "backend returned a non-finite number")
		}
		if i > 0 {
			c.reply.Raw(",")
		}
		c.reply.Float(float64(x), 32)
	}
	c.reply.Raw("]")
	if c.reply.Len() >= frame.Limit {
		return wire.TooLarge()
	}
	return nil
}

// Fail sends the error that ends the current request, or a request that could not be read.
func (c *Codec) Fail(cause error) error {
	code, text := codes.Encode(cause)
	return c.reply.Fail(c.W, code, text)
}
