// Package control is the dialect of the control socket: an operator asks for something
// in a line of JSON and is answered in one. It frames and refuses like v1, and it does
// not know how what is asked for is done.
package control

import (
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// A Verb is what an operator asks for. The set is closed.
//
//sumtype:decl
type Verb interface{ verb() }

// Retry asks to start the engine of an entry that was given up.
type Retry struct{ Backend string } // never empty

func (Retry) verb() {}

// A Codec is the server half on one connection. Verbs are read and answered in turns.
type Codec struct {
	R frame.Reader
	W frame.Writer

	id string // of the request read last
}

type request struct {
	ID      string  `json:"id"`
	Type    *string `json:"type"` // required
	Backend string  `json:"backend"`
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
			return nil, infer.Errorf(infer.Invalid, "invalid request: backend must not be empty")
		}
		return Retry{Backend: m.Backend}, nil
	default:
		return nil, infer.Errorf(infer.Invalid, "invalid request: unknown type %.64q", *m.Type)
	}
}

// The two answers.
const (
	done   = "done"
	failed = "error"
)

// answer is a response, its type first.
type answer struct {
	Type    string `json:"type"`
	ID      string `json:"id"`
	Code    string `json:"code,omitzero"`
	Message string `json:"message,omitzero"`
}

// Done answers that the verb read last has been carried out.
func (c *Codec) Done() error { return c.send(answer{Type: done, ID: c.id}) }

// Fail answers that the verb read last has not been carried out, or was no verb. Only
// the text of an [infer.Error] is told.
func (c *Codec) Fail(cause error) error {
	code, text := wire.Told(cause)
	return c.send(answer{Type: failed, ID: c.id, Code: code, Message: text})
}

func (c *Codec) send(a answer) error {
	b, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	return c.W.WriteFrame(b)
}

// Call is the client half: it asks for v and waits for the answer. It returns nil if v
// has been carried out, and an [infer.Error] if the daemon refused or failed. Any other
// error means that there was no answer.
func Call(r frame.Reader, w frame.Writer, v Verb) error {
	var m any
	switch v := v.(type) {
	case Retry:
		m = struct {
			ID      string `json:"id"`
			Type    string `json:"type"`
			Backend string `json:"backend"`
		}{ID: "1", Type: "retry", Backend: v.Backend}
	}
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	if err := w.WriteFrame(b); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	_, line, err := r.ReadFrame()
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	var a answer
	if err := json.Unmarshal(line, &a); err != nil {
		return fmt.Errorf("decode answer: %w", err)
	}
	switch a.Type {
	case done:
		return nil
	case failed:
		return wire.Untold(a.Code, a.Message)
	default:
		return errors.New("decode answer: it is neither done nor an error")
	}
}
