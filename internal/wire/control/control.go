// Package control is the dialect of the control socket: an operator asks for something
// in a line of JSON and is answered in one. It frames and refuses like v1, and it does
// not know how what is asked for is done.
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

// A Verb is what an operator asks for. The set is closed.
//
//sumtype:decl
type Verb interface{ verb() }

// Retry asks to start the engine of an entry that was given up.
type Retry struct{ Backend string } // never empty

// GetStats asks how busy the daemon is.
type GetStats struct{}

// SetLogLevel asks to log more or less from now on.
type SetLogLevel struct{ Level string } // "debug", "info", "warn", "error" or "off"

func (Retry) verb()       {}
func (GetStats) verb()    {}
func (SetLogLevel) verb() {}

// levels are the values of SetLogLevel.Level.
var levels = []string{"debug", "info", "warn", "error", "off"}

// Stats says how busy the daemon is.
type Stats struct {
	UptimeMS    int64     `json:"uptime_ms"`
	Version     string    `json:"version"`
	Running     int       `json:"running"`     // requests
	Waiting     int       `json:"waiting"`     // requests
	Parked      int       `json:"parked"`      // requests
	Stalled     int       `json:"stalled"`     // requests
	Connections int64     `json:"connections"` // of all sockets
	HeldBytes   int64     `json:"held_bytes"`  // of large messages that are read or answered
	Goroutines  int       `json:"goroutines"`  // of the daemon
	HeapBytes   uint64    `json:"heap_bytes"`  // that the daemon uses
	LogLost     int64     `json:"log_lost"`    // lines of the activity log that could not be written
	Callers     []Caller  `json:"callers"`     // who runs, waits, or was here
	Backends    []Backend `json:"backends"`    // in config order
}

// A Caller is a program of a user.
type Caller struct {
	User    string `json:"user"`    // uid; empty if unknown
	Program string `json:"program"` // device and inode of its executable; empty if unknown
	Exe     string `json:"exe"`     // its path; empty if unknown
	Counts
	Refused  int64 `json:"refused"`   // requests, because the queue was full
	KVTokens int   `json:"kv_tokens"` // that engines hold in their caches for the user
}

// A Backend is an entry of the config.
type Backend struct {
	Name  string `json:"name"`
	Kind  string `json:"kind"`  // "llamacpp" or "mock"
	State string `json:"state"` // "ready", "loading" or "gave_up"
	Slots int    `json:"slots"` // requests that run at once
	// Breaker is "closed", or "open" while no requests go there because it failed too often
	// of late, or "half_open" while one tries.
	Breaker string `json:"breaker,omitempty"`
	Counts

	// What follows is of entries that have an engine.
	Reason       string  `json:"reason,omitzero"`        // why it was given up
	Model        string  `json:"model,omitzero"`         // what the model calls itself
	Device       string  `json:"device,omitzero"`        // that computes, such as "cpu"
	NCtx         int     `json:"n_ctx,omitzero"`         // tokens that the context holds
	CPUVariant   string  `json:"cpu_variant,omitzero"`   // of llama.cpp's libraries that computes
	Libraries    string  `json:"libraries,omitzero"`     // "verified" or "unverified"
	PID          int     `json:"pid,omitzero"`           // of the engine
	Restarts     int     `json:"restarts,omitzero"`      // of the engine
	RestartsHour int     `json:"restarts_hour,omitzero"` // of those, within the last hour
	WedgedKills  int     `json:"wedged_kills,omitzero"`  // engines that the watchdog killed
	LastKill     string  `json:"last_kill,omitzero"`     // reason and time of the last of them
	Silent       bool    `json:"silent,omitzero"`        // it is ready, but did not say how it is
	Engine       *Engine `json:"engine,omitzero"`        // what it said; nil if it said nothing
}

