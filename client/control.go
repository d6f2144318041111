package client

import (
	"context"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/wire/control"
)

// Stats says how busy the daemon is.
type Stats struct {
	UptimeMS    int64          `json:"uptime_ms"`
	Version     string         `json:"version"`
	Running     int            `json:"running"` // requests
	Waiting     int            `json:"waiting"` // requests
	Connections int            `json:"connections"`
	HeldBytes   int64          `json:"held_bytes"` // of large messages that are read or answered
	LogLost     int64          `json:"log_lost"`   // lines of the activity log that could not be written
	Callers     []CallerStats  `json:"callers"`
	Backends    []BackendStats `json:"backends"`
	Raw         []byte         `json:"-"` // a JSON object, with what this package does not know
}

// CallerStats is a program of a user. What the kernel does not tell is empty.
type CallerStats struct {
	User         string `json:"user"`    // uid
	Program      string `json:"program"` // device and inode of its executable
	Exe          string `json:"exe"`     // its path
	Running      int    `json:"running"`
	Waiting      int    `json:"waiting"`
	Requests     int64  `json:"requests"` // that have ended
	Refused      int64  `json:"refused"`
	InputTokens  int64  `json:"input_tokens"`
	OutputTokens int64  `json:"output_tokens"`
}

// BackendStats is an entry of the daemon's config.
type BackendStats struct {
	Name         string `json:"name"`
	Kind         string `json:"kind"`
	State        string `json:"state"`   // "ready", "loading" or "gave_up"
	Breaker      string `json:"breaker"` // "closed", "open" or "half_open"
	Slots        int    `json:"slots"`   // requests that run at once
	Running      int    `json:"running"`
	Waiting      int    `json:"waiting"`
	Requests     int64  `json:"requests"` // that have ended
	InputTokens  int64  `json:"input_tokens"`
	OutputTokens int64  `json:"output_tokens"`
}

// Stats asks how busy the daemon is.
func (c *Client) Stats(ctx context.Context) (*Stats, error) {
	raw, err := c.control(ctx, control.GetStats{})
	if err != nil {
		return nil, err
	}
	s := Stats{Raw: raw}
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, fmt.Errorf("decode stats: %w", err)
	}
	return &s, nil
}

// Retry starts the engine of a backend again that was given up.
func (c *Client) Retry(ctx context.Context, backend string) error {
	_, err := c.control(ctx, control.Retry{Backend: backend})
	return err
}

// SetLogLevel has the daemon log more or less from now on: "debug", "info", "warn",
// "error" or "off".
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
