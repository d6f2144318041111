package overhttp

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/client"
)

// chat is a request of OpenAI's dialect: the members that inferdctl can say.
type chat struct {
	Model       string         `json:"model,omitzero"`
	Messages    []message      `json:"messages"`
	Stream      bool           `json:"stream"`
	StreamWith  map[string]any `json:"stream_options,omitzero"`
	MaxTokens   int            `json:"max_tokens,omitzero"`
	Temperature *float64       `json:"temperature,omitzero"`
	Seed        *int64         `json:"seed,omitzero"`
	Format      map[string]any `json:"response_format,omitzero"`
}

type message struct {
	Role    client.Role `json:"role"`
	Content string      `json:"content"`
}

// chatOf spells a request of messages with text. Without a limit the daemon's own of the sockets
// holds: HTTP has none.
func chatOf(req *client.Request) (*chat, error) {
	m := &chat{
		Model: req.Model, Stream: true, StreamWith: map[string]any{"include_usage": true},
		MaxTokens: req.MaxTokens, Temperature: req.Temperature, Seed: req.Seed,
	}
	if m.MaxTokens == 0 {
		m.MaxTokens = client.DefaultMaxTokens
	}
	for _, msg := range req.Messages {
		var text strings.Builder
		for _, b := range msg.Blocks {
			if b.Media != "" || b.Call != nil || b.Result != nil || b.Thinking != "" {
				return nil, errors.New("internal error: only text goes over HTTP")
			}
			text.WriteString(b.Text)
		}
		m.Messages = append(m.Messages, message{msg.Role, text.String()})
	}
	if req.Format.JSONSchema != nil {
		m.Format = map[string]any{"type": "json_schema", "json_schema": map[string]any{
			"name": "answer", "strict": true, "schema": jsontext.Value(req.Format.JSONSchema),
		}}
	}
	return m, nil
}

// A chunk is an event of an answer.
type chunk struct {
	Error   *failure `json:"error"`
	Choices []struct {
		Delta struct {
			Content   string `json:"content"`
			Reasoning string `json:"reasoning_content"`
		} `json:"delta"`
		Finish string `json:"finish_reason"`
	} `json:"choices"`
	Usage *struct {
		In  int `json:"prompt_tokens"`
		Out int `json:"completion_tokens"`
	} `json:"usage"`
}

// reasons are those of package client for the values of finish_reason.
var reasons = map[string]client.StopReason{"stop": client.EndTurn, "length": client.MaxTokens, "tool_calls": client.ToolUse}

// Generate yields the events of an answer as [client.Client.Generate] does.
func (c *Client) Generate(ctx context.Context, req *client.Request) iter.Seq2[client.Event, error] {
	return func(yield func(client.Event, error) bool) {
		body, err := chatOf(req)
		if err != nil {
			yield(client.Event{}, err)
			return
		}
		res, err := c.send(ctx, "/v1/chat/completions", body)
		if err != nil {
			yield(client.Event{}, err)
			return
		}
		defer res.Body.Close()
		var done client.Done
		for data, err := range events(ctx, res.Body) {
			if err != nil {
				yield(client.Event{}, err)
				return
			}
			if c.Trace != nil {
				c.Trace(data)
			}
			if string(data) == "[DONE]" {
				break
			}
			ev, err := read(&done, data)
			if err != nil {
				yield(client.Event{}, err)
				return
			}
			if (ev.Text != "" || ev.Thinking != "") && !yield(ev, nil) {
				return
			}
		}
		if done.StopReason == "" {
			yield(client.Event{}, errors.New("the daemon went away before the end of the answer"))
			return
		}
		yield(client.Event{Done: &done}, nil)
	}
}

// read decodes an event, and adds its members about the end to done.
func read(done *client.Done, data []byte) (client.Event, error) {
	var m chunk
	if err := json.Unmarshal(data, &m); err != nil {
		return client.Event{}, fmt.Errorf("the answer is none of inferd's: %w", err)
	}
	if m.Error != nil {
		return client.Event{}, m.Error.as(0)
	}
	if m.Usage != nil {
		done.InputTokens, done.OutputTokens = m.Usage.In, m.Usage.Out
	}
	if len(m.Choices) == 0 {
		return client.Event{}, nil
	}
	if m.Choices[0].Finish != "" {
		done.StopReason = reasons[m.Choices[0].Finish]
	}
	delta := m.Choices[0].Delta
	return client.Event{Text: delta.Content, Thinking: delta.Reasoning}, nil
}

// Embed returns vectors as [client.Client.Embed] does.
func (c *Client) Embed(ctx context.Context, req *client.EmbedRequest) (*client.Embeddings, error) {
	if req.Task != "" {
		return nil, errors.New("--task does not go over HTTP: OpenAI's interface has no member for it")
	}
	body := map[string]any{"input": req.Inputs, "encoding_format": "base64"}
	if req.Model != "" {
		body["model"] = req.Model
	}
	if req.Dimensions > 0 {
		body["dimensions"] = req.Dimensions
	}
	var answer struct {
		Model string `json:"model"`
		Data  []struct {
			Vector string `json:"embedding"`
		} `json:"data"`
		Usage struct {
			In int `json:"prompt_tokens"`
		} `json:"usage"`
	}
	if _, err := c.fetch(ctx, "/v1/embeddings", body, &answer); err != nil {
		return nil, err
	}
	if len(answer.Data) != len(req.Inputs) {
		return nil, fmt.Errorf("the daemon sends %d vectors for %d texts", len(answer.Data), len(req.Inputs))
	}
	e := &client.Embeddings{Model: answer.Model, InputTokens: answer.Usage.In}
	for _, d := range answer.Data {
		v, err := floats(d.Vector)
		if err != nil {
			return nil, fmt.Errorf("the daemon's vectors: %w", err)
		}
		e.Vectors = append(e.Vectors, v)
	}
	return e, nil
}

// floats reads the values of a vector: little-endian numbers of 32 bits in base64.
func floats(text string) ([]float32, error) {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, err
	}
	if len(raw)%4 != 0 {
		return nil, errors.New("they are cut off")
	}
	v := make([]float32, len(raw)/4)
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return v, nil
}

// Rerank returns a ranking as [client.Client.Rerank] does, with the model's own scores.
func (c *Client) Rerank(ctx context.Context, req *client.RerankRequest) (*client.Ranking, error) {
	body := map[string]any{"query": req.Query, "documents": req.Documents, "raw_scores": true}
	if req.Model != "" {
		body["model"] = req.Model
	}
	if req.TopN > 0 {
		body["top_n"] = req.TopN
	}
	var answer struct {
		Model   string `json:"model"`
		Results []struct {
			Index int     `json:"index"`
			Score float64 `json:"relevance_score"`
		} `json:"results"`
		Usage struct {
			In int `json:"total_tokens"`
		} `json:"usage"`
	}
	if _, err := c.fetch(ctx, "/v1/rerank", body, &answer); err != nil {
		return nil, err
	}
	r := &client.Ranking{Model: answer.Model, InputTokens: answer.Usage.In}
	for _, x := range answer.Results {
		r.Results = append(r.Results, client.Ranked{Index: x.Index, Score: x.Score})
	}
	return r, nil
}
