package overhttp

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/inferd-go/inferd/client"
)

// Embed returns vectors as [client.Client.Embed] does, but refuses a request with a Task. Backend
// is empty.
func (c *Client) Embed(ctx context.Context, req *client.EmbedRequest) (*client.Embeddings, error) {
	if req.Task != "" {
		return nil, errors.New("--task does not go over HTTP: OpenAI's interface has no member for it")
	}
	body := map[string]any{"input": req.Inputs, "encoding_format": "base64"}
	if req.Model != "" {
		body["model"] = req.Model
	}
	if req.Dimensions != 0 {
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
			return nil, fmt.Errorf("the daemon sent a vector that cannot be decoded: %w", err)
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
		return nil, fmt.Errorf("%d bytes are not a whole number of 32-bit values", len(raw))
	}
	v := make([]float32, len(raw)/4)
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return v, nil
}

// Rerank returns a ranking as [client.Client.Rerank] does, with the model's own scores. Backend is
// empty.
func (c *Client) Rerank(ctx context.Context, req *client.RerankRequest) (*client.Ranking, error) {
	body := map[string]any{"query": req.Query, "documents": req.Documents, "raw_scores": true}
	if req.Model != "" {
		body["model"] = req.Model
	}
	if req.TopN != 0 {
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
