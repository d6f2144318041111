package assemble

import (
	"context"
	"errors"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/engine"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/launch"
)

// tasks are the tasks of an engine. The engine's parts are in the order of the fields.
type tasks struct{ generate, embed, rerank bool }

// several reports whether there is more than one task.
func (t tasks) several() bool { return t.generate && (t.embed || t.rerank) || t.embed && t.rerank }

// choose returns the tasks of a model. By default a model that was trained to rank reranks, another
// model that can generate generates, and all others embed. If the contract requests embedding or
// reranking, a model that generates does these in addition, or with NoGenerate only these; for other
// models they replace the default task. It returns an error if no task is left.
func choose(want launch.Tasks, generates, ranks bool) (tasks, error) {
	t := tasks{generate: generates && !ranks && !want.NoGenerate, embed: want.Embed, rerank: want.Rerank}
	if t != (tasks{}) {
		return t, nil
	}
	switch {
	case ranks:
		t.rerank = true
	case !generates:
		t.embed = true
	default:
		return tasks{}, errors.New("generate is switched off, and neither embed nor rerank is on: nothing is left for this model to do")
	}
	return t, nil
}

// A dispatcher passes each request to the part for its task.
type dispatcher []*part

var _ engine.Handler = dispatcher(nil)

// handler returns a handler for the tasks of all parts.
func (a *assembly) handler() engine.Handler {
	if len(a.parts) == 1 {
		return a.parts[0].handler
	}
	return dispatcher(a.parts)
}

// Abilities returns the union of the parts' abilities. Only the first part can have features beside
// its task.
func (d dispatcher) Abilities() infer.Abilities {
	all := d[0].handler.Abilities()
	for _, p := range d[1:] {
		can := p.handler.Abilities()
		all.Embed = all.Embed || can.Embed
		all.Rerank = all.Rerank || can.Rerank
	}
	return all
}

// Handle answers req with the part for its task. If there is none, the first part refuses the
// request.
func (d dispatcher) Handle(ctx context.Context, req *infer.Request, emit infer.Sink) error {
	for _, p := range d {
		if p.handler.Abilities().Do(req.Task) {
			return p.handler.Handle(ctx, req, emit)
		}
	}
	return d[0].handler.Handle(ctx, req, emit)
}
