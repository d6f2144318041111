package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/inferd-go/inferd/internal/wire/admin"
)

// The lifecycle states of a daemon.
const (
	starting   = admin.Starting
	loading    = admin.Loading
	ready      = admin.Ready
	restarting = admin.Restarting
	draining   = admin.Draining
)

// A Status is a message about the daemon's state. It has the members that programs act on, and the
// unchanged message, which may have further members from a newer daemon.
type Status struct {
	// State is "starting", "loading_model", "ready", "restarting", "draining", "capabilities" or
	// "backend_state"; a newer daemon may have others.
	State    string
	Phase    string  // of loading: "checking_local", "mmap", …; empty if there is none
	Backend  string  // entry name; empty if the message is about the daemon
	Reason   string  // why an engine ended, was given up or is silent
	Progress float64 // of the phase "mmap": 0 to 1
	Facts    Facts   // of the entry's model, in "capabilities"
	Raw      []byte  // a JSON object
}

// Facts describe the model of an entry, as far as its engine reports them; other fields are zero.
type Facts struct {
	Model        string // name in the model's metadata
	Architecture string // such as "llama"
	Quantization string // such as "Q4_K_M"
	NCtx         int    // tokens of the context
	Params       uint64 // weights
	Size         uint64 // of the weights, in bytes
}

// ParseStatus reads a message about the daemon's state: a JSON object with the member "status".
func ParseStatus(line []byte) (Status, error) {
	f, err := admin.Decode(line)
	if err != nil {
		return Status{}, fmt.Errorf("read status: %w", err)
	}
	return Status{
		State: f.Status, Phase: f.Phase, Backend: f.Backend, Reason: f.Reason, Progress: f.Progress, Facts: Facts(f.Facts), Raw: f.Line,
	}, nil
}

// Lifecycle reports whether s is a lifecycle state of the daemon, and not capabilities, the state
// of a breaker or an engine, or an unknown state.
func (s Status) Lifecycle() bool {
	switch s.State {
	case starting, loading, ready, restarting, draining:
		return true
	}
	return false
}

// Ready reports whether the daemon accepts connections on every socket.
func (s Status) Ready() bool { return s.State == ready }

// String returns the state, the phase and the entry, separated by spaces.
func (s Status) String() string {
	return strings.Join(strings.Fields(strings.Join([]string{s.State, s.Phase, s.Backend}, " ")), " ")
}

// ErrGone ends a Watch if the daemon closes the connection.
var ErrGone = errors.New("the daemon has gone away")

// Watch yields the capabilities of every entry, then the daemon's state, then each change. It ends
// with an error: a [*DialError], ErrGone, the cause of ctx, or that of a message that cannot be
// read.
func (c *Client) Watch(ctx context.Context) iter.Seq2[Status, error] {
	return func(yield func(Status, error) bool) {
		conn, err := c.Dial(ctx, Admin)
		if err != nil {
			yield(Status{}, err)
			return
		}
		defer conn.Close()
		for {
			var s Status
			err := conn.during(ctx, func() (err error) {
				s, err = conn.next()
				return err
			})
			if !yield(s, err) || err != nil {
				return
			}
		}
	}
}

func (c *Conn) next() (Status, error) {
	_, line, err := c.r.ReadFrame()
	switch {
	case errors.Is(err, io.EOF):
		return Status{}, ErrGone
	case err != nil:
		return Status{}, fmt.Errorf("read status: %w", err)
	}
	return ParseStatus(line)
}
