// Package route chooses the entry that answers a request: the first in config order
// that the request means and that is ready. It knows entries by name only, not what
// they are made of, and it never tries a second one after a failure.
package route

import (
	"context"
	"slices"

	"github.com/inferd-go/inferd/internal/infer"
)

// A Target is an entry of the config.
type Target struct {
	Name    string
	Aliases []string
	// State says whether the target answers now.
	State   func() State
	Handler infer.Handler
}

func (t *Target) is(name string) bool {
	return name == "" || name == t.Name || slices.Contains(t.Aliases, name)
}

// State says whether a target answers. The order is that of preference.
type State int

// States.
const (
	Ready   State = iota // it answers
	Waiting              // it will: requests may wait for it
	Down                 // it will not until somebody mends it
)

// A Router is a Handler over its targets.
type Router struct {
	Targets []*Target // in order of preference
}

var _ infer.Handler = (*Router)(nil)

// Handle passes req to the first ready target that it means, or else to the first
// that will be ready. A model that no target goes by is [infer.Invalid].
func (r *Router) Handle(ctx context.Context, req *infer.Request, emit infer.Sink) error {
	name := model(req.Task)
	var (
		chosen *Target
		best   State
	)
	for _, t := range r.Targets {
		if !t.is(name) {
			continue
		}
		if s := t.State(); chosen == nil || s < best {
			chosen, best = t, s
		}
	}
	switch {
	case chosen == nil && name != "":
		return infer.Errorf(infer.Invalid, "invalid request: no model is called %q", name)
	case chosen == nil, best == Down:
		return infer.Errorf(infer.Unavailable, "no backend available")
	}
	return chosen.Handler.Handle(ctx, req, emit)
}

func model(t infer.Task) string {
	switch t := t.(type) {
	case *infer.Generate:
		return t.Model
	}
	return ""
}
