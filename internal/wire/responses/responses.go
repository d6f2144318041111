// Package responses is the dialect of OpenAI's Responses interface without stored state: each
// request has its whole history. It decodes requests, and encodes answers and the events of
// streams; package bridge handles HTTP.
//
// The tools of an agent, which the client runs, are of three kinds: functions, namespaces of
// functions, and custom tools with one string as input. The model sees only functions, and its
// calls are converted back. Tools that OpenAI would run are ignored.
package responses

import (
	"cmp"
	"net/http"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/openai"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// maxLogprobs bounds the alternatives to report for a token.
const maxLogprobs = 20

// A Request is a request for a response.
type Request struct {
	web.Ask

	logprobs  bool
	top       int             // number of alternatives to report for each token
	summary   bool            // send thinking as a summary of reasoning
	encrypted bool            // also send thinking in its sealed form
	names     map[string]name // the declared tools, by the names that the model sees
	tools     []byte          // the tools as the answer repeats them: JSON, without brackets
	echo      []byte          // members of the answer that repeat the request
}

// A name is the name of a tool as the client has declared it.
type name struct {
	name, namespace string
	custom          bool
}

// A request is the decoded body of a request. A null member counts as missing.
type request struct {
	Model           string         `json:"model"`
	Input           jsontext.Value `json:"input"`
	Instructions    jsontext.Value `json:"instructions"`
	Stream          bool           `json:"stream"`
	MaxOutputTokens *wire.Integer  `json:"max_output_tokens"`
	TopLogprobs     *wire.Integer  `json:"top_logprobs"`
	Include         []string       `json:"include"`
	web.Sampling

	Tools             []jsontext.Value `json:"tools"`
	ToolChoice        jsontext.Value   `json:"tool_choice"`
	ParallelToolCalls *bool            `json:"parallel_tool_calls"`

	Text struct {
		Format    jsontext.Value `json:"format"`
		Verbosity jsontext.Value `json:"verbosity"`
	} `json:"text"`
	Reasoning struct {
		Effort          string `json:"effort"`
		Summary         string `json:"summary"`
		GenerateSummary string `json:"generate_summary"` // older name of summary
	} `json:"reasoning"`

	CacheSalt string `json:"cache_salt"` // an extension of inferd

	// Refused: they need stored state, or templates that only OpenAI has.
	PreviousResponseID jsontext.Value `json:"previous_response_id"`
	Conversation       jsontext.Value `json:"conversation"`
	Background         bool           `json:"background"`
	Prompt             jsontext.Value `json:"prompt"`

	ignored
}

// ignored has the members without effect. Refusing them would break clients that always send them.
type ignored struct {
	Store                jsontext.Value `json:"store"`
	Metadata             jsontext.Value `json:"metadata"`
	ClientMetadata       jsontext.Value `json:"client_metadata"`
	ServiceTier          jsontext.Value `json:"service_tier"`
	User                 jsontext.Value `json:"user"`
	SafetyIdentifier     jsontext.Value `json:"safety_identifier"`
	PromptCacheKey       jsontext.Value `json:"prompt_cache_key"`
	PromptCacheRetention jsontext.Value `json:"prompt_cache_retention"`
	PromptCacheOptions   jsontext.Value `json:"prompt_cache_options"`
	ContextManagement    jsontext.Value `json:"context_management"`
	Truncation           jsontext.Value `json:"truncation"`
	MaxToolCalls         jsontext.Value `json:"max_tool_calls"`
	StreamOptions        jsontext.Value `json:"stream_options"`
	Moderation           jsontext.Value `json:"moderation"`
}

func (m *ignored) byName() map[string]jsontext.Value {
	return map[string]jsontext.Value{
		"store": m.Store, "metadata": m.Metadata, "client_metadata": m.ClientMetadata, "service_tier": m.ServiceTier,
		"user": m.User, "safety_identifier": m.SafetyIdentifier, "prompt_cache_key": m.PromptCacheKey,
		"prompt_cache_retention": m.PromptCacheRetention, "prompt_cache_options": m.PromptCacheOptions,
		"context_management": m.ContextManagement, "truncation": m.Truncation, "max_tool_calls": m.MaxToolCalls,
		"stream_options": m.StreamOptions, "moderation": m.Moderation,
	}
}

// Values of include that have an effect.
const (
	includeEncrypted = "reasoning.encrypted_content"
	includeLogprobs  = "message.output_text.logprobs"
)

// Read decodes the body of a request. The caller must have checked it with [wire.Weigh]. An error
// can be passed to [Failure].
func Read(body []byte) (*Request, error) {
	var m request
	if err := wire.Unmarshal(body, &m); err != nil {
		return nil, err
	}
	if err := m.refused(); err != nil {
		return nil, err
	}
	gen := &infer.Generate{Blocks: true, Model: m.Model, Defaults: openai.Defaults()}
	r := &Request{Ask: web.Ask{Generate: gen, Model: m.Model, CacheSalt: m.CacheSalt, Stream: m.Stream, History: "input"}}
	r.IgnorePresent(m.byName())
	if web.Present(m.Text.Verbosity) {
		r.Ignore("text.verbosity")
	}
	for _, apply := range []func(*Request) error{m.history, m.declare, m.bounds, m.format, m.thinking} {
		if err := apply(r); err != nil {
			return nil, err
		}
	}
	r.echo = m.echoes(r)
	return r, nil
}

// refused returns an error if the request has a member that is not supported.
func (m *request) refused() error {
	const stateless = "%s is not supported: responses are not stored, so each request needs its whole input"
	switch {
	case web.Present(m.PreviousResponseID):
		return web.Invalid("previous_response_id", stateless, "previous_response_id")
	case web.Present(m.Conversation):
		return web.Invalid("conversation", stateless, "conversation")
	case m.Background:
		return web.Invalid("background", stateless, "background")
	case web.Present(m.Prompt):
		return web.Invalid("prompt", "prompt templates are not supported: send instructions and input")
	}
	if err := wire.CheckSalt(m.CacheSalt); err != nil {
		return web.Invalid("cache_salt", "%v", err)
	}
	return nil
}

// bounds checks and copies the sampling, the limit of tokens, logprobs and include.
func (m *request) bounds(r *Request) error {
	if err := m.Apply(&r.Generate.Sampling); err != nil {
		return err
	}
	var err error
	if m.MaxOutputTokens != nil {
		if r.Generate.MaxTokens, err = web.Integer("max_output_tokens", m.MaxOutputTokens, 1); err != nil {
			return err
		}
	}
	r.encrypted, r.logprobs = slices.Contains(m.Include, includeEncrypted), slices.Contains(m.Include, includeLogprobs)
	if slices.ContainsFunc(m.Include, func(s string) bool { return s != includeEncrypted && s != includeLogprobs }) {
		r.Ignore("include")
	}
	if m.TopLogprobs != nil {
		if r.top, err = web.Integer("top_logprobs", m.TopLogprobs, 0); err != nil {
			return err
		}
		if r.top > maxLogprobs {
			return web.Invalid("top_logprobs", "top_logprobs must be between 0 and %d", maxLogprobs)
		}
	}
	if r.logprobs = r.logprobs || r.top > 0; r.logprobs {
		r.Generate.Logprobs = max(r.top, 1)
	}
	return nil
}

// format checks and copies the constraint of the answer.
func (m *request) format(r *Request) error {
	const member = "text.format"
	if !web.Present(m.Text.Format) {
		return nil
	}
	var f struct {
		Type   string         `json:"type"`
		Schema jsontext.Value `json:"schema"`
	}
	if err := web.Decode(member, m.Text.Format, &f); err != nil {
		return err
	}
	switch f.Type {
	case "text":
	case "json_object":
		r.Generate.Format.JSONObject = true
	case "json_schema":
		if f.Schema.Kind() != jsontext.KindBeginObject {
			return web.Invalid(member, "text.format.schema must be an object")
		}
		r.Generate.Format.Schema = f.Schema
	default:
		return web.Invalid(member, "text.format.type must be one of: text, json_object, json_schema")
	}
	return nil
}

// thinking checks and copies the members for thinking.
func (m *request) thinking(r *Request) error {
	summary := cmp.Or(m.Reasoning.Summary, m.Reasoning.GenerateSummary)
	r.summary = summary != "" && summary != "none"
	if m.Reasoning.Effort == "" {
		return nil
	}
	return r.Effort("reasoning.effort", m.Reasoning.Effort)
}

// params maps members of chat completions to members of this dialect, for errors.
var params = map[string]string{"messages": "input", "response_format": "text.format", "reasoning_effort": "reasoning.effort", "logprobs": "top_logprobs"}

// errorOf returns the error for cause. The member at fault has its name in this dialect.
func errorOf(cause error) *openai.Error {
	f := openai.ErrorOf(cause)
	f.Param = cmp.Or(params[f.Param], f.Param)
	return f
}

// Failure returns the status and the body of the answer to a request that has failed with cause. The
// ID of the request is not used.
func Failure(cause error, _ string) (status int, body []byte) {
	f := errorOf(cause)
	return f.Status, f.Append(nil)
}

// codeOf returns the error code in the object of a response that has failed. It differs from the code
// in the body of [Failure].
func codeOf(f *openai.Error) string {
	switch {
	case f.Code == openai.TooLong: // agents shorten the history when they see this code
		return f.Code
	case f.Status == http.StatusTooManyRequests:
		return "rate_limit_exceeded"
	case f.Status < http.StatusInternalServerError:
		return "invalid_prompt"
	}
	return "server_error"
}
