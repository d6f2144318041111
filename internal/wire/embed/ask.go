package embed

import (
	"fmt"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// An answer is any message from the daemon.
type answer struct {
	wire.Failure
	Embeddings [][]float32 `json:"embeddings"`
	Model      string      `json:"model"`
	Usage      struct {
		Input int `json:"input_tokens"`
	} `json:"usage"`
	Backend string `json:"backend"`
}

// Ask is the client half: it sends req and emits the [infer.Vectors] and the [infer.Done] of the
// answer. The task of req must be an [infer.Embed]. If the daemon refuses or fails the request, the
// error is an [infer.Error], and the connection can be used again. Any other error means that no
// answer came.
func Ask(r frame.Reader, w frame.Writer, req *infer.Request, emit infer.Sink) error {
	task, ok := req.Task.(*infer.Embed)
	if !ok {
		return fmt.Errorf("embed cannot encode a %T", req.Task)
	}
	m := request{ID: req.ID, Model: task.Model}
	for _, text := range task.Inputs {
		m.Input = append(m.Input, &text)
	}
	if task.Dimensions > 0 {
		n := wire.IntegerOf(task.Dimensions)
		m.Dimensions = &n
	}
	if task.Task != infer.NoEmbedTask {
		m.Task = &task.Task
	}
	var a answer
	if err := wire.Exchange(r, w, &m, "embeddings", &a, &a.Failure, codes); err != nil {
		return err
	}
	if err := emit(&infer.Vectors{Values: a.Embeddings}); err != nil {
		return err
	}
	return emit(&infer.Done{Reason: infer.EndOfTurn, In: a.Usage.Input, Model: a.Model, Backend: a.Backend})
}
