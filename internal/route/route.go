// Package route chooses the entry that answers a request: the first in config order that
// goes by the model that the request names, can do the task, is ready, and has not failed
// too often of late. Vectors and scores mean something only beside others of the same model,
// so a request for them goes to the first entry that can do it, or to one of the same
// [Origin]. The package knows no engine and no model, and it never chooses a second
// entry after a failure.
package route

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/inferd-go/inferd/internal/breaker"
	"github.com/inferd-go/inferd/internal/infer"
)

// A Target is an entry of the config.
type Target struct {
	Name    string
	Aliases []string
	Slots   int // requests that it runs at once
	// Can says what the target can be asked for.
	Can func() Abilities
	// Origin says what the target's vectors and scores come from; nil is not known.
	Origin func() Origin
	// State says whether the target answers now.
	State   func() State
	Handler infer.Handler
	// Faults are the codes of failures that are the target's own: those open its breaker.
	Faults []infer.Code
	// Changed, if not nil, is told the new state of the target's breaker. It must not block.
	Changed func(breaker.State)

	breaker breaker.Breaker // guarded by the router's lock
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
	Targets []*Target        // in order of preference
	Now     func() time.Time // the clock; nil is time.Now

	mu sync.Mutex // guards the breakers
}

// Choose returns the first ready candidate for req, or else the first that will be ready; a
// target with an open breaker counts as down. A model that no target goes by, or that cannot
// do the task, is [infer.Invalid]; without a candidate that is up, the error is
// [infer.Unavailable].
func (r *Router) Choose(req *infer.Request) (*Target, error) {
	name := model(req.Task)
	able, known := r.candidates(name, req.Task)
	r.mu.Lock()
	defer r.mu.Unlock()
	at := r.now()
	var (
		chosen *Target
		best   State
	)
	for _, t := range able {
		s := t.State()
		if !t.breaker.Allow(at) {
			s = Down
		}
		if chosen == nil || s < best {
			chosen, best = t, s
		}
	}
	switch {
	case !known && name != "":
		return nil, infer.Errorf(infer.Invalid, "invalid request: no model is called %.64q", name)
	case chosen == nil && name != "":
		return nil, infer.Errorf(infer.Invalid, "invalid request: the model %.64q does not %s", name, verb(req.Task))
	case chosen == nil || best == Down:
		return nil, infer.Errorf(infer.Unavailable, "%s", nobody(req.Task))
	}
	return chosen, nil
}

// candidates returns the targets that go by name and can do the task, in order of preference,
// and whether any target goes by name. Of targets that embed or rerank these are the first,
// and those of the same origin.
func (r *Router) candidates(name string, task infer.Task) (able []*Target, known bool) {
	for _, t := range r.Targets {
		if !t.is(name) {
			continue
		}
		known = true
		if t.Can().do(task) && (len(able) == 0 || !compared(task) || able[0].origin().Same(t.origin())) {
			able = append(able, t)
		}
	}
	return able, known
}

// compared reports whether answers to a task are compared with each other, so that all must
// come from one model.
func compared(t infer.Task) bool {
	switch t.(type) {
	case *infer.Embed, *infer.Rerank:
		return true
	case *infer.Generate:
	}
	return false
}

// Begin is called when a request goes to the target that was chosen for it; end is called
// when that is over, with nil if it was answered to the end, else with why not.
func (r *Router) Begin(t *Target) (end func(error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var permit breaker.Permit
	t.noticeLocked(func() { permit = t.breaker.Begin() })
	return func(err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		t.noticeLocked(func() { t.breaker.End(permit, r.now(), t.outcome(err)) })
	}
}

func (r *Router) now() time.Time {
	if r.Now != nil {
		return r.Now()
	}
	return time.Now()
}

// Breaker returns the state of a target's breaker.
func (r *Router) Breaker(t *Target) breaker.State {
	r.mu.Lock()
	defer r.mu.Unlock()
	return t.breaker.State()
}

// noticeLocked tells if what happens changes the state of the breaker.
func (t *Target) noticeLocked(happens func()) {
	before := t.breaker.State()
	happens()
	if after := t.breaker.State(); after != before && t.Changed != nil {
		t.Changed(after)
	}
}

// outcome says whose fault err is: only what the target itself says of itself counts.
func (t *Target) outcome(err error) breaker.Outcome {
	failure, ok := errors.AsType[*infer.Error](err)
	switch {
	case err == nil:
		return breaker.Success
	case ok && slices.Contains(t.Faults, failure.Code):
		return breaker.Failure
	default:
		return breaker.Ignored
	}
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
	case *infer.Embed:
		return t.Model
	case *infer.Rerank:
		return t.Model
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
