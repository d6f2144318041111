// Package route chooses the entry that answers a request: the first in config order
// that can do what is asked, that the request means, and that is ready. It knows entries
// by name only, not what they are made of, and it never chooses a second one after a
// failure.
package route

import (
	"slices"

	"github.com/inferd-go/inferd/internal/infer"
)

// A Target is an entry of the config.
type Target struct {
	Name    string
	Aliases []string
	Slots   int // requests that it runs at once
	// Can says what the target can be asked for.
	Can func() Abilities
	// State says whether the target answers now.
	State   func() State
	Handler infer.Handler
}

// Abilities are the tasks that a target takes.
type Abilities struct{ Generate, Embed, Rerank bool }

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

// A Router chooses among its targets.
type Router struct {
	Targets []*Target // in order of preference
}

// Choose returns the first ready target that can do what req asks and that it means, or
// else the first that will be ready. A model that no target goes by, or that cannot do
// it, is [infer.Invalid]; if nobody can or is there it is [infer.Unavailable].
func (r *Router) Choose(req *infer.Request) (*Target, error) {
	name := model(req.Task)
	var (
		chosen *Target
		best   State
		known  bool
	)
	for _, t := range r.Targets {
		if !t.is(name) {
			continue
		}
		known = true
		if !t.Can().do(req.Task) {
			continue
		}
		if s := t.State(); chosen == nil || s < best {
			chosen, best = t, s
		}
	}
	switch {
	case !known && name != "":
		return nil, infer.Errorf(infer.Invalid, "invalid request: no model is called %q", name)
	case chosen == nil && name != "":
		return nil, infer.Errorf(infer.Invalid, "invalid request: the model %q does not %s", name, verb(req.Task))
	case chosen == nil || best == Down:
		return nil, infer.Errorf(infer.Unavailable, "%s", nobody(req.Task))
	}
	return chosen, nil
}

func (a Abilities) do(t infer.Task) bool {
	switch t.(type) {
	case *infer.Generate:
		return a.Generate
	case *infer.Embed:
		return a.Embed
	case *infer.Rerank:
		return a.Rerank
	}
	return false
}

func model(t infer.Task) string {
	switch t := t.(type) {
	case *infer.Generate:
		return t.Model
	case *infer.Embed, *infer.Rerank: // their wires have no word for it
	}
	return ""
}

func verb(t infer.Task) string {
	switch t.(type) {
	case *infer.Generate:
		return "generate"
	case *infer.Embed:
		return "embed"
	case *infer.Rerank:
		return "rerank"
	}
	return ""
}

// nobody is told when there is no target for a task.
func nobody(t infer.Task) string {
	switch t.(type) {
	case *infer.Embed:
		return "no embed-capable backend available"
	case *infer.Rerank:
		return "no rerank-capable backend available"
	case *infer.Generate:
	}
	return "no backend available"
}
