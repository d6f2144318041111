package overhttp

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"

	"github.com/go-json-experiment/json"

	"github.com/inferd-go/inferd/client"
)

// Generate yields the events of an answer as [client.Client.Generate] does.
func (c *Client) Generate(ctx context.Context, req *client.Request) iter.Seq2[client.Event, error] {
	return func(yield func(client.Event, error) bool) {
		a := answer{yield: func(ev client.Event) bool { return yield(ev, nil) }}
		err := c.generate(ctx, req, &a)
		switch {
		case a.left:
		case err != nil:
			yield(client.Event{}, err)
		case a.done.StopReason == "":
			yield(client.Event{}, errors.New("the daemon went away before the end of the answer"))
		default:
			yield(client.Event{Done: &a.done}, nil)
		}
	}
}

// generate sends a request, and reads the answer into a until it ends, or until the caller leaves
// the loop.
func (c *Client) generate(ctx context.Context, req *client.Request, a *answer) error {
	body, err := chatOf(req)
	if err != nil {
		return err
	}
	res, err := c.send(ctx, "/v1/chat/completions", body)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := checkIgnored(res.Header); err != nil {
		return err
	}
	for data, err := range events(ctx, res.Body) {
		if err != nil {
			return err
		}
		if c.Trace != nil {
			c.Trace(data)
		}
		if string(data) == "[DONE]" {
			return nil
		}
		if err := a.read(data); err != nil || a.left {
			return err
		}
	}
	return nil
}

// checkIgnored returns an error if the daemon ignored a part of the request. If the model does not
// support thinking, the daemon ignores that setting over HTTP; over the sockets it refuses the
// request.
func checkIgnored(h http.Header) error {
	if h.Get("Inferd-Ignored") == "" {
		return nil
	}
	return &client.Error{
		Code: client.InvalidRequest, Message: "invalid request: thinking is not supported by this model",
	}
}

// A chunk is an event of an answer.
type chunk struct {
	Error   *failure `json:"error"`
	Choices []struct {
		Delta  delta  `json:"delta"`
		Finish string `json:"finish_reason"`
	} `json:"choices"`
	Usage *struct {
		In  int `json:"prompt_tokens"`
		Out int `json:"completion_tokens"`
	} `json:"usage"`
}

// A delta is the next part of an answer. All parts of a call have the same index.
type delta struct {
	Content   string `json:"content"`
	Reasoning string `json:"reasoning_content"`
	Calls     []struct {
		Index    int    `json:"index"`
		ID       string `json:"id"`
		Function struct {
			Name      string `json:"name"`
			Arguments string `json:"arguments"`
		} `json:"function"`
	} `json:"tool_calls"`
}

// reasons maps the values of finish_reason to the stop reasons of package client.
var reasons = map[string]client.StopReason{"stop": client.EndTurn, "length": client.MaxTokens, "tool_calls": client.ToolUse}

// An answer collects chunks, and yields their events.
type answer struct {
	yield func(client.Event) bool
	left  bool // the reader has left the loop
	done  client.Done
	call  *client.ToolCall // not yet whole
	index int              // of call
}

// read decodes a chunk.
func (a *answer) read(data []byte) error {
	var m chunk
	if err := json.Unmarshal(data, &m); err != nil {
		return fmt.Errorf("the answer is not from inferd: %w", err)
	}
	if m.Error != nil {
		return m.Error.as(0)
	}
	if m.Usage != nil {
		a.done.InputTokens, a.done.OutputTokens = m.Usage.In, m.Usage.Out
	}
	if len(m.Choices) == 0 {
		return nil
	}
	a.add(&m.Choices[0].Delta)
	if finish := m.Choices[0].Finish; finish != "" {
		a.endCall()
		a.done.StopReason = reasons[finish]
	}
	return nil
}

// add yields the text of a delta, and each call that has ended before it. It collects the parts of
// the current call.
func (a *answer) add(d *delta) {
	if d.Reasoning != "" {
		a.emit(client.Event{Thinking: d.Reasoning})
	}
	if d.Content != "" {
		a.emit(client.Event{Text: d.Content})
	}
	for _, c := range d.Calls {
		if a.call == nil || c.Index != a.index {
			a.endCall()
			a.call, a.index = new(client.ToolCall), c.Index
		}
		a.call.ID += c.ID
		a.call.Name += c.Function.Name
		a.call.Input = append(a.call.Input, c.Function.Arguments...)
	}
}

// endCall yields the collected call, which is now complete, if there is one.
func (a *answer) endCall() {
	if call := a.call; call != nil {
		a.call = nil
		a.emit(client.Event{Call: call})
	}
}

// emit yields an event, after the call that precedes it.
func (a *answer) emit(ev client.Event) {
	a.endCall()
	a.left = a.left || !a.yield(ev)
}
