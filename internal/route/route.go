// Package route chooses the entry that answers a request: the first in config order that
// has the requested name, can do the task, is ready, and has not failed too often in the
// last minute. It refuses a request that uses a feature beyond the abilities of that entry.
// Vectors and scores mean something only beside others of the same model, so a request for
// them goes to the first entry that can do it, or to another of the same [Origin]. The
// package knows no engine and no model, and it never chooses a second entry after a
// failure.
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
	// Can returns the abilities of the target; known is false before the first report of an
	// engine.
	Can func() (can infer.Abilities, known bool)
	// Origin returns the source of the target's vectors or scores, by the task; nil is unknown.
	Origin func(infer.Task) Origin
	// State returns whether the target answers now.
	State   func() State
	Handler infer.Handler
	// Faults are the codes of failures that are the target's own: those open its breaker.
	Faults []infer.Code
	// Changed, if not nil, receives the new state of the target's breaker. It must not block.
	Changed func(breaker.State)

	breaker breaker.Breaker // guarded by the router's lock
}

func (t *Target) is(name string) bool {
	return name == "" || name == t.Name || slices.Contains(t.Aliases, name)
}

// State is the readiness of a target, in order of preference.
type State int

// States.
const (
	Ready   State = iota // it answers
	Waiting              // it will: requests may wait for it
	Down                 // it will not until an operator repairs it
)

// A Router chooses among its targets.
type Router struct {
	Targets []*Target        // in order of preference
	Now     func() time.Time // the clock; nil is time.Now

	mu sync.Mutex // guards the breakers
}

// Choose returns the first ready candidate for req, or else the first that will be ready; a
// target with an open breaker counts as down. The name of no target, or of a model that
// cannot do the task, is [infer.Invalid]; without a candidate that is up, the error is
// [infer.Unavailable]. A feature beyond the candidate's abilities is the error of
// [infer.Abilities.Check]. A target of unknown abilities counts as able: requests
// wait for it.
func (r *Router) Choose(req *infer.Request) (*Target, error) {
	name := model(req.Task)
	able, named := r.candidates(name, req.Task)
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
	case !named && name != "":
		return nil, infer.Errorf(infer.Invalid, "invalid request: no model is called %.64q", name)
	case chosen == nil && name != "":
		return nil, infer.Errorf(infer.Invalid, "invalid request: the model %.64q does not %s", name, verb(req.Task))
	case chosen == nil || best == Down:
		return nil, infer.Errorf(infer.Unavailable, "%s", noTarget(req.Task))
	}
	if can, reported := chosen.Can(); reported && !can.Cover(needsOf(req)) {
		if err := can.Check(req.Task); err != nil {
			return nil, err
		}
	}
	return chosen, nil
}

// needsOf returns the abilities that req needs. It reads the messages once.
func needsOf(req *infer.Request) infer.Abilities {
	if req.Needs == nil {
		req.Needs = new(infer.Needs(req.Task))
	}
	return *req.Needs
}

// candidates returns the targets of that name that can do the task, in order of preference,
// and whether any target has the name. Of targets that embed or rerank these are the first,
// and those of the same origin. Targets of unknown abilities come last; none of them
// embeds or reranks in place of a target that is known to.
func (r *Router) candidates(name string, task infer.Task) (able []*Target, named bool) {
	var unknown []*Target
	for _, t := range r.Targets {
		if !t.is(name) {
			continue
		}
		named = true
		can, known := t.Can()
		switch {
		case !known:
			unknown = append(unknown, t)
		case can.Do(task) && (len(able) == 0 || !compared(task) || able[0].origin(task).Same(t.origin(task))):
			able = append(able, t)
		}
	}
	switch {
	case !compared(task):
		able = append(able, unknown...)
	case len(able) == 0 && len(unknown) > 0:
		able = unknown[:1]
	}
	return able, named
}

// compared reports whether answers to a task are compared with each other, so that all must
// come from one model.
func compared(t infer.Task) bool {
	switch t.(type) {
	case *infer.Embed, *infer.Rerank:
		return true
	case *infer.Generate, *infer.Count:
	}
	return false
}

// Begin notes the start of a request at its target. The end of the request must call end:
// with nil after a complete answer, else with the error.
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

// noticeLocked runs event, and reports a change of the breaker's state.
func (t *Target) noticeLocked(event func()) {
	before := t.breaker.State()
	event()
	if after := t.breaker.State(); after != before && t.Changed != nil {
		t.Changed(after)
	}
}

// outcome classifies err: only faults of the target itself count as failures.
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

func model(t infer.Task) string {
	switch t := t.(type) {
	case *infer.Generate:
		return t.Model
	case *infer.Count:
		return t.Of.Model
	case *infer.Embed:
		return t.Model
	case *infer.Rerank:
		return t.Model
	}
	return ""
}

func verb(t infer.Task) string {
	switch t.(type) {
	case *infer.Generate, *infer.Count:
		return "generate"
	case *infer.Embed:
		return "embed"
	case *infer.Rerank:
		return "rerank"
	}
	return ""
}

// noTarget is the message if no target is up for a task.
func noTarget(t infer.Task) string {
	switch t.(type) {
	case *infer.Embed:
		return "no embed-capable backend available"
	case *infer.Rerank:
		return "no rerank-capable backend available"
	case *infer.Generate, *infer.Count:
	}
	return "no backend available"
}
