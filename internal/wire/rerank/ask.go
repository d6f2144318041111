package rerank

import (
	"fmt"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// An answer is any message from the daemon.
type answer struct {
	wire.Failure
	Results []Ranked `json:"results"`
	Model   string   `json:"model"`
	Usage   struct {
		Input int `json:"input_tokens"`
	} `json:"usage"`
	Backend string `json:"backend"`
}

// Ask is the client half: it sends req, and returns the topN best documents, best first, and the
// Done with the usage. The task of req must be an [infer.Rerank]. A topN of 0 means all documents.
// If the daemon refuses or fails the request, the error is an [infer.Error], and the connection can
// be used again. Any other error means that no answer came.
func Ask(r frame.Reader, w frame.Writer, req *infer.Request, topN int) ([]Ranked, *infer.Done, error) {
	task, ok := req.Task.(*infer.Rerank)
	if !ok {
		return nil, nil, fmt.Errorf("rerank cannot encode a %T", req.Task)
	}
	m := request{ID: req.ID, Query: &task.Query, Model: task.Model}
	for _, text := range task.Documents {
		m.Documents = append(m.Documents, &text)
	}
	if topN > 0 {
		n := wire.IntegerOf(topN)
		m.TopN = &n
	}
	var a answer
	if err := wire.Exchange(r, w, &m, "rerank", &a, &a.Failure, codes); err != nil {
		return nil, nil, err
	}
	return a.Results, &infer.Done{Reason: infer.EndOfTurn, In: a.Usage.Input, Model: a.Model, Backend: a.Backend}, nil
}