// An Engine is what an engine says of itself. It counts from its start.
type Engine struct {
	KVSize        int          `json:"kv_size_tokens"`   // that the cache holds at most
	KVUsed        int          `json:"kv_used_tokens"`   // in it, of sequences that have not ended
	KVKept        int          `json:"kv_kept_tokens"`   // in it, of sequences that have ended
	KVStored      int          `json:"kv_stored_tokens"` // of such, moved out of it into memory
	Sequences     int          `json:"sequences"`        // that have not ended
	Parked        int          `json:"parked"`           // of those
	Steps         int64        `json:"steps"`            //
	StepMS        float64      `json:"step_ms"`          // milliseconds that a step takes of late
	Stalls        int64        `json:"stalls"`           // steps that held up somebody's next token for too long
	PrefillTokens int64        `json:"prefill_tokens"`   // of prompts, computed
	DecodeTokens  int64        `json:"decode_tokens"`    // of answers, computed
	CachedTokens  int64        `json:"cached_tokens"`    // of prompts, found in the cache
	Dropped       int64        `json:"dropped"`          // times that a sequence lost its cache for want of room
	Aborted       int64        `json:"aborted"`          // steps that were broken off
	Users         []EngineUser `json:"users,omitempty"`  // whom it has something for
}

// An EngineUser is what an engine has for a user.
type EngineUser struct {
	User         string `json:"user"`          // uid; empty if unknown
	KVTokens     int    `json:"kv_tokens"`     // in the cache
	CachedTokens int64  `json:"cached_tokens"` // of prompts, found in the cache
}

// Counts are what requests have come to.
type Counts struct {
	Running  int   `json:"running"`
	Waiting  int   `json:"waiting"`
	Parked   int   `json:"parked"`        // of the waiting: they have begun, and wait for a slot
	Stalled  int   `json:"stalled"`       // begun, and neither running nor waiting: the client does not read
	Requests int64 `json:"requests"`      // that have ended
	In       int64 `json:"input_tokens"`  // of those
	Out      int64 `json:"output_tokens"` // of those
	Cached   int64 `json:"cached_tokens"` // of In, found in a cache
	// Rate is how many tokens a second are written.
	Rate float64 `json:"tokens_per_s"`
}

// A Codec is the server half on one connection. Verbs are read and answered in turns.
type Codec struct {
	R frame.Reader
	W frame.Writer

	id string // of the request read last
}

type request struct {
	ID      string  `json:"id"`
	Type    *string `json:"type"` // required
	Backend string  `json:"backend,omitzero"`
	Level   string  `json:"level,omitzero"`
}

// Read returns the next verb. An [infer.Error] is to be told, and the connection goes
// on; a [wire.FatalError] is to be told and ends it. Any other error, [io.EOF] too,
// means that nobody is there.
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

// The answers.
const (
	done   = "done"
	told   = "stats"
	failed = "error"
)

// answer is a response, its type first.
type answer struct {
	Type    string         `json:"type"`
	ID      string         `json:"id"`
	Stats   jsontext.Value `json:"stats,omitzero"`
	Code    string         `json:"code,omitzero"`
	Message string         `json:"message,omitzero"`
}

// Done answers that the verb read last has been carried out.
func (c *Codec) Done() error { return c.send(answer{Type: done, ID: c.id}) }

// Tell answers a GetStats.
func (c *Codec) Tell(s *Stats) error {
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode stats: %w", err)
	}
	return c.send(answer{Type: told, ID: c.id, Stats: b})
}

// Fail answers that the verb read last has not been carried out, or was no verb. Only
// the text of an [infer.Error] is told.
func (c *Codec) Fail(cause error) error {
	code, text := wire.Common.Told(cause)
	return c.send(answer{Type: failed, ID: c.id, Code: code, Message: text})
}

func (c *Codec) send(a answer) error {
	b, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	return c.W.WriteFrame(b)
}

// Call is the client half: it asks for v and waits for the answer. It returns the stats,
// as JSON, of a [GetStats], nothing once any other v has been carried out, and an
// [infer.Error] if the daemon refused or failed. Any other error means that there was no
// answer.
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
	case told:
		return a.Stats, nil
	case failed:
		return nil, wire.Common.Untold(a.Code, a.Message)
	default:
		return nil, errors.New("decode answer: it is neither done nor an error")
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
