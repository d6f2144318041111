// Package backend describes backends for all parts of the daemon: a [Backend] answers the requests of
// an entry of the config, and a [Kind] makes backends of entries. The router, the gate, the admin
// socket, the control socket and the daemon itself use the same value. The package knows no kind, and
// no processes, models or protocols; each kind is a package below this one.
package backend

import (
	"context"
	"fmt"

	"github.com/inferd-go/inferd/client/stats"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/status"
)

// A Backend answers the requests of one entry. Its fields do not change; its functions return changing
// values, may be called from any goroutine, and do not block unless they have a context.
type Backend struct {
	Name    string
	Aliases []string
	Kind    string // as [infer.Done] has it
	Slots   int    // requests that it answers at once
	Handler infer.Handler
	// Preemptible reports that Handler obeys [infer.Request.Pause] while it generates.
	Preemptible bool
	// Faults are the codes of the failures that count for the backend's breaker.
	Faults []infer.Code

	// Abilities returns the tasks and features that requests may use; known is false before the
	// first report of an engine.
	Abilities func() (can infer.Abilities, known bool)
	// State returns whether it answers now, and for Down the reason, if there is one.
	State func() (s State, reason string)
	// Origin returns the source of its vectors or scores, by the task. Nil is an unknown source.
	Origin func(infer.Task) Origin
	// Model returns the model's own name. It is nil for a backend without one.
	Model func() string
	// Capabilities returns its description for the admin socket.
	Capabilities func() status.Capabilities
	// Stats adds the backend's own statistics, until ctx ends. Nil means none.
	Stats func(ctx context.Context, into *stats.Backend)

	// Run keeps it running until ctx ends. It fails only if the backend never became ready. It is nil
	// for a backend that does not need it.
	Run func(ctx context.Context) error
	// WaitReady returns nil once it has been ready, or the cause of ctx.
	WaitReady func(ctx context.Context) error
	// Retry restarts it after it was given up. It is nil for a backend that is never given up.
	Retry func() error
}

// State is the readiness of a backend. The greater state is preferred by the router.
type State int

// States.
const (
	Down    State = iota - 1 // it does not answer until an operator repairs it
	Loading                  // it will answer: requests may wait for it
	Ready                    // it answers
)

// String returns the state's name on the control socket.
func (s State) String() string {
	switch s {
	case Ready:
		return "ready"
	case Loading:
		return "loading"
	case Down:
		return "gave_up"
	}
	return fmt.Sprintf("State(%d)", int(s))
}

// OriginOf returns the source of the backend's vectors or scores, by the task.
func (b *Backend) OriginOf(t infer.Task) Origin {
	if b.Origin == nil {
		return Origin{}
	}
	return b.Origin(t)
}
