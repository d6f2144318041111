package client

import (
	"context"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire/embed"
	"github.com/inferd-go/inferd/internal/wire/rerank"
)

// An EmbedRequest asks for vectors.
type EmbedRequest struct {
	ID     string
	Model  string   // name or alias of an entry; empty leaves the choice to the daemon
	Inputs []string // at least one, none empty
	// Dimensions is how many leading values of each vector are wanted; 0 is all.
	Dimensions int
	// Task is what the vectors are for: "retrieval_query", "retrieval_document",
	// "similarity", "classification", "clustering", "question_answering",
	// "fact_verification" or "code_retrieval_query"; empty is nothing in particular.
	Task string
}

// Embeddings are the answer: vectors of length 1, in the order of the inputs.
type Embeddings struct {
	Vectors     [][]float32
	Model       string // what the model calls itself
	InputTokens int
	Backend     string
}

// Embed asks for vectors, on a connection of its own.
func (c *Client) Embed(ctx context.Context, req *EmbedRequest) (*Embeddings, error) {
	conn, err := c.Dial(ctx, Embed)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.Embed(ctx, req)
}

// Embed asks for vectors on this connection, which is to the embeddings surface.
func (c *Conn) Embed(ctx context.Context, req *EmbedRequest) (*Embeddings, error) {
	if c.surface != Embed {
		return nil, c.wrong("embed")
	}
	var e Embeddings
	asked := &infer.Request{ID: req.ID, Task: &infer.Embed{
		Model: req.Model, Inputs: req.Inputs, Dimensions: req.Dimensions, Task: infer.EmbedTask(req.Task),
	}}
	err := c.during(ctx, func() error {
		return embed.Ask(c.r, c.w, asked, func(ev infer.Event) error {
			switch ev := ev.(type) {
			case *infer.Vectors:
				e.Vectors = ev.Values
			case *infer.Done:
				e.Model, e.InputTokens, e.Backend = ev.Model, ev.In, ev.Backend
			default: // the embed surface says nothing else
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return &e, nil
}

// A RerankRequest asks which documents answer a query best.
type RerankRequest struct {
	ID        string
	Model     string   // name or alias of an entry; empty leaves the choice to the daemon
	Query     string   // not empty
	Documents []string // 1 to 256, none empty; with the query 8 MiB at most
	TopN      int      // how many of the best are wanted; 0 is all
}

// A Ranking is the answer, the best first.
type Ranking struct {
	Results     []Ranked
	Model       string // what the model calls itself
	InputTokens int
	Backend     string
}

// Ranked is a document and its score.
type Ranked struct {
	Index int     // of the document in the request
	Score float64 // means something only beside others of one answer
}

// Rerank asks for an order, on a connection of its own.
func (c *Client) Rerank(ctx context.Context, req *RerankRequest) (*Ranking, error) {
	conn, err := c.Dial(ctx, Rerank)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.Rerank(ctx, req)
}

// Rerank asks for an order on this connection, which is to the rerank surface.
func (c *Conn) Rerank(ctx context.Context, req *RerankRequest) (*Ranking, error) {
	if c.surface != Rerank {
		return nil, c.wrong("rerank")
	}
	var r Ranking
	asked := &infer.Request{ID: req.ID, Task: &infer.Rerank{Model: req.Model, Query: req.Query, Documents: req.Documents}}
	err := c.during(ctx, func() error {
		ranked, done, err := rerank.Ask(c.r, c.w, asked, req.TopN)
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
