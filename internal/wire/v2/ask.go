package v2

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// Ask is the client half: it sends req and emits the events of the answer. The task of req must be
// an [infer.Generate] or an [infer.Count]. Ask returns nil after the [infer.Done]. If the daemon
// refuses or fails the request, the error is an [infer.Error], and the connection can be used again
// unless the error is about blobs or the version of the wire. After any other error the answer is
// incomplete.
//
// If blobs is set, w must be a [frame.BlobWriter]. If stream is not set, each kind of text is one
// event. Unknown messages and members, which newer daemons may send, are ignored.
func Ask(r frame.Reader, w frame.Writer, blobs bool, req *infer.Request, stream bool, emit infer.Sink) error {
	gen, count := generateOf(req.Task)
	if gen == nil {
		return fmt.Errorf("v2 cannot encode a %T", req.Task)
	}
	if err := send(w, blobs, req, gen, count, stream); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	for {
		a, err := readAnswer(r)
		if err != nil {
			return err
		}
		switch a.Type {
		case "error":
			return a.err()
		case "done":
			return emit(&infer.Done{
				Reason: a.reason(), In: a.Usage.Input, Cached: a.Usage.Cached, Out: a.Usage.Output, Backend: a.Backend,
				Unsatisfied: a.Unsatisfied, StopIgnored: a.StopIgnored(), Timings: a.Timings.infer(),
			})
		}
		if a.Type == "frame" && a.InputTokens > 0 {
			if err := emit(&infer.Prompt{Tokens: a.InputTokens, Cached: a.CachedTokens}); err != nil {
				return err
			}
		}
		if ev := a.event(); ev != nil {
			if err := emit(ev); err != nil {
				return err
			}
		}
	}
}

// generateOf returns the [infer.Generate] of a task: the task itself, or the request whose tokens
// are to be counted; count tells them apart. gen is nil for other tasks.
func generateOf(t infer.Task) (gen *infer.Generate, count bool) {
	switch t := t.(type) {
	case *infer.Generate:
		return t, false
	case *infer.Count:
		return t.Of, true
	case *infer.Embed, *infer.Rerank:
	}
	return nil, false
}

func send(w frame.Writer, blobs bool, req *infer.Request, gen *infer.Generate, count, stream bool) error {
	msg, err := encode(req, gen, blobs, count, stream)
	if err != nil {
		return err
	}
	if err := w.WriteFrame(msg); err != nil || !blobs {
		return err
	}
	bw, ok := w.(frame.BlobWriter)
	if !ok {
		return errors.New("this framing has no blobs")
	}
	for _, a := range gen.Attachments {
		size := uint64(len(a.Data))
		head, err := json.Marshal(&descriptor{Type: "attachment_blob", AttachmentID: &a.ID, Len: &size})
		if err != nil {
			return err
		}
		if err := bw.WriteFrame(head); err != nil {
			return err
		}
		if err := bw.WriteBlob(a.Data); err != nil {
			return err
		}
	}
	return nil
}

func encode(req *infer.Request, gen *infer.Generate, blobs, count, stream bool) ([]byte, error) {
	m := request{
		ID: req.ID, Prompt: gen.Prompt, Suffix: gen.Suffix, CountOnly: count, CacheSalt: req.CacheSalt,
		LocalOnly: req.LocalOnly, Traceparent: req.Traceparent,
		Logprobs: wire.IntegerOf(gen.Logprobs),
		Options:  wire.OptionsOf(req, gen, stream),
	}
	if gen.ThinkingBudget > 0 {
		m.ThinkingBudget = new(wire.IntegerOf(gen.ThinkingBudget))
	}
	if gen.Prompt == nil || len(gen.Messages) > 0 {
		m.Messages = make([]message, len(gen.Messages))
	}
	if gen.Thinking != infer.ThinkAuto {
		m.Thinking = new(gen.Thinking == infer.ThinkOn)
	}
	if gen.OneCall {
		m.ParallelCalls = new(false)
	}
	if blobs {
		m.WireVersion = wire.IntegerOf(wireVersion)
	}
	kinds := make(map[string]infer.Media)
	for _, a := range gen.Attachments {
		kinds[a.ID] = a.Kind
	}
	for i, msg := range gen.Messages {
		content, err := blocksOf(msg.Content, kinds)
		if err != nil {
			return nil, err
		}
		m.Messages[i] = message{Role: msg.Role, Content: content}
	}
	for _, t := range gen.Tools {
		m.Tools = append(m.Tools, tool{Name: &t.Name, Description: t.Description, InputSchema: t.Schema})
	}
	for _, a := range gen.Attachments {
		kind := string(a.Kind)
		one := attachment{Kind: &kind, ID: a.ID, Width: wire.IntegerOf(a.Width), Height: wire.IntegerOf(a.Height), SampleRate: wire.IntegerOf(a.SampleRate)}
		if !blobs {
			one.Bytes = &span{data: a.Data}
		}
		m.Attachments = append(m.Attachments, one)
	}
	if gen.Choice.Mode != infer.ToolAuto {
		m.ToolChoice = &toolChoice{mode: string(gen.Choice.Mode)}
		if gen.Choice.Mode == infer.ToolNamed {
			m.ToolChoice = &toolChoice{name: &gen.Choice.Tool}
		}
	}
	m.ResponseFormat = formatOf(gen.Format)
	for token, bias := range gen.Sampling.LogitBias {
		if m.LogitBias == nil {
			m.LogitBias = make(map[string]wire.Number)
		}
		m.LogitBias[fmt.Sprint(token)] = wire.Number(bias)
	}
	return json.Marshal(&m)
}

