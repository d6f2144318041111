// Package route chooses the entry that answers a request. It is the first entry in config order
// that has the requested name, can do the task, is ready, and has not failed too often in the last
// minute. It refuses a request that uses a feature beyond the abilities of that entry. Vectors and
// scores of different models cannot be compared, so a request for them goes to the first entry that
// can do it, or to another of the same [backend.Origin]. The package contains nothing about engines
// or models. It never chooses another entry for a request that has failed.
package route

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/breaker"
	"github.com/inferd-go/inferd/internal/infer"
)

// A Router chooses among its backends.
type Router struct {
	Backends []*backend.Backend // in order of preference
	// Changed, if not nil, is called with each new state of a backend's breaker, while the router's
	// lock is held. It must not block, and must not call methods of the Router.
	Changed func(*backend.Backend, breaker.State)
	Now     func() time.Time // the clock; nil means time.Now

	mu       sync.Mutex // guards breakers
	breakers map[*backend.Backend]*breaker.Breaker
}

// breakerLocked returns the breaker of a backend, and creates it on first use.
func (r *Router) breakerLocked(b *backend.Backend) *breaker.Breaker {
	one := r.breakers[b]
	if one == nil {
		if r.breakers == nil {
			r.breakers = make(map[*backend.Backend]*breaker.Breaker)
		}
		one = new(breaker.Breaker)
		r.breakers[b] = one
	}
	return one
}

func answersTo(b *backend.Backend, name string) bool {
	return name == "" || name == b.Name || slices.Contains(b.Aliases, name)
}

// Choose returns the first ready candidate for req, or else the first that is expected to become
// ready. A backend with an open breaker counts as down.
//
// The error is [infer.Invalid] if no backend has the name, or none of that name can do the task; it
// is [infer.Unavailable] if no candidate is up, and the error of [infer.Abilities.Check] if req
// needs a feature that the candidate lacks. A backend with unknown abilities counts as able, so
// requests wait for it.
func (r *Router) Choose(req *infer.Request) (*backend.Backend, error) {
	name := infer.ModelOf(req.Task)
	able, named := r.candidates(name, req.Task)
	r.mu.Lock()
	defer r.mu.Unlock()
	at := r.now()
	var (
		chosen *backend.Backend
		best   backend.State
	)
	for _, b := range able {
		s, _ := b.State()
		if !r.breakerLocked(b).Allow(at) {
			s = backend.Down
		}
		if chosen == nil || s > best {
			chosen, best = b, s
		}
	}
	switch {
	case !named && name != "":
		return nil, infer.Errorf(infer.Invalid, "invalid request: no model is called %.64q", name)
	case chosen == nil && name != "":
		return nil, infer.Errorf(infer.Invalid, "invalid request: the model %.64q does not %s", name, verb(req.Task))
	case chosen == nil || best == backend.Down:
		return nil, infer.Errorf(infer.Unavailable, "%s", noBackend(req.Task))
	}
	if can, reported := chosen.Abilities(); reported && !can.Cover(needsOf(req)) {
		if err := can.Check(req.Task); err != nil {
			return nil, err
		}
	}
	return chosen, nil
}

// needsOf returns the abilities that req needs. It computes them once, and stores them in req.
func needsOf(req *infer.Request) infer.Abilities {
	if req.Needs == nil {
		req.Needs = new(infer.Needs(req.Task))
	}
	return *req.Needs
}

// candidates returns the backends with the name that can do the task, in order of preference, and
// reports whether any backend has the name. For Embed and Rerank, the candidates are the first such
// backend and the others of the same origin. Backends with unknown abilities come last, and are no
// candidates if another backend is known to embed or rerank.
func (r *Router) candidates(name string, task infer.Task) (able []*backend.Backend, named bool) {
	var unknown []*backend.Backend
	for _, b := range r.Backends {
		if !answersTo(b, name) {
			continue
		}
		named = true
		can, known := b.Abilities()
		switch {
		case !known:
			unknown = append(unknown, b)
		case can.Do(task) && (len(able) == 0 || !compared(task) || able[0].OriginOf(task).Same(b.OriginOf(task))):
			able = append(able, b)
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

// compared reports whether clients compare the answers to tasks of this kind with each other. All
// such answers must come from one model.
func compared(t infer.Task) bool {
	switch t.(type) {
	case *infer.Embed, *infer.Rerank:
		return true
	case *infer.Generate, *infer.Count:
	}
	return false
}

// Begin records the start of a request at its backend. At the end of the request, the caller must
// call end: with nil after a complete answer, otherwise with the error.
func (r *Router) Begin(b *backend.Backend) (end func(error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	one := r.breakerLocked(b)
	var permit breaker.Permit
	r.noticeLocked(b, func() { permit = one.Begin() })
	return func(err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.noticeLocked(b, func() { one.End(permit, r.now(), outcome(b, err)) })
	}
}

func (r *Router) now() time.Time {
	if r.Now != nil {
		return r.Now()
	}
	return time.Now()
}

// Breaker returns the state of a backend's breaker.
func (r *Router) Breaker(b *backend.Backend) breaker.State {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.breakerLocked(b).State()
}

// noticeLocked calls event. If event changes the state of the breaker of b, it then calls Changed.
func (r *Router) noticeLocked(b *backend.Backend, event func()) {
	one := r.breakerLocked(b)
	before := one.State()
	event()
	if after := one.State(); after != before && r.Changed != nil {
		r.Changed(b, after)
	}
}

// outcome classifies the result of a request for the breaker of b. Only an error with a code in
// b.Faults is a failure.
func outcome(b *backend.Backend, err error) breaker.Outcome {
	failure, ok := errors.AsType[*infer.Error](err)
	switch {
	case err == nil:
		return breaker.Success
	case ok && slices.Contains(b.Faults, failure.Code):
		return breaker.Failure
	default:
		return breaker.Ignored
	}
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

// noBackend returns the message of the error if no backend for a task is up.
func noBackend(t infer.Task) string {
	switch t.(type) {
	case *infer.Embed:
		return "no embed-capable backend available"
	case *infer.Rerank:
		return "no rerank-capable backend available"
	case *infer.Generate, *infer.Count:
	}
	return "no backend available"
}
