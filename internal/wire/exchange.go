package wire

import (
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/frame"
)

// Failure is what all messages of the daemon have in common for a client: their type, and
// what is wrong. A dialect embeds it in its answer.
type Failure struct {
	Type    string `json:"type"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Exchange is the client half of a dialect whose answers are one message: it sends ask and
// reads into answer until a message of that kind comes. failure is the one inside answer.
// It returns an [infer.Error] if the daemon refused or failed.
func Exchange(r frame.Reader, w frame.Writer, ask any, kind string, answer any, failure *Failure, codes Codes) error {
	msg, err := json.Marshal(ask)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	if err := w.WriteFrame(msg); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	for {
		if err := ReadAnswer(r, answer); err != nil {
			return err
		}
		switch failure.Type {
		case "error":
			return codes.Untold(failure.Code, failure.Message)
		case kind:
			return nil
		}
		// Anything else comes from a newer daemon.
	}
}

// ReadAnswer reads a message of the daemon into v, as clients do: what they do not know is
// ignored, and nothing is held against the daemon that can be understood.
func ReadAnswer(r frame.Reader, v any) error {
	kind, msg, err := r.ReadFrame()
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if kind != frame.JSON {
		return errors.New("read answer: it is not JSON")
	}
	if err := json.Unmarshal(msg, v, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)); err != nil {
		return fmt.Errorf("decode answer: %w", err)
	}
	return nil
}