func formatOf(f infer.Format) *responseFormat {
	of := func(kind string) *responseFormat { return &responseFormat{Type: &kind} }
	switch {
	case f.Schema != nil:
		r := of("json_schema")
		r.Schema = f.Schema
		return r
	case f.JSONObject:
		return of("json_object")
	case f.Grammar != "":
		r := of("grammar")
		r.Grammar = &f.Grammar
		return r
	}
	return nil
}

func blocksOf(parts []infer.Part, kinds map[string]infer.Media) ([]block, error) {
	blocks := make([]block, len(parts))
	for i, part := range parts {
		var kind string
		b := &blocks[i]
		b.Type = &kind
		switch part := part.(type) {
		case *infer.TextPart:
			kind, b.Text = textBlock, &part.Text
		case *infer.ThinkingPart:
			kind, b.Text = thinkingBlock, &part.Text
		case *infer.MediaPart:
			kind, b.AttachmentID = string(kinds[part.Attachment]), &part.Attachment
		case *infer.CallPart:
			kind, b.ToolCallID, b.Name, b.Input = useBlock, &part.ID, &part.Name, part.Input
		case *infer.ResultPart:
			content, err := blocksOf(part.Content, kinds)
			if err != nil {
				return nil, err
			}
			kind, b.ToolCallID, b.Content, b.IsError = resultBlock, &part.ID, &content, part.Failed
		default:
			return nil, fmt.Errorf("v2 cannot encode a %T", part)
		}
	}
	return blocks, nil
}

// MarshalJSONTo writes the mode as a string, or the name of a tool in an object.
func (c *toolChoice) MarshalJSONTo(e *jsontext.Encoder) error {
	if c.name == nil {
		return e.WriteToken(jsontext.String(c.mode))
	}
	return json.MarshalEncode(e, struct {
		Type string `json:"type"`
		Name string `json:"name"`
	}{"tool", *c.name})
}

// MarshalJSONTo writes the data as a string in base64.
func (s *span) MarshalJSONTo(e *jsontext.Encoder) error {
	text := slices.Grow([]byte{'"'}, base64.StdEncoding.EncodedLen(len(s.data))+1)
	text = base64.StdEncoding.AppendEncode(text, s.data)
	return e.WriteValue(append(text, '"'))
}

// An answer is any message from the daemon.
type answer struct {
	wire.Failure
	Block struct {
		Type       string         `json:"type"`
		Delta      string         `json:"delta"`
		ToolCallID string         `json:"tool_call_id"`
		Name       string         `json:"name"`
		Input      jsontext.Value `json:"input"`
	} `json:"block"`
	Logprobs     []logprob `json:"logprobs"`
	InputTokens  int       `json:"input_tokens"`
	CachedTokens int       `json:"cached_tokens"`
	Usage        struct {
		Input  int `json:"input_tokens"`
		Output int `json:"output_tokens"`
		Cached int `json:"cached_tokens"`
	} `json:"usage"`
	Timings     timings `json:"timings"`
	StopReason  string  `json:"stop_reason"`
	Backend     string  `json:"backend"`
	Unsatisfied bool    `json:"tool_choice_unsatisfied"`
	wire.IgnoredMember
}

// timings has times in milliseconds.
type timings struct {
	Queue   float64 `json:"queue_ms"`
	Prefill float64 `json:"prefill_ms"`
	Decode  float64 `json:"decode_ms"`
}

func (t timings) infer() infer.Timings {
	ms := func(x float64) time.Duration { return time.Duration(x * float64(time.Millisecond)) }
	return infer.Timings{Queue: ms(t.Queue), Prefill: ms(t.Prefill), Decode: ms(t.Decode)}
}

// event returns the event of a frame, or nil if the frame is empty or unknown.
func (a *answer) event() infer.Event {
	if a.Type != "frame" {
		return nil
	}
	switch a.Block.Type {
	case textBlock:
		if a.Block.Delta != "" {
			return &infer.Text{Delta: []byte(a.Block.Delta), Logprobs: logprobsOf(a.Logprobs)}
		}
	case thinkingBlock:
		if a.Block.Delta != "" {
			return &infer.Thinking{Delta: []byte(a.Block.Delta)}
		}
	case useBlock:
		return &infer.ToolCall{ID: a.Block.ToolCallID, Name: a.Block.Name, Input: a.Block.Input}
	}
	return nil
}

func (a *answer) reason() infer.Reason {
	for reason, spelt := range reasons {
		if spelt == a.StopReason {
			return reason
		}
	}
	if a.StopReason == "error" {
		return infer.Canceled
	}
	return infer.EndOfTurn // an unknown reason of a newer daemon also means a complete answer
}

func (a *answer) err() error {
	if a.Code == versionCode {
		return infer.Errorf(infer.Invalid, "%s", a.Message)
	}
	return codes.Decode(a.Code, a.Message)
}

func readAnswer(r frame.Reader) (*answer, error) {
	var a answer
	if err := wire.ReadAnswer(r, &a); err != nil {
		return nil, err
	}
	return &a, nil
}
