package client

import (
	"context"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/wire/control"
)

// Stats is the present load of the daemon and its counts since it started.
type Stats struct {
	UptimeMS    int64          `json:"uptime_ms"`
	Version     string         `json:"version"`
	Running     int            `json:"running"` // requests
	Waiting     int            `json:"waiting"` // requests
	Parked      int            `json:"parked"`  // requests
	Stalled     int            `json:"stalled"` // requests
	Connections int            `json:"connections"`
	HeldBytes   int64          `json:"held_bytes"` // reserved for large messages
	LogLost     int64          `json:"log_lost"`   // lines of the activity log that were not written
	Callers     []CallerStats  `json:"callers"`
	Backends    []BackendStats `json:"backends"`
	Raw         []byte         `json:"-"` // a JSON object, including unknown members
}

// Counts are the requests of a caller or an entry.
type Counts struct {
	Running      int     `json:"running"`
	Waiting      int     `json:"waiting"`
	Parked       int     `json:"parked"`        // preempted; they are part of Waiting
	Stalled      int     `json:"stalled"`       // neither running nor waiting: the client does not read
	Requests     int64   `json:"requests"`      // ended
	InputTokens  int64   `json:"input_tokens"`  // of ended requests
	OutputTokens int64   `json:"output_tokens"` // of ended requests
	CachedTokens int64   `json:"cached_tokens"` // of InputTokens, found in a cache
	Rate         float64 `json:"tokens_per_s"`  // of output, at present
}

// CallerStats is about a user and an executable. Members that the kernel does not report are
// empty.
type CallerStats struct {
	User    string `json:"user"`    // uid
	Program string `json:"program"` // device and inode of its executable
	Exe     string `json:"exe"`     // its path
	Counts
	Refused  int64 `json:"refused"`   // requests, because the queue was full
	KVTokens int   `json:"kv_tokens"` // in the caches of engines, for all programs of the user
}

// BackendStats is about an entry of the daemon's config.
type BackendStats struct {
	Name    string `json:"name"`
	Kind    string `json:"kind"`
	State   string `json:"state"`   // "ready", "loading" or "gave_up"
	Breaker string `json:"breaker"` // "closed", "open" or "half_open"
	Slots   int    `json:"slots"`   // the most requests that run at once
	Counts

	// The fields below are for entries with an engine.
	Reason       string       `json:"reason"`      // for giving it up
	Model        string       `json:"model"`       // name in the model's metadata
	Device       string       `json:"device"`      // compute device, such as "cpu"
	NCtx         int          `json:"n_ctx"`       // tokens, of the context
	CPUVariant   string       `json:"cpu_variant"` // of llama.cpp's libraries, the computing one
	Libraries    string       `json:"libraries"`   // "verified" or "unverified"; empty from an older daemon
	Exact        *bool        `json:"exact"`       // whether answers are exact; nil if the config does not ask for it
	Inexact      string       `json:"inexact"`     // why they are not
	PID          int          `json:"pid"`         // of the engine; 0 without one
	Restarts     int          `json:"restarts"`
	RestartsHour int          `json:"restarts_hour"` // within the last hour
	WedgedKills  int          `json:"wedged_kills"`  // engines that the watchdog killed
	LastKill     string       `json:"last_kill"`     // reason and time of the latest of these
	Silent       bool         `json:"silent"`        // the engine is ready, but did not report: it is stopped, or very slow
	Engine       *EngineStats `json:"engine"`        // nil without a report
}

// EngineStats is the report of an engine. Counts are since its start.
type EngineStats struct {
	KVSize        int     `json:"kv_size_tokens"`   // capacity of the cache
	KVUsed        int     `json:"kv_used_tokens"`   // in the cache, of unfinished sequences
	KVKept        int     `json:"kv_kept_tokens"`   // in the cache, retained for later requests
	KVStored      int     `json:"kv_stored_tokens"` // retained and offloaded to memory
	KVDead        int     `json:"kv_dead_tokens"`   // in dead cells: of no sequence, but still in the cache
	Sequences     int     `json:"sequences"`        // unfinished
	Parked        int     `json:"parked"`           // unfinished and paused
	Steps         int64   `json:"steps"`
	StepMS        float64 `json:"step_ms"`        // recent time of a step, in milliseconds
	Stalls        int64   `json:"stalls"`         // steps that delayed a stream beyond max_stall_ms
	PrefillTokens int64   `json:"prefill_tokens"` // prompt tokens computed
	DecodeTokens  int64   `json:"decode_tokens"`  // answer tokens computed
	CachedTokens  int64   `json:"cached_tokens"`  // prompt tokens found in the cache
	Dropped       int64   `json:"dropped"`        // sequences that lost their cells to others
	Aborted       int64   `json:"aborted"`        // aborted steps
	KVSlides      int64   `json:"kv_slides"`      // moves of all cells in use to free dead ones
	KVSlid        int64   `json:"kv_slid_tokens"` // tokens moved by slides
}

// Stats returns the stats of the daemon.
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

// Retry restarts the engine of an entry that was given up.
func (c *Client) Retry(ctx context.Context, backend string) error {
	_, err := c.control(ctx, control.Retry{Backend: backend})
	return err
}

// SetLogLevel sets the least level that the daemon logs: "debug", "info", "warn", "error" or
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
