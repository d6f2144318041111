// Package control is the dialect of the control socket: an operator sends a verb in a line of JSON,
// and gets the answer in a line. Framing and errors are as in v1. The daemon carries out the verbs.
package control

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/client/stats"
	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/wire"
)

// A Verb is an operator's request. The set is closed.
//
//sumtype:decl
type Verb interface{ verb() }

// Retry restarts the engine of an entry that was given up.
type Retry struct{ Backend string } // never empty

// GetStats requests the daemon's [stats.Daemon].
type GetStats struct{}

// SetLogLevel sets the lowest level of the records that are logged.
type SetLogLevel struct{ Level string } // "debug", "info", "warn", "error" or "off"

func (Retry) verb()       {}
func (GetStats) verb()    {}
func (SetLogLevel) verb() {}

// levels are the values that SetLogLevel.Level can have.
var levels = []string{"debug", "info", "warn", "error", "off"}

// A Codec is the server half of the dialect on one connection. A verb must be answered before the
// next one is read.
type Codec struct {
	R frame.Reader
	W frame.Writer

	id string // ID of the current request
}

type request struct {
	ID      string  `json:"id"`
	Type    *string `json:"type"` // required
	Backend string  `json:"backend,omitzero"`
	Level   string  `json:"level,omitzero"`
}

// Read returns the next verb. The errors are those of server.Codec.
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

// The types of answers.
const (
	done   = "done"
	report = "stats"
	failed = "error"
)

// An answer is a message of the daemon.
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
func (c *Codec) Stats(s *stats.Daemon) error {
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode stats: %w", err)
	}
	return c.send(answer{Type: report, ID: c.id, Stats: b})
}

// Fail answers that the current verb has failed, or could not be read. The client gets the text of
// cause only if it is an [infer.Error].
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

// Call is the client half: it sends v and waits for the answer. It returns the stats as JSON for a
// [GetStats], and nil for other verbs. If the daemon refuses or fails the verb, the error is an
// [infer.Error]. Any other error means that no answer came.
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
	case report:
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
