// Package rerank is the dialect for reranking: the client sends a query and documents, and gets the
// indices of the documents, sorted by score, in one message. [Codec] is the server half, [Ask] the
// client half. Scores are computed elsewhere.
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
	maxBytes     = 8 << 20 // bytes of the query and all documents
)

// codes are the error codes of rerank.
var codes = wire.Common.With(wire.Codes{infer.Unsupported: "rerank_unsupported"})

// A request is a message from a client. A null member counts as missing.
type request struct {
	ID        string        `json:"id,omitzero"`
	Query     *string       `json:"query"`     // required
	Documents []*string     `json:"documents"` // required; elements must not be null
	TopN      *wire.Integer `json:"top_n,omitzero"`

	// Model is an extension: the protocol of the reference daemon does not have it.
	Model string `json:"model,omitzero"`
}

// shape completes the decoding: it checks that required members are present, and that documents has no
// null. An error ends the connection.
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

// infer checks the values of the members, in the order of the spec, and returns the request and its
// task.
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

// A Codec is the server half of the dialect on one connection. A request must be answered before
// the next one is read.
type Codec struct {
	R frame.Reader
	W frame.Writer

	reply wire.Reply

	// The state of the current request.
	topN   int
	ranked []Ranked
}

// A Ranked is a document of a request with its score.
type Ranked struct {
	Index int     `json:"index"` // of the document in the request
	Score float64 `json:"score"` // comparable only within one answer
}

// Read returns the next request. Its task is an [infer.Rerank]. The errors are those of server.Codec.
func (c *Codec) Read() (*infer.Request, error) {
	c.reply.Reset()
	c.ranked = nil
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
	req, task, err := m.infer()
	if err != nil {
		return nil, err
	}
	c.topN = cmp.Or(task.TopN, maxDocuments)
	return req, nil
}

// Write sends an event of the current request. Scores are sorted, cut to top_n, and sent together
// with the Done. An [infer.Error] means that rerank cannot encode the event or a score, and that
// nothing was sent; any other error is an error of the connection.
func (c *Codec) Write(ev infer.Event) error {
	switch ev := ev.(type) {
	case *infer.Admitted, *infer.Prompt:
		return nil // rerank has no message for them
	case *infer.Scores:
		c.ranked = rank(ev.Values)
		return nil
	case *infer.Done:
		return c.done(ev)
	default:
		return infer.Errorf(infer.Internal, "rerank cannot encode a %T", ev)
	}
}

// rank sorts documents by their scores, best first. Documents with equal scores keep the order of
// the request.
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
			return infer.Errorf(infer.Internal, "backend returned a non-finite score")
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

// Fail sends the error that ends the current request, or a request that could not be read.
func (c *Codec) Fail(cause error) error {
	code, text := codes.Encode(cause)
	return c.reply.Fail(c.W, code, text)
}
