// Package anthropic is the dialect of Anthropic's Messages interface: it decodes requests for
// messages and for counts of their tokens, and encodes answers and the events of streams. It
// determines the HTTP status of errors, but package bridge handles HTTP.
//
// An unknown member is ignored. A known member has an effect, is refused by name, or is listed as
// ignored.
package anthropic

import (
	"fmt"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// A Request is a request for a message, or for the number of tokens of its prompt.
type Request struct{ web.Ask }

// A request is the decoded body of a request. A null member counts as missing.
type request struct {
	Model         string         `json:"model"`
	Messages      []message      `json:"messages"`
	System        jsontext.Value `json:"system"` // a text or blocks
	MaxTokens     *wire.Integer  `json:"max_tokens"`
	Stream        bool           `json:"stream"`
	StopSequences []string       `json:"stop_sequences"`
	web.Sampling

	Tools      []tool      `json:"tools"`
	ToolChoice *toolChoice `json:"tool_choice"`
	Thinking   *struct {
		Type         string        `json:"type"`
		BudgetTokens *wire.Integer `json:"budget_tokens"`
	} `json:"thinking"`
	OutputConfig struct {
		Effort string  `json:"effort"`
		Format *format `json:"format"`
	} `json:"output_config"`
	OutputFormat *format `json:"output_format"` // older form of output_config.format

	CacheSalt string `json:"cache_salt"` // an extension of inferd

	ignored
}

type format struct {
	Type   string         `json:"type"`
	Schema jsontext.Value `json:"schema"`
}

// ignored has the members without effect. Refusing them would break clients that always send them.
type ignored struct {
	Metadata          jsontext.Value `json:"metadata"`
	ContextManagement jsontext.Value `json:"context_management"`
	ServiceTier       jsontext.Value `json:"service_tier"`
	CacheControl      jsontext.Value `json:"cache_control"`
	Container         jsontext.Value `json:"container"`
	InferenceGeo      jsontext.Value `json:"inference_geo"`
	MCPServers        jsontext.Value `json:"mcp_servers"`
	Speed             jsontext.Value `json:"speed"`
}

func (m *ignored) members() map[string]jsontext.Value {
	return map[string]jsontext.Value{
		"metadata": m.Metadata, "context_management": m.ContextManagement, "service_tier": m.ServiceTier,
		"cache_control": m.CacheControl, "container": m.Container, "inference_geo": m.InferenceGeo,
		"mcp_servers": m.MCPServers, "speed": m.Speed,
	}
}

// Defaults returns the defaults of this interface. Only the context limits the tokens of an answer.
func Defaults() infer.Defaults {
	return infer.Defaults{Sampling: infer.Sampling{Temperature: new(1.0), TopP: new(1.0), TopK: new(0)}}
}

// Read decodes the body of a request. The caller must have checked it with [wire.Weigh]. An error
// can be passed to [Failure].
func Read(body []byte) (*Request, error) {
	var m request
	if err := wire.Unmarshal(body, &m); err != nil {
		return nil, err
	}
	if err := wire.CheckSalt(m.CacheSalt); err != nil {
		return nil, web.Invalid("cache_salt", "%v", err)
	}
	gen := &infer.Generate{Blocks: true, Model: m.Model, Defaults: Defaults()}
	r := &Request{web.Ask{Generate: gen, Model: m.Model, CacheSalt: m.CacheSalt, Stream: m.Stream, History: "messages"}}
	r.IgnorePresent(m.members())
	for _, apply := range []func(*Request) error{m.history, m.declare, m.choose, m.bounds, m.format, m.thinking} {
		if err := apply(r); err != nil {
			return nil, err
		}
	}
	r.IgnoreStops("stop_sequences")
	return r, nil
}

// bounds checks and copies the sampling, the limit of tokens and the stop texts.
func (m *request) bounds(r *Request) (err error) {
	if err := m.Apply(&r.Generate.Sampling); err != nil {
		return err
	}
	if m.MaxTokens != nil {
		if r.Generate.MaxTokens, err = web.Integer("max_tokens", m.MaxTokens, 1); err != nil {
			return err
		}
	}
	r.Generate.Stop, err = web.Stops("stop_sequences", m.StopSequences)
	return err
}

// format checks and copies the constraint of the answer, which must be a JSON Schema.
func (m *request) format(r *Request) error {
	f, member := m.OutputConfig.Format, "output_config.format"
	if f == nil {
		f, member = m.OutputFormat, "output_format"
	}
	switch {
	case f == nil:
		return nil
	case f.Type != "json_schema":
		return web.Invalid(member, "%s.type must be json_schema", member)
	case f.Schema.Kind() != jsontext.KindBeginObject:
		return web.Invalid(member, "%s.schema must be an object", member)
	}
	r.Generate.Format.Schema = f.Schema
	return nil
}

// thinking checks and copies the members for thinking. An effort is converted to a budget, which
// the member thinking may replace or remove.
func (m *request) thinking(r *Request) error {
	gen := r.Generate
	if word := m.OutputConfig.Effort; word != "" {
		if err := r.Effort("output_config.effort", word); err != nil {
			return err
		}
	}
	if m.Thinking == nil {
		return nil
	}
	r.Thinks = append(r.Thinks, "thinking")
	switch m.Thinking.Type {
	case "disabled":
		gen.Thinking, gen.ThinkingBudget = infer.ThinkOff, 0
	case "adaptive":
		gen.Thinking = infer.ThinkOn
	case "enabled":
		gen.Thinking = infer.ThinkOn
		if m.Thinking.BudgetTokens == nil {
			return nil
		}
		n, err := web.Integer("thinking.budget_tokens", m.Thinking.BudgetTokens, 1)
		if err != nil {
			return err
		}
		gen.ThinkingBudget = n
	default:
		return web.Invalid("thinking", "thinking.type must be one of: adaptive, disabled, enabled")
	}
	return nil
}

// A tool is a declared tool. A tool with a type other than custom has no schema in the request:
// Anthropic runs it, or Anthropic's models are trained on its schema.
type tool struct {
	Type         string         `json:"type"`
	Name         string         `json:"name"`
	Description  string         `json:"description"`
	InputSchema  jsontext.Value `json:"input_schema"`
	CacheControl jsontext.Value `json:"cache_control"`
	Strict       jsontext.Value `json:"strict"`
	Eager        jsontext.Value `json:"eager_input_streaming"`
	DeferLoading jsontext.Value `json:"defer_loading"`
}

// declare checks and copies the tools. It ignores tools with a type other than custom.
func (m *request) declare(r *Request) error {
	tools := make([]web.Tool, 0, len(m.Tools))
	for i, t := range m.Tools {
		if t.Type != "" && t.Type != "custom" {
			r.IgnoreTool(t.Type)
			continue
		}
		if t.InputSchema.Kind() != jsontext.KindBeginObject {
			return web.Invalid("tools", "tools[%d].input_schema must be an object", i)
		}
		r.IgnorePresent(map[string]jsontext.Value{
			"cache_control": t.CacheControl, "tools.strict": t.Strict, "tools.eager_input_streaming": t.Eager, "tools.defer_loading": t.DeferLoading,
		})
		tools = append(tools, web.Tool{Name: t.Name, Description: t.Description, Parameters: t.InputSchema})
	}
	return web.AddTools("tools", tools, r.Generate)
}

// A toolChoice is the value of tool_choice.
type toolChoice struct {
	Type                   string `json:"type"`
	Name                   string `json:"name"`
	DisableParallelToolUse bool   `json:"disable_parallel_tool_use"`
}

// UnmarshalJSONFrom accepts an object. Its error shows the form of the object, because the value is a
// word in other interfaces.
func (c *toolChoice) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() != jsontext.KindBeginObject {
		return wire.TypeError(`an object, such as {"type":"auto"}`)
	}
	type members toolChoice // without this method
	return json.UnmarshalDecode(d, (*members)(c))
}

