// Package backend describes backends for all parts of the daemon: a [Backend] answers the requests
// of one entry of the config, and a [Kind] makes the backends of its entries. The router, the gate,
// the admin socket, the control socket and the daemon itself use the same value. The kinds are
// packages below this one; this package depends on none of them.
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
	Kind    string // name of the kind, as in the member Backend of [infer.Done]
	Slots   int    // number of requests that it answers at once
	Handler infer.Handler
	// Preemptible is true if Handler obeys [infer.Request.Pause] while it generates.
	Preemptible bool
	// Faults are the codes of the failures that the backend's breaker counts.
	Faults []infer.Code

	// Abilities returns the tasks and features that requests may use; known is false before the
	// first report of an engine.
	Abilities func() (can infer.Abilities, known bool)
	// State returns the readiness of the backend. If that is Down, reason says why; it may be
	// empty.
	State func() (s State, reason string)
	// Origin returns the source of the vectors or scores for a task. It is nil if the source is
	// unknown.
	Origin func(infer.Task) Origin
	// Model returns the name in the model's metadata. It is nil for a backend without a model.
	Model func() string
	// Capabilities returns the backend's description for the admin socket.
	Capabilities func() status.Capabilities
	// Stats adds the backend's own statistics to into. It returns at the latest when ctx ends. It
	// is nil for a backend without statistics.
	Stats func(ctx context.Context, into *stats.Backend)

	// Run keeps the backend running until ctx ends. It fails only if the backend never became ready.
	// It is nil for a backend that needs no goroutine.
	Run func(ctx context.Context) error
	// WaitReady waits until the backend is ready. It returns the cause of ctx if that ends first, or
	// another error if the backend cannot become ready.
	WaitReady func(ctx context.Context) error
	// Retry restarts a backend that was given up. It is nil for a backend that is never given up.
	Retry func() error
}

// State is the readiness of a backend. The router prefers a greater state.
type State int

// States.
const (
	Down    State = iota - 1 // does not answer until an operator repairs it
	Loading                  // will answer: requests may wait for it
	Ready                    // answers
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

// OriginOf returns the source of the backend's vectors or scores for a task; zero if it is unknown.
func (b *Backend) OriginOf(t infer.Task) Origin {
	if b.Origin == nil {
		return Origin{}
	}
	return b.Origin(t)
}
