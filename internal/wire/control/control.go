// Package control is the dialect of the control socket: an operator sends a verb in a line of
// JSON and gets an answer in one line. Framing and errors are as in v1. The package does not
// know the effect of the verbs.
package control

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/wire"
)

// A Verb is an operator's request. The set is closed.
//
//sumtype:decl
type Verb interface{ verb() }

// Retry restarts the engine of an entry that was given up.
type Retry struct{ Backend string } // never empty

// GetStats requests the [Stats].
type GetStats struct{}

// SetLogLevel sets the least level that is logged.
type SetLogLevel struct{ Level string } // "debug", "info", "warn", "error" or "off"

func (Retry) verb()       {}
func (GetStats) verb()    {}
func (SetLogLevel) verb() {}

// levels are the values of SetLogLevel.Level.
var levels = []string{"debug", "info", "warn", "error", "off"}

// Stats is the present load of the daemon and its counts since it started.
type Stats struct {
	UptimeMS    int64     `json:"uptime_ms"`
	Version     string    `json:"version"`
	Running     int       `json:"running"`     // requests
	Waiting     int       `json:"waiting"`     // requests
	Parked      int       `json:"parked"`      // requests
	Stalled     int       `json:"stalled"`     // requests
	Connections int64     `json:"connections"` // of all sockets
	HeldBytes   int64     `json:"held_bytes"`  // reserved for large messages
	Goroutines  int       `json:"goroutines"`  // of the daemon
	HeapBytes   uint64    `json:"heap_bytes"`  // of the daemon, in use
	LogLost     int64     `json:"log_lost"`    // lines of the activity log that were not written
	Callers     []Caller  `json:"callers"`     // active and recent
	Backends    []Backend `json:"backends"`    // in config order
}

// A Caller is a user and an executable.
type Caller struct {
	User    string `json:"user"`    // uid; empty if unknown
	Program string `json:"program"` // device and inode of its executable; empty if unknown
	Exe     string `json:"exe"`     // its path; empty if unknown
	Counts
	Refused  int64 `json:"refused"`   // requests, because the queue was full
	KVTokens int   `json:"kv_tokens"` // in the caches of engines, for the user
}

// A Backend is an entry of the config.
type Backend struct {
	Name  string `json:"name"`
	Kind  string `json:"kind"`  // "llamacpp" or "mock"
	State string `json:"state"` // "ready", "loading" or "gave_up"
	Slots int    `json:"slots"` // the most requests that run at once
	// Breaker is "closed", "open" while the entry gets no requests after repeated failures, or
	// "half_open" while one request is tried.
	Breaker string `json:"breaker,omitempty"`
	Counts

	// The fields below are for entries with an engine.
	Reason       string  `json:"reason,omitzero"`        // for giving it up
	Model        string  `json:"model,omitzero"`         // name in the model's metadata
	Device       string  `json:"device,omitzero"`        // compute device, such as "cpu"
	NCtx         int     `json:"n_ctx,omitzero"`         // tokens, of the context
	CPUVariant   string  `json:"cpu_variant,omitzero"`   // of llama.cpp's libraries, the computing one
	Libraries    string  `json:"libraries,omitzero"`     // "verified" or "unverified"
	Exact        *bool   `json:"exact,omitzero"`         // whether answers are exact; nil if that was not asked for
	Inexact      string  `json:"inexact,omitzero"`       // why they are not
	PID          int     `json:"pid,omitzero"`           // of the engine
	Restarts     int     `json:"restarts,omitzero"`      // of the engine
	RestartsHour int     `json:"restarts_hour,omitzero"` // within the last hour
	WedgedKills  int     `json:"wedged_kills,omitzero"`  // engines that the watchdog killed
	LastKill     string  `json:"last_kill,omitzero"`     // reason and time of the latest of these
	Silent       bool    `json:"silent,omitzero"`        // it is ready, but did not report its stats
	Engine       *Engine `json:"engine,omitzero"`        // its report; nil without one
}

// An Engine is the report of an engine. Counts are since its start.
type Engine struct {
	KVSize        int          `json:"kv_size_tokens"`   // capacity of the cache
	KVUsed        int          `json:"kv_used_tokens"`   // in the cache, of unfinished sequences
	KVKept        int          `json:"kv_kept_tokens"`   // in the cache, retained
	KVStored      int          `json:"kv_stored_tokens"` // retained and offloaded to memory
	KVDead        int          `json:"kv_dead_tokens"`   // in dead cells
	Sequences     int          `json:"sequences"`        // unfinished
	Parked        int          `json:"parked"`           // unfinished and paused
	Steps         int64        `json:"steps"`
	StepMS        float64      `json:"step_ms"`         // recent time of a step, in milliseconds
	Stalls        int64        `json:"stalls"`          // steps that delayed a stream beyond max_stall_ms
	PrefillTokens int64        `json:"prefill_tokens"`  // prompt tokens computed
	DecodeTokens  int64        `json:"decode_tokens"`   // answer tokens computed
	CachedTokens  int64        `json:"cached_tokens"`   // of prompts, found in the cache
	Dropped       int64        `json:"dropped"`         // sequences that lost their cells to others
	Aborted       int64        `json:"aborted"`         // aborted steps
	KVSlides      int64        `json:"kv_slides"`       // slides
	KVSlid        int64        `json:"kv_slid_tokens"`  // tokens moved by slides
	Users         []EngineUser `json:"users,omitempty"` // users with KV or cached tokens
}

