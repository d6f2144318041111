package v2

import (
	"fmt"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// wireVersion is the version of the length-prefixed wire.
const wireVersion = 1

// defaultMaxTokens is the default of max_tokens.
const defaultMaxTokens = 1024

// Limits of a request.
const (
	maxLogprobs = 20
	maxBias     = 100
)

// A request is a message from a client. A null member counts as missing.
type request struct {
	ID          string       `json:"id,omitzero"`
	WireVersion wire.Integer `json:"wire_version,omitzero"`
	Messages    []message    `json:"messages,omitzero"` // required, unless there is a prompt
	Attachments []attachment `json:"attachments,omitzero"`
	Tools       []tool       `json:"tools,omitzero"`

	ToolChoice     *toolChoice     `json:"tool_choice,omitzero"`
	ResponseFormat *responseFormat `json:"response_format,omitzero"`
	Thinking       *bool           `json:"thinking,omitzero"`

	// Extensions to the protocol of the reference daemon.
	ThinkingBudget *wire.Integer          `json:"thinking_budget,omitzero"`
	Logprobs       wire.Integer           `json:"logprobs,omitzero"`
	LogitBias      map[string]wire.Number `json:"logit_bias,omitzero"`
	Prompt         *string                `json:"prompt,omitzero"`
	Suffix         *string                `json:"suffix,omitzero"`
	CountOnly      bool                   `json:"count_only,omitzero"`
	ParallelCalls  *bool                  `json:"parallel_tool_calls,omitzero"`
	CacheSalt      string                 `json:"cache_salt,omitzero"`
	LocalOnly      bool                   `json:"local_only,omitzero"`
	Traceparent    string                 `json:"traceparent,omitzero"`

	wire.Options
}

type attachment struct {
	Kind       *string      `json:"kind"` // required
	ID         string       `json:"id"`
	Width      wire.Integer `json:"width,omitzero"`
	Height     wire.Integer `json:"height,omitzero"`
	SampleRate wire.Integer `json:"sample_rate,omitzero"`
	Bytes      *span        `json:"bytes,omitzero"` // required, unless blobs follow
}

type tool struct {
	Name        *string        `json:"name"` // required
	Description string         `json:"description"`
	InputSchema jsontext.Value `json:"input_schema,omitzero"` // an object
}

type responseFormat struct {
	Type    *string        `json:"type"` // required
	Schema  jsontext.Value `json:"schema,omitzero"`
	Grammar *string        `json:"grammar,omitzero"`
}

// shape completes the decoding: it checks that required members are present, that roles are known, and
// that schemas are objects. blobs is set if the data of attachments follow in blobs. An error ends the
// connection.
func (m *request) shape(blobs bool) error {
	if m.Messages == nil && m.Prompt == nil {
		return wire.Missing("messages")
	}
	for i, msg := range m.Messages {
		at := "messages[" + strconv.Itoa(i) + "]"
		switch msg.Role {
		case infer.System, infer.User, infer.Assistant:
		default:
			return wire.Decodef("%s.role is not one of system, user, assistant", at)
		}
		if msg.Content == nil {
			return wire.Missing(at + ".content")
		}
		if err := shapeOf(msg.Content, at); err != nil {
			return err
		}
	}
	for i, a := range m.Attachments {
		switch {
		case a.Kind == nil:
			return wire.Missing(fmt.Sprintf("attachments[%d].kind", i))
		case a.Bytes == nil && !blobs && media[*a.Kind] != "":
			return wire.Missing(fmt.Sprintf("attachments[%d].bytes", i))
		}
	}
	for i, t := range m.Tools {
		if t.Name == nil {
			return wire.Missing(fmt.Sprintf("tools[%d].name", i))
		}
		if s := t.InputSchema; s != nil && s.Kind() != jsontext.KindBeginObject && s.Kind() != jsontext.KindNull {
			return wire.Decodef("tools[%d].input_schema is not an object", i)
		}
	}
	if f := m.ResponseFormat; f != nil {
		switch {
		case f.Type == nil:
			return wire.Missing("response_format.type")
		case *f.Type == "json_schema" && f.Schema.Kind() != jsontext.KindBeginObject:
			return wire.Decodef("response_format.schema is not an object")
		case *f.Type == "grammar" && f.Grammar == nil:
			return wire.Missing("response_format.grammar")
		}
	}
	return m.Shape()
}

func checkCount(n int) error {
	if n > maxAttachments {
		return wire.Invalid("request declares %d attachments; at most %d allowed", n, maxAttachments)
	}
	return nil
}

// generate checks the values of the members, in the order of the spec, and returns the task.
func (m *request) generate() (*infer.Generate, error) {
	switch {
	case m.Prompt != nil:
		if err := m.checkPrompt(); err != nil {
			return nil, err
		}
	case len(m.Messages) == 0:
		return nil, wire.Invalid("messages must not be empty")
	case m.Suffix != nil:
		return nil, wire.Invalid("suffix needs a prompt")
	}
	if err := checkCount(len(m.Attachments)); err != nil {
		return nil, err
	}
	gen := &infer.Generate{Blocks: true, Prompt: m.Prompt, Suffix: m.Suffix, OneCall: !wire.ValueOr(m.ParallelCalls, true)}
	if len(m.Messages) > 0 {
		gen.Messages = make([]infer.Message, len(m.Messages))
	}
	kinds, err := m.attachments(gen)
	if err != nil {
		return nil, err
	}
	if err := m.tools(gen); err != nil {
		return nil, err
	}
	if err := m.choice(gen); err != nil {
		return nil, err
	}
	for i, msg := range m.Messages {
		at := "messages[" + strconv.Itoa(i) + "]"
		if len(msg.Content) == 0 {
			return nil, wire.Invalid("%s.content must not be empty", at)
		}
		parts, err := partsOf(msg.Content, at, kinds)
		if err != nil {
			return nil, err
		}
		if err := checkRole(msg.Role, parts, at); err != nil {
			return nil, err
		}
		gen.Messages[i] = infer.Message{Role: msg.Role, Content: parts}
	}
	return gen, nil
}

// checkPrompt returns an error if the request has members that have no meaning for a prompt. A
// prompt is continued as it is, without a template.
func (m *request) checkPrompt() error {
	for _, other := range []struct {
		name string
		used bool
	}{
		{"messages", len(m.Messages) > 0},
		{"attachments", len(m.Attachments) > 0},
		{"tools", len(m.Tools) > 0},
		{"thinking", m.Thinking != nil && *m.Thinking},
		{"thinking_budget", m.ThinkingBudget != nil},
	} {
		if other.used {
			return wire.Invalid("prompt and %s are mutually exclusive", other.name)
		}
	}
	return nil
}

// attachments checks the attachments and copies them to gen, without their data. It returns their kinds
// by ID.
func (m *request) attachments(gen *infer.Generate) (map[string]infer.Media, error) {
	kinds := make(map[string]infer.Media, len(m.Attachments))
	for _, a := range m.Attachments {
		if media[*a.Kind] == "" {
			return nil, wire.Invalid("attachments contain an unknown kind")
		}
	}
	for _, a := range m.Attachments {
		if a.ID == "" {
			return nil, wire.Invalid("attachments must have non-empty id")
		}
	}
	for _, a := range m.Attachments {
		if kinds[a.ID] != "" {
			return nil, wire.Invalid("duplicate attachment id: %.64s", a.ID)
		}
		kinds[a.ID] = media[*a.Kind]
	}
	for i, a := range m.Attachments {
		decoded := infer.Attachment{ID: a.ID, Kind: kinds[a.ID]}
		for _, number := range []struct {
			name string
			from wire.Integer
			to   *int
		}{{"width", a.Width, &decoded.Width}, {"height", a.Height, &decoded.Height}, {"sample_rate", a.SampleRate, &decoded.SampleRate}} {
			var err error
			if *number.to, err = number.from.Within(fmt.Sprintf("attachments[%d].%s", i, number.name), 0); err != nil {
				return nil, err
			}
		}
		gen.Attachments = append(gen.Attachments, decoded)
	}
	return kinds, nil
}

func (m *request) tools(gen *infer.Generate) error {
	seen := make(map[string]bool, len(m.Tools))
	for _, t := range m.Tools {
		if seen[*t.Name] {
			return wire.Invalid("duplicate tool name: %.64s", *t.Name)
		}
		seen[*t.Name] = true
		schema := []byte(t.InputSchema)
		if t.InputSchema.Kind() == jsontext.KindNull {
			schema = nil
		}
		gen.Tools = append(gen.Tools, infer.Tool{Name: *t.Name, Description: t.Description, Schema: schema})
	}
	return nil
}

// apply checks the options, the format and the other members that generate does not read, and copies
// them to req and gen.
func (m *request) apply(req *infer.Request, gen *infer.Generate) error {
	if err := m.Apply(req, gen, defaultMaxTokens); err != nil {
		return err
	}
	if f := m.ResponseFormat; f != nil {
		switch *f.Type {
		case "json_schema":
			gen.Format.Schema = f.Schema
		case "json_object":
			gen.Format.JSONObject = true
		case "grammar":
			gen.Format.Grammar = *f.Grammar
			if err := wire.CheckGrammar(*f.Grammar); err != nil {
				return err
			}
		default:
			return wire.Invalid("response_format.type must be one of: json_schema, json_object, grammar")
		}
	}
	if err := wire.CheckSalt(m.CacheSalt); err != nil {
		return err
	}
	if err := wire.CheckTraceparent(m.Traceparent); err != nil {
		return err
	}
	req.CacheSalt, req.LocalOnly, req.Traceparent = m.CacheSalt, m.LocalOnly, m.Traceparent
	var err error
	if m.Thinking != nil {
		gen.Thinking = infer.ThinkOff
		if *m.Thinking {
			gen.Thinking = infer.ThinkOn
		}
	}
	if m.ThinkingBudget != nil { // 0 would be no limit; no thinking is "thinking": false
		if gen.ThinkingBudget, err = m.ThinkingBudget.Within("thinking_budget", 1); err != nil {
			return err
		}
	}
	if gen.Logprobs, err = m.Logprobs.Within("logprobs", 0); err != nil || gen.Logprobs > maxLogprobs {
		return wire.Invalid("logprobs must be between 0 and %d", maxLogprobs)
	}
	for name, bias := range m.LogitBias {
		token, err := strconv.ParseUint(name, 10, 31)
		if err != nil {
			return wire.Invalid("logit_bias: %.20q is no token id", name)
		}
		if bias < -maxBias || bias > maxBias {
			return wire.Invalid("logit_bias[%d] must be between -%d and %d", token, maxBias, maxBias)
		}
		if gen.Sampling.LogitBias == nil {
			gen.Sampling.LogitBias = make(map[int]float64, len(m.LogitBias))
		}
		gen.Sampling.LogitBias[int(token)] = float64(bias)
	}
	return nil
}
