package v1

import (
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// Ask is the client half: it sends req and emits the events of the answer. The task of req must be
// an [infer.Generate]. Ask returns nil after the [infer.Done]. If the daemon refuses or fails the
// request, the error is an [infer.Error], and the connection can be used again. After any other
// error the answer is incomplete.
//
// If stream is not set, the answer is one text. Unknown messages and members, which newer daemons
// may send, are ignored.
func Ask(r frame.Reader, w frame.Writer, req *infer.Request, stream bool, emit infer.Sink) error {
	msg, err := encode(req, stream)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	if err := w.WriteFrame(msg); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	var text infer.Text
	for streamed := false; ; {
		a, err := readAnswer(r)
		if err != nil {
			return err
		}
		if a.Type == "error" {
			return wire.Common.Decode(a.Code, a.Message)
		}
		if a.Content != "" && (a.Type == "token" || a.Type == "done" && !streamed) {
			streamed = true
			text.Delta = append(text.Delta[:0], a.Content...)
			if err := emit(&text); err != nil {
				return err
			}
		}
		if a.Type == "done" {
			return emit(&infer.Done{
				Reason: a.reason(), In: a.Usage.Prompt, Out: a.Usage.Completion, Backend: a.Backend, StopIgnored: a.StopIgnored(),
			})
		}
	}
}

func encode(req *infer.Request, stream bool) ([]byte, error) {
	gen, ok := req.Task.(*infer.Generate)
	if !ok {
		return nil, fmt.Errorf("v1 cannot encode a %T", req.Task)
	}
	if gen.Format.Schema != nil || gen.Format.JSONObject {
		return nil, errors.New("v1 cannot ask for JSON, only for a grammar")
	}
	if req.LocalOnly {
		return nil, errors.New("v1 has no local_only")
	}
	m := request{
		ID: req.ID, Messages: make([]message, len(gen.Messages)), Grammar: gen.Format.Grammar,
		Options: wire.OptionsOf(req, gen, stream),
	}
	for i, msg := range gen.Messages {
		var text strings.Builder
		for _, part := range msg.Content {
			t, ok := part.(*infer.TextPart)
			if !ok {
				return nil, fmt.Errorf("v1 cannot encode a %T", part)
			}
			text.WriteString(t.Text)
		}
		content := text.String()
		m.Messages[i] = message{Role: msg.Role, Content: &content}
	}
	return json.Marshal(&m)
}

// An answer is any message from the daemon.
type answer struct {
	wire.Failure
	Content string `json:"content"`
	Usage   struct {
		Prompt     int `json:"prompt_tokens"`
		Completion int `json:"completion_tokens"`
	} `json:"usage"`
	StopReason string `json:"stop_reason"`
	Backend    string `json:"backend"`
	Code       string `json:"code"`
	Message    string `json:"message"`
	wire.IgnoredMember
}

func (a *answer) reason() infer.Reason {
	switch a.StopReason {
	case "length":
		return infer.Length
	case "cancelled", "error":
		return infer.Canceled
	default: // an unknown reason of a newer daemon also means a complete answer
		return infer.EndOfTurn
	}
}

func readAnswer(r frame.Reader) (*answer, error) {
	var a answer
	if err := wire.ReadAnswer(r, &a); err != nil {
		return nil, err
	}
	return &a, nil
}