// An EngineUser is the part of an engine's report for one user.
type EngineUser struct {
	User         string `json:"user"`          // uid; empty if unknown
	KVTokens     int    `json:"kv_tokens"`     // in the cache
	CachedTokens int64  `json:"cached_tokens"` // of prompts, found in the cache
}

// Counts are the requests of a caller or an entry.
type Counts struct {
	Running  int   `json:"running"`
	Waiting  int   `json:"waiting"`
	Parked   int   `json:"parked"`        // preempted; they are part of Waiting
	Stalled  int   `json:"stalled"`       // neither running nor waiting: the client does not read
	Requests int64 `json:"requests"`      // ended
	In       int64 `json:"input_tokens"`  // of ended requests
	Out      int64 `json:"output_tokens"` // of ended requests
	Cached   int64 `json:"cached_tokens"` // of In, found in a cache
	// Rate is the present rate of output tokens.
	Rate float64 `json:"tokens_per_s"`
}

// A Codec is the server half on one connection. Each verb is answered before the next is read.
type Codec struct {
	R frame.Reader
	W frame.Writer

	id string // of the current request
}

type request struct {
	ID      string  `json:"id"`
	Type    *string `json:"type"` // required
	Backend string  `json:"backend,omitzero"`
	Level   string  `json:"level,omitzero"`
}

// Read returns the next verb. An [infer.Error] must be sent to the client, and the connection
// goes on; a [wire.FatalError] must be sent, and ends the connection. Any other error, also
// [io.EOF], means that the client is gone.
func (c *Codec) Read() (Verb, error) {
	c.id = ""
	var m request
	if err := wire.ReadJSON(c.R, &m); err != nil {
		return nil, err
	}
	if m.Type == nil {
		return nil, wire.Missing("type")
	}
	if err := wire.CheckID(m.ID); err != nil {
		return nil, err
	}
	c.id = m.ID
	switch *m.Type {
	case "retry":
		if m.Backend == "" {
			return nil, wire.Invalid("backend must not be empty")
		}
		return Retry{Backend: m.Backend}, nil
	case "stats":
		return GetStats{}, nil
	case "log_level":
		if !slices.Contains(levels, m.Level) {
			return nil, wire.Invalid("level must be one of: %s", strings.Join(levels, ", "))
		}
		return SetLogLevel{Level: m.Level}, nil
	default:
		return nil, wire.Invalid("unknown type %.64q", *m.Type)
	}
}

// Types of answers.
const (
	done   = "done"
	stats  = "stats"
	failed = "error"
)

// answer is the daemon's message.
type answer struct {
	Type    string         `json:"type"`
	ID      string         `json:"id"`
	Stats   jsontext.Value `json:"stats,omitzero"`
	Code    string         `json:"code,omitzero"`
	Message string         `json:"message,omitzero"`
}

// Done answers that the current verb has succeeded.
func (c *Codec) Done() error { return c.send(answer{Type: done, ID: c.id}) }

// Stats answers a GetStats.
func (c *Codec) Stats(s *Stats) error {
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode stats: %w", err)
	}
	return c.send(answer{Type: stats, ID: c.id, Stats: b})
}

// Fail answers that the current verb has failed, or could not be read. The client gets the text
// of an [infer.Error], but of no other error.
func (c *Codec) Fail(cause error) error {
	code, text := wire.Common.Encode(cause)
	return c.send(answer{Type: failed, ID: c.id, Code: code, Message: text})
}

func (c *Codec) send(a answer) error {
	b, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	return c.W.WriteFrame(b)
}

// Call is the client half: it sends v and waits for the answer. It returns the stats as JSON for
// a [GetStats], and nil for other verbs. If the daemon refuses or fails, it returns an
// [infer.Error]. Any other error means that there was no answer.
func Call(r frame.Reader, w frame.Writer, v Verb) (jsontext.Value, error) {
	b, err := json.Marshal(requestOf(v))
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	if err := w.WriteFrame(b); err != nil {
		return nil, fmt.Errorf("ask: %w", err)
	}
	_, line, err := r.ReadFrame()
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	var a answer
	if err := json.Unmarshal(line, &a); err != nil {
		return nil, fmt.Errorf("decode answer: %w", err)
	}
	switch a.Type {
	case done:
		return nil, nil
	case stats:
		return a.Stats, nil
	case failed:
		return nil, wire.Common.Decode(a.Code, a.Message)
	default:
		return nil, errors.New("decode answer: neither done nor an error")
	}
}

func requestOf(v Verb) request {
	m := request{ID: "1"}
	var kind string
	switch v := v.(type) {
	case Retry:
		kind, m.Backend = "retry", v.Backend
	case GetStats:
		kind = "stats"
	case SetLogLevel:
		kind, m.Level = "log_level", v.Level
	}
	m.Type = &kind
	return m
}
