// Package rerank is the dialect of reranking: a query and some documents in, the documents
// by how well they answer it out, in one message. [Codec] is the server half and [Ask] the
// client half; neither knows who is at the other end, or what a score is made of.
package rerank

import (
	"cmp"
	"math"
	"slices"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// Limits of a request.
const (
	maxDocuments = 256
	maxBytes     = 8 << 20 // of query and documents
)

// codes are the classes of failure.
var codes = wire.Common.With(wire.Codes{infer.Unsupported: "rerank_unsupported"})

// request is the message that asks. A member that is null reads as one that is missing.
type request struct {
	ID        string        `json:"id,omitzero"`
	Query     *string       `json:"query"`     // must be there
	Documents []*string     `json:"documents"` // must be there; elements must not be null
	TopN      *wire.Integer `json:"top_n,omitzero"`

	// Beyond the reference.
	Model string `json:"model,omitzero"`
}

// shape reports what makes m no request at all: that ends the connection.
func (m *request) shape() error {
	if m.Query == nil {
		return wire.Missing("query")
	}
	if m.Documents == nil {
		return wire.Missing("documents")
	}
	if i := slices.Index(m.Documents, nil); i >= 0 {
		return wire.Decodef("documents[%d] is null", i)
	}
	return nil
}

// infer returns what m asks for, or why that cannot be, in the order of the spec.
func (m *request) infer() (*infer.Request, *infer.Rerank, error) {
	switch n := len(m.Documents); {
	case *m.Query == "":
		return nil, nil, wire.Invalid("query must not be empty")
	case n == 0:
		return nil, nil, wire.Invalid("documents must not be empty")
	case n > maxDocuments:
		return nil, nil, wire.Invalid("request carries %d documents; at most %d allowed", n, maxDocuments)
	}
	task := &infer.Rerank{Model: m.Model, Query: *m.Query, Documents: make([]string, len(m.Documents))}
	bytes := len(*m.Query)
	for i, text := range m.Documents {
		if *text == "" {
			return nil, nil, wire.Invalid("documents[%d] must not be empty", i)
		}
		bytes += len(*text)
		task.Documents[i] = *text
	}
	if bytes > maxBytes {
		return nil, nil, wire.Invalid("request carries %d bytes of query + documents; at most %d allowed", bytes, maxBytes)
	}
	if m.TopN != nil {
		if m.TopN.Is(0) {
			return nil, nil, wire.Invalid("top_n must be greater than zero when set")
		}
		var err error
		if task.TopN, err = m.TopN.Within("top_n", 1); err != nil {
			return nil, nil, err
		}
	}
	return &infer.Request{ID: m.ID, Task: task}, task, nil
}

// A Codec is the server half on one connection. Requests are read and answered in turns.
type Codec struct {
	R frame.Reader
	W frame.Writer

	reply wire.Reply

	// Of the request read last.
	topN   int
	ranked []Ranked
}

// Ranked is a document of a request and its score.
type Ranked struct {
	Index int     `json:"index"` // of the document in the request
	Score float64 `json:"score"` // means something only beside others of one answer
}

// Read returns the next request; its task is an [infer.Rerank]. An [infer.Error] is to
// be told, and the connection goes on; a [wire.FatalError] is to be told and ends it.
// Any other error, [io.EOF] too, means that nobody is there.
func (c *Codec) Read() (*infer.Request, error) {
	c.reply.Forget()
	c.ranked = nil
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
	req, task, err := m.infer()
	if err != nil {
		return nil, err
	}
	c.topN = cmp.Or(task.TopN, maxDocuments)
	return req, nil
}

// Write sends an event of the request read last; the scores go, sorted and cut, with the
// Done. An [infer.Error] means that it cannot be told here, and that nothing was sent; any
// other error is that of the connection.
func (c *Codec) Write(ev infer.Event) error {
	switch ev := ev.(type) {
	case *infer.Scores:
		c.ranked = rank(ev.Values)
		return nil
	case *infer.Done:
		return c.done(ev)
	default:
		return infer.Errorf(infer.Internal, "rerank has no word for a %T", ev)
	}
}

// rank sorts the best to the front; of equals the first comes first.
func rank(scores []float64) []Ranked {
	all := make([]Ranked, len(scores))
	for i, s := range scores {
		all[i] = Ranked{Index: i, Score: s}
	}
	slices.SortStableFunc(all, func(a, b Ranked) int { return cmp.Compare(b.Score, a.Score) })
	return all
}

func (c *Codec) done(ev *infer.Done) error {
	c.reply.Begin("rerank")
	c.reply.Raw(`,"results":[`)
	for i, r := range c.ranked[:min(c.topN, len(c.ranked))] {
		if math.IsNaN(r.Score) || math.IsInf(r.Score, 0) {
			return infer.Errorf(infer.Internal, "the backend answered with a score that is none")
		}
		if i > 0 {
			c.reply.Raw(",")
		}
		c.reply.Raw(`{"index":`)
		c.reply.Int(r.Index)
		c.reply.Raw(`,"score":`)
		c.reply.Float(r.Score, 64)
		c.reply.Raw("}")
	}
	c.reply.Raw(`],"model":`)
	c.reply.String(ev.Model)
	c.reply.Raw(`,"usage":{"input_tokens":`)
	c.reply.Int(ev.In)
	c.reply.Raw(`},"backend":`)
	c.reply.String(ev.Backend)
	return c.reply.Send(c.W)
}

// Fail ends the request read last, or one that could not be read.
func (c *Codec) Fail(cause error) error {
	code, text := codes.Told(cause)
	return c.reply.Fail(c.W, code, text)
}
