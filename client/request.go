package client

import (
	"errors"
	"fmt"
	"math"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// infer converts r to the daemon's type. It returns an error only if r cannot be converted; the
// daemon checks the values.
func (r *Request) infer() (*infer.Request, error) {
	gen := &infer.Generate{
		Model: r.Model, Prompt: r.Prompt, Suffix: r.Suffix, Blocks: true, Thinking: infer.ThinkingMode(r.Thinking), ThinkingBudget: r.ThinkingBudget, Stop: r.Stop, MaxTokens: r.MaxTokens, Logprobs: r.Logprobs,
		OneCall: r.OneCall,
		Format:  infer.Format{Grammar: r.Format.Grammar, Schema: r.Format.JSONSchema, JSONObject: r.Format.JSONObject},
		Sampling: infer.Sampling{
			Temperature: r.Temperature, TopP: r.TopP, TopK: r.TopK,
			MinP: unlessZero(r.MinP), RepeatPenalty: unlessZero(r.RepeatPenalty),
			PresencePenalty: unlessZero(r.PresencePenalty), FrequencyPenalty: unlessZero(r.FrequencyPenalty),
			LogitBias: r.LogitBias,
		},
	}
	if r.Seed != nil {
		seed := wire.FoldSeed(uint64(*r.Seed)) // as the daemon does; older daemons accept only 32 bits
		gen.Sampling.Seed = &seed
	}
	for _, n := range []int{gen.MaxTokens, value(gen.Sampling.TopK, 0), gen.Logprobs, gen.ThinkingBudget} {
		if n < 0 || n > math.MaxUint32 {
			return nil, fmt.Errorf("%d does not fit into 32 bits", n)
		}
	}
	for _, m := range r.Messages {
		parts, err := partsOf(m.Blocks)
		if err != nil {
			return nil, err
		}
		gen.Messages = append(gen.Messages, infer.Message{Role: infer.Role(m.Role), Content: parts})
	}
	for _, a := range r.Attachments {
		gen.Attachments = append(gen.Attachments, infer.Attachment{
			ID: a.ID, Kind: infer.Media(a.Kind), Width: a.Width, Height: a.Height, SampleRate: a.SampleRate, Data: a.Data,
		})
	}
	for _, t := range r.Tools {
		gen.Tools = append(gen.Tools, infer.Tool{Name: t.Name, Description: t.Description, Schema: t.InputSchema})
	}
	switch r.ToolChoice {
	case "", "auto":
	case "required":
		gen.Choice.Mode = infer.ToolRequired
	case "none":
		gen.Choice.Mode = infer.ToolNone
	default:
		gen.Choice = infer.ToolChoice{Mode: infer.ToolNamed, Tool: string(r.ToolChoice)}
	}
	return &infer.Request{
		ID: r.ID, Task: gen, Client: r.Client, CacheSalt: r.CacheSalt, LocalOnly: r.LocalOnly, Traceparent: r.Traceparent, Background: r.Background,
	}, nil
}

func partsOf(blocks []Block) ([]infer.Part, error) {
	parts := make([]infer.Part, len(blocks))
	for i, b := range blocks {
		switch {
		case b.Call != nil:
			parts[i] = &infer.CallPart{ID: b.Call.ID, Name: b.Call.Name, Input: b.Call.Input}
		case b.Result != nil:
			content, err := partsOf(b.Result.Blocks)
			if err != nil {
				return nil, err
			}
			parts[i] = &infer.ResultPart{ID: b.Result.ID, Content: content, Failed: b.Result.IsError}
		case b.Media != "" && b.Text != "":
			return nil, errors.New("a block is a text or media, not both")
		case b.Thinking != "" && (b.Text != "" || b.Media != ""):
			return nil, errors.New("a block is thinking, a text or media, not several")
		case b.Thinking != "":
			parts[i] = &infer.ThinkingPart{Text: b.Thinking}
		case b.Media != "":
			parts[i] = &infer.MediaPart{Attachment: b.Media}
		default:
			parts[i] = &infer.TextPart{Text: b.Text}
		}
	}
	return parts, nil
}

// unlessZero returns a pointer to x, or nil if x is 0: a nil member is left out of the request.
func unlessZero(x float64) *float64 {
	if x == 0 {
		return nil
	}
	return &x
}

// value returns *p, or fallback if p is nil.
func value[T any](p *T, fallback T) T {
	if p == nil {
		return fallback
	}
	return *p
}
