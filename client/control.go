package client

import (
	"context"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/client/stats"
	"github.com/inferd-go/inferd/internal/wire/control"
)

// Stats is the load of the daemon, with its counts since it started.
type Stats struct {
	stats.Daemon
	Raw []byte `json:"-"` // a JSON object, including unknown members
}

type (
	// Counts are the numbers of requests and tokens of a caller or an entry.
	Counts = stats.Counts
	// CallerStats are the counts of a caller, usually a user and an executable.
	CallerStats = stats.Caller
	// BackendStats are the state and the counts of an entry of the daemon's config.
	BackendStats = stats.Backend
	// EngineStats is the report of an engine.
	EngineStats = stats.Engine
)

// Stats returns the load of the daemon.
func (c *Client) Stats(ctx context.Context) (*Stats, error) {
	raw, err := c.control(ctx, control.GetStats{})
	if err != nil {
		return nil, err
	}
	s := Stats{Raw: raw}
	if err := json.Unmarshal(raw, &s.Daemon); err != nil {
		return nil, fmt.Errorf("decode stats: %w", err)
	}
	return &s, nil
}

// Retry starts the engine of an entry again after the daemon has given it up.
func (c *Client) Retry(ctx context.Context, backend string) error {
	_, err := c.control(ctx, control.Retry{Backend: backend})
	return err
}

// SetLogLevel sets the lowest level that the daemon logs: "debug", "info", "warn", "error" or
// "off".
func (c *Client) SetLogLevel(ctx context.Context, level string) error {
	_, err := c.control(ctx, control.SetLogLevel{Level: level})
	return err
}

func (c *Client) control(ctx context.Context, v control.Verb) (raw jsontext.Value, err error) {
	conn, err := c.Dial(ctx, Control)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	err = conn.during(ctx, func() (err error) {
		raw, err = control.Call(conn.r, conn.w, v)
		return err
	})
	return raw, err
}
