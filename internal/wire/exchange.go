package wire

import (
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/frame"
)

// Failure has the members by which a client recognises a failed request in any dialect. A dialect
// embeds it in its answers.
type Failure struct {
	Type    string `json:"type"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Exchange is the client half of a dialect in which each answer is a single message. It sends ask,
// and decodes messages into answer until one has the type kind. failure must point to the Failure
// embedded in answer; codes are the error codes of the dialect. The error is an [infer.Error] if
// the daemon refuses or fails the request; any other error means that no answer came.
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
			return codes.Decode(failure.Code, failure.Message)
		case kind:
			return nil
		}
		// Other types, which newer daemons may send, are skipped.
	}
}

// ReadAnswer reads a message of the daemon into v. It is more lenient than ReadJSON: it ignores
// unknown members, and accepts duplicate names and invalid UTF-8.
func ReadAnswer(r frame.Reader, v any) error {
	kind, msg, err := r.ReadFrame()
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if kind != frame.JSON {
		return errors.New("read answer: not JSON")
	}
	if err := json.Unmarshal(msg, v, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)); err != nil {
		return fmt.Errorf("decode answer: %w", err)
	}
	return nil
}
