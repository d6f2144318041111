package client

import (
	"context"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire/embed"
	"github.com/inferd-go/inferd/internal/wire/rerank"
)

// An EmbedRequest requests embeddings.
type EmbedRequest struct {
	ID     string
	Model  string   // name or alias of an entry; empty leaves the choice to the daemon
	Inputs []string // at least one, none empty
	// Dimensions is the number of leading values of each vector to return; 0 means all.
	Dimensions int
	// Task is the purpose of the vectors: "retrieval_query", "retrieval_document", "similarity",
	// "classification", "clustering", "question_answering", "fact_verification" or
	// "code_retrieval_query"; empty means no particular purpose.
	Task string
}

// Embeddings are the answer to an EmbedRequest: vectors of Euclidean length 1, in the order of the
// inputs.
type Embeddings struct {
	Vectors     [][]float32
	Model       string // name in the model's metadata
	InputTokens int
	Backend     string
}

// Embed sends the request on a new connection.
func (c *Client) Embed(ctx context.Context, req *EmbedRequest) (*Embeddings, error) {
	conn, err := c.Dial(ctx, Embed)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.Embed(ctx, req)
}

// Embed sends the request on this connection, which must be to the surface Embed.
func (c *Conn) Embed(ctx context.Context, req *EmbedRequest) (*Embeddings, error) {
	if c.surface != Embed {
		return nil, c.wrongSurface("embed")
	}
	var e Embeddings
	wireReq := &infer.Request{ID: req.ID, Task: &infer.Embed{
		Model: req.Model, Inputs: req.Inputs, Dimensions: req.Dimensions, Task: infer.EmbedTask(req.Task),
	}}
	err := c.during(ctx, func() error {
		return embed.Ask(c.r, c.w, wireReq, func(ev infer.Event) error {
			switch ev := ev.(type) {
			case *infer.Vectors:
				e.Vectors = ev.Values
			case *infer.Done:
				e.Model, e.InputTokens, e.Backend = ev.Model, ev.In, ev.Backend
			default: // there are no other events
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return &e, nil
}

// A RerankRequest requests a ranking of documents by a query.
type RerankRequest struct {
	ID        string
	Model     string   // name or alias of an entry; empty leaves the choice to the daemon
	Query     string   // not empty
	Documents []string // 1 to 256, none empty; at most 8 MiB with the query
	TopN      int      // number of documents to return; 0 means all
}

// A Ranking is the answer to a RerankRequest, best document first.
type Ranking struct {
	Results     []Ranked
	Model       string // name in the model's metadata
	InputTokens int
	Backend     string
}

// Ranked is a document and its score.
type Ranked struct {
	Index int     // of the document in the request
	Score float64 // comparable only within one answer
}

// Rerank sends the request on a new connection.
func (c *Client) Rerank(ctx context.Context, req *RerankRequest) (*Ranking, error) {
	conn, err := c.Dial(ctx, Rerank)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.Rerank(ctx, req)
}

// Rerank sends the request on this connection, which must be to the surface Rerank.
func (c *Conn) Rerank(ctx context.Context, req *RerankRequest) (*Ranking, error) {
	if c.surface != Rerank {
		return nil, c.wrongSurface("rerank")
	}
	var r Ranking
	wireReq := &infer.Request{ID: req.ID, Task: &infer.Rerank{Model: req.Model, Query: req.Query, Documents: req.Documents}}
	err := c.during(ctx, func() error {
		ranked, done, err := rerank.Ask(c.r, c.w, wireReq, req.TopN)
		if err != nil {
			return err
		}
		for _, x := range ranked {
			r.Results = append(r.Results, Ranked(x))
		}
		r.Model, r.InputTokens, r.Backend = done.Model, done.In, done.Backend
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &r, nil
}
