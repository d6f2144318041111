// Package embed is the dialect of embeddings: some texts in, a vector for each out, in one
// message. [Codec] is the server half and [Ask] the client half; neither knows who is at
// the other end, or what computes a vector.
package embed

import (
	"math"
	"slices"
	"strings"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// codes are the classes of failure.
var codes = wire.Common.With(wire.Codes{infer.Unsupported: "embed_unsupported"})

// embedTasks are the values of task.
var embedTasks = []infer.EmbedTask{
	infer.RetrievalQuery, infer.RetrievalDocument, infer.Similarity, infer.Classification, infer.Clustering,
	infer.QuestionAnswering, infer.FactVerification, infer.CodeRetrievalQuery,
}

// join lists embedTasks as the wire spells them.
func join(all []infer.EmbedTask) string {
	words := make([]string, len(all))
	for i, p := range all {
		words[i] = string(p)
	}
	return strings.Join(words, ", ")
}

// request is the message that asks. A member that is null reads as one that is missing.
type request struct {
	ID         string           `json:"id,omitzero"`
	Input      []*string        `json:"input"` // must be there; elements must not be null
	Dimensions *wire.Integer    `json:"dimensions,omitzero"`
	Task       *infer.EmbedTask `json:"task,omitzero"`

	// Beyond the reference.
	Model string `json:"model,omitzero"`
}

// shape reports what makes m no request at all: that ends the connection.
func (m *request) shape() error {
	if m.Input == nil {
		return wire.Missing("input")
	}
	if i := slices.Index(m.Input, nil); i >= 0 {
		return wire.Decodef("input[%d] is null", i)
	}
	return nil
}

// infer returns what m asks for, or why that cannot be.
func (m *request) infer() (*infer.Request, error) {
	if len(m.Input) == 0 {
		return nil, wire.Invalid("input must not be empty")
	}
	task := &infer.Embed{
		Model: m.Model, Inputs: make([]string, len(m.Input)),
		Task: wire.Or(m.Task, infer.NoEmbedTask),
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

// A Codec is the server half on one connection. Requests are read and answered in turns.
type Codec struct {
	R frame.Reader
	W frame.Writer

	reply   wire.Reply
	vectors [][]float32 // the answer to the request read last
}

// Read returns the next request; its task is an [infer.Embed]. An [infer.Error] is to
// be told, and the connection goes on; a [wire.FatalError] is to be told and ends it.
// Any other error, [io.EOF] too, means that nobody is there.
func (c *Codec) Read() (*infer.Request, error) {
	c.reply.Forget()
	c.vectors = nil
	var m request
	if err := wire.ReadJSON(c.R, &m); err != nil {
		return nil, err
	}
	if err := m.shape(); err != nil {
		return nil, err
	}
	if err := c.reply.About(m.ID); err != nil {
		return nil, err
	}
	return m.infer()
}

// Write sends an event of the request read last; the vectors go with the Done. An
// [infer.Error] means that it cannot be told here, and that nothing was sent; any other
// error is that of the connection.
func (c *Codec) Write(ev infer.Event) error {
	switch ev := ev.(type) {
	case *infer.Vectors:
		c.vectors = ev.Values
		return nil
	case *infer.Done:
		return c.done(ev)
	default:
		return infer.Errorf(infer.Internal, "embed has no word for a %T", ev)
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

// vector appends numbers. It stops where nothing that follows could be sent any more.
func (c *Codec) vector(v []float32) error {
	c.reply.Raw("[")
	for i, x := range v {
		if f := float64(x); math.IsNaN(f) || math.IsInf(f, 0) {
			return infer.Errorf(infer.Internal, "the backend answered with a number that is none")
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

// Fail ends the request read last, or one that could not be read.
func (c *Codec) Fail(cause error) error {
	code, text := codes.Told(cause)
	return c.reply.Fail(c.W, code, text)
}
