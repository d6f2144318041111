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
	Parked      int            `json:"parked"`  // requests
	Stalled     int            `json:"stalled"` // requests
	Connections int            `json:"connections"`
	HeldBytes   int64          `json:"held_bytes"` // of large messages that are read or answered
	LogLost     int64          `json:"log_lost"`   // lines of the activity log that could not be written
	Callers     []CallerStats  `json:"callers"`
	Backends    []BackendStats `json:"backends"`
	Raw         []byte         `json:"-"` // a JSON object, with what this package does not know
}

// Counts are what requests have come to.
type Counts struct {
	Running      int     `json:"running"`
	Waiting      int     `json:"waiting"`
	Parked       int     `json:"parked"`        // of the waiting: they have begun, and wait for a slot
	Stalled      int     `json:"stalled"`       // begun, and neither running nor waiting: the client does not read
	Requests     int64   `json:"requests"`      // that have ended
	InputTokens  int64   `json:"input_tokens"`  // of those
	OutputTokens int64   `json:"output_tokens"` // of those
	CachedTokens int64   `json:"cached_tokens"` // of InputTokens, found in a cache
	Rate         float64 `json:"tokens_per_s"`  // that are written
}

// CallerStats is a program of a user. What the kernel does not tell is empty.
type CallerStats struct {
	User    string `json:"user"`    // uid
	Program string `json:"program"` // device and inode of its executable
	Exe     string `json:"exe"`     // its path
	Counts
	Refused  int64 `json:"refused"`   // requests, because the queue was full
	KVTokens int   `json:"kv_tokens"` // that engines hold in their caches for the user, in all programs
}

// BackendStats is an entry of the daemon's config.
type BackendStats struct {
	Name    string `json:"name"`
	Kind    string `json:"kind"`
	State   string `json:"state"`   // "ready", "loading" or "gave_up"
	Breaker string `json:"breaker"` // "closed", "open" or "half_open"
	Slots   int    `json:"slots"`   // requests that run at once
	Counts

	// What follows is of entries that have an engine.
	Reason       string       `json:"reason"`      // why it was given up
	Model        string       `json:"model"`       // what the model calls itself
	Device       string       `json:"device"`      // that computes, such as "cpu"
	NCtx         int          `json:"n_ctx"`       // tokens that the context holds
	CPUVariant   string       `json:"cpu_variant"` // of llama.cpp's libraries that computes
	Libraries    string       `json:"libraries"`   // "verified" or "unverified"; empty from an older daemon
	PID          int          `json:"pid"`         // of the engine; 0 while there is none
	Restarts     int          `json:"restarts"`
	RestartsHour int          `json:"restarts_hour"` // of those, within the last hour
	WedgedKills  int          `json:"wedged_kills"`  // engines that the watchdog killed
	LastKill     string       `json:"last_kill"`     // reason and time of the last of them
	Silent       bool         `json:"silent"`        // the engine is ready, but did not say how it is: it is stopped, or very slow
	Engine       *EngineStats `json:"engine"`        // nil if there is none that says how it is
}

// EngineStats is what an engine says of itself. It counts from its start.
type EngineStats struct {
	KVSize        int     `json:"kv_size_tokens"`   // that the cache holds at most
	KVUsed        int     `json:"kv_used_tokens"`   // in it, of sequences that have not ended
	KVKept        int     `json:"kv_kept_tokens"`   // in it, of sequences that have ended, kept for those to come
	KVStored      int     `json:"kv_stored_tokens"` // of such, moved out of it into memory
	Sequences     int     `json:"sequences"`        // that have not ended
	Parked        int     `json:"parked"`           // of those
	Steps         int64   `json:"steps"`
	StepMS        float64 `json:"step_ms"`        // milliseconds that a step takes of late
	Stalls        int64   `json:"stalls"`         // steps that held up somebody's next token for too long
	PrefillTokens int64   `json:"prefill_tokens"` // of prompts, computed
	DecodeTokens  int64   `json:"decode_tokens"`  // of answers, computed
	CachedTokens  int64   `json:"cached_tokens"`  // of prompts, found in the cache
	Dropped       int64   `json:"dropped"`        // times that a sequence lost its cache for want of room
	Aborted       int64   `json:"aborted"`        // steps that were broken off
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
