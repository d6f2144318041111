package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// A chat is a connection to a server of chat completions.
type chat struct {
	events

	usage event // the numbers of tokens; they arrive before the last frame
}

func dialChat(t Target) *chat { return &chat{events: overHTTP(t)} }

// A chatQuestion is a chat request.
type chatQuestion struct {
	Model       string         `json:"model,omitempty"`
	Messages    []message      `json:"messages"`
	MaxTokens   int            `json:"max_tokens"`
	Temperature float64        `json:"temperature"`
	Stream      bool           `json:"stream"`
	Options     map[string]any `json:"stream_options"`
}

func (c *chat) ask(ctx context.Context, r *Request) error {
	if r.Grammar != "" {
		return errors.New("a chat has no grammar")
	}
	q := chatQuestion{Model: r.Model, MaxTokens: r.MaxTokens, Temperature: r.Temperature, Stream: true, Options: map[string]any{"include_usage": true}}
	for i, turn := range r.Turns {
		q.Messages = append(q.Messages, message{Role: [...]string{"user", "assistant"}[i%2], Content: turn})
	}
	text, err := json.Marshal(q)
	if err != nil {
		return err
	}
	c.usage = event{}
	err = c.post(ctx, "/v1/chat/completions", text)
	if errors.Is(err, errFull) {
		c.usage.code = "queue_full"
		return nil
	}
	return err
}

func (c *chat) next() (event, error) {
	if c.usage.code != "" { // the request failed, so there is no stream
		c.usage.last = true
		return c.usage, c.end()
	}
	data, err := c.data()
	if err != nil {
		return event{}, err
	}
	if string(data) == "[DONE]" {
		c.usage.last = true
		return c.usage, c.end()
	}
	var f struct {
		Choices []struct {
			Delta struct{ Content string }
		}
		Usage *struct {
			Prompt     int `json:"prompt_tokens"`
			Completion int `json:"completion_tokens"`
			Details    struct {
				Cached int `json:"cached_tokens"`
			} `json:"prompt_tokens_details"`
		}
		Error *struct{ Message string }
	}
	if err := json.Unmarshal(data, &f); err != nil {
		return event{}, fmt.Errorf("a chunk that is not JSON: %w", err)
	}
	if f.Error != nil {
		return event{}, fmt.Errorf("the server: %s", f.Error.Message)
	}
	if f.Usage != nil {
		c.usage.in, c.usage.out, c.usage.cached = f.Usage.Prompt, f.Usage.Completion, f.Usage.Details.Cached
	}
	var ev event
	for _, choice := range f.Choices {
		ev.text += choice.Delta.Content
	}
	return ev, nil
}