// choose checks and copies tool_choice.
func (m *request) choose(r *Request) error {
	const member = "tool_choice"
	c := m.ToolChoice
	if c == nil {
		return nil
	}
	r.Generate.OneCall = c.DisableParallelToolUse
	switch c.Type {
	case "auto", "none":
		return web.ChooseMode(member, c.Type, r.Generate)
	case "any":
		return web.ChooseMode(member, "required", r.Generate)
	case "tool":
		return web.ChooseTool(member, c.Name, r.Generate)
	}
	return web.Invalid(member, "tool_choice.type must be one of: auto, any, tool, none")
}

// statuses maps the code of an error to its status and type.
var statuses = map[infer.Code]failure{
	infer.Invalid:     {http.StatusBadRequest, "invalid_request_error"},
	infer.Unsupported: {http.StatusBadRequest, "invalid_request_error"},
	infer.TooLarge:    {http.StatusRequestEntityTooLarge, "request_too_large"},
	infer.Busy:        {http.StatusTooManyRequests, "rate_limit_error"},
	infer.Unavailable: {overloaded, "overloaded_error"},
	infer.Internal:    {http.StatusInternalServerError, "api_error"},
	infer.Malformed:   {http.StatusInternalServerError, "api_error"},
}

// overloaded is an HTTP status that only this interface uses.
const overloaded = 529

// kinds maps HTTP statuses to the types of errors, for errors with a status of their own (see
// [web.Error]). If the status is missing here, the type follows from the code.
var kinds = map[int]string{
	http.StatusUnauthorized: "authentication_error", http.StatusForbidden: "permission_error", http.StatusNotFound: "not_found_error",
	http.StatusRequestEntityTooLarge: "request_too_large",
}

// A failure is the status and the type of an error.
type failure struct {
	status int
	kind   string
}

// errorOf returns the status, the type and the text of the error for cause.
func errorOf(cause error) (failure, string) {
	f := web.ErrorOf(cause)
	as := statuses[f.Code]
	if f.Status != 0 {
		as.status = f.Status
		if kind, ok := kinds[f.Status]; ok {
			as.kind = kind
		}
	}
	if p := f.Prompt; p != nil {
		tokens := p.Tokens
		if p.AtLeast {
			tokens++
		}
		return as, fmt.Sprintf("prompt is too long: %d tokens > %d maximum", tokens, p.Most)
	}
	return as, f.Message
}

// Failure returns the status and the body of the answer to a request that has failed with cause. id
// is the ID of the request, and part of the body.
func Failure(cause error, id string) (status int, body []byte) {
	as, text := errorOf(cause)
	return as.status, appendError(nil, as.kind, text, id)
}

func appendError(dst []byte, kind, text, id string) []byte {
	dst = append(dst, `{"type":"error","error":{"type":"`...)
	dst = append(dst, kind...)
	dst = append(dst, `","message":`...)
	dst = wire.AppendString(dst, text)
	dst = append(dst, `},"request_id":`...)
	return append(web.AppendNullable(dst, id), '}')
}
