package openai

import (
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// A Chat is a request to complete a chat.
type Chat struct {
	Generate  *infer.Generate
	CacheSalt string
	Model     string // as the client spells it; may be empty
	Stream    bool
	Usage     bool // a stream ends with the usage
	Logprobs  bool
	Top       int      // alternatives to report for each token
	Ignored   []string // members that had no effect, sorted

	thinks string // the member that asks for thinking
}

// chatRequest is the body of a request. A null member reads like a missing one.
type chatRequest struct {
	Model    string        `json:"model"`
	Messages []chatMessage `json:"messages"`

	Stream        bool `json:"stream"`
	StreamOptions struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	MaxCompletionTokens *wire.Integer `json:"max_completion_tokens"`
	MaxTokens           *wire.Integer `json:"max_tokens"`
	N                   *wire.Integer `json:"n"`
	Logprobs            bool          `json:"logprobs"`
	TopLogprobs         *wire.Integer `json:"top_logprobs"`
	sampling

	toolMembers
	ResponseFormat  *responseFormat `json:"response_format"`
	ReasoningEffort string          `json:"reasoning_effort"`

	// Of llama.cpp's server.
	Grammar    string         `json:"grammar"`
	JSONSchema jsontext.Value `json:"json_schema"`
	Template   struct {
		EnableThinking *bool `json:"enable_thinking"`
	} `json:"chat_template_kwargs"`
	ReasoningBudget *wire.Integer `json:"reasoning_budget"`

	CacheSalt string `json:"cache_salt"` // of inferd

	// Refused.
	Audio            jsontext.Value `json:"audio"`
	Modalities       []string       `json:"modalities"`
	WebSearchOptions jsontext.Value `json:"web_search_options"`

	ignoredMembers
}

// ignoredMembers have no effect: refusing them would break clients that always send them.
type ignoredMembers struct {
	User             jsontext.Value `json:"user"`
	Store            jsontext.Value `json:"store"`
	Metadata         jsontext.Value `json:"metadata"`
	ServiceTier      jsontext.Value `json:"service_tier"`
	Verbosity        jsontext.Value `json:"verbosity"`
	PromptCacheKey   jsontext.Value `json:"prompt_cache_key"`
	SafetyIdentifier jsontext.Value `json:"safety_identifier"`
	Prediction       jsontext.Value `json:"prediction"`
	CachePrompt      jsontext.Value `json:"cache_prompt"`
}

// names returns the members that are there, sorted.
func (m *ignoredMembers) names() (all []string) {
	for name, value := range map[string]jsontext.Value{
		"user": m.User, "store": m.Store, "metadata": m.Metadata, "service_tier": m.ServiceTier, "verbosity": m.Verbosity,
		"prompt_cache_key": m.PromptCacheKey, "safety_identifier": m.SafetyIdentifier, "prediction": m.Prediction,
		"cache_prompt": m.CachePrompt,
	} {
		if present(value) {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

type responseFormat struct {
	Type       string `json:"type"`
	JSONSchema struct {
		Schema jsontext.Value `json:"schema"`
	} `json:"json_schema"`
	Schema jsontext.Value `json:"schema"` // of llama.cpp's server
}

// ReadChat reads the body of a request, which has been weighed (see [wire.Weigh]). Errors are
// faults, or for [ErrorOf].
func ReadChat(body []byte) (*Chat, error) {
	var m chatRequest
	if err := wire.Unmarshal(body, &m); err != nil {
		return nil, err
	}
	gen := &infer.Generate{Blocks: true, Model: m.Model, Defaults: Defaults()}
	c := &Chat{
		Generate: gen, Model: m.Model, CacheSalt: m.CacheSalt, Stream: m.Stream, Usage: m.StreamOptions.IncludeUsage,
		Ignored: m.names(),
	}
	if err := m.refused(); err != nil {
		return nil, err
	}
	if err := wire.CheckSalt(m.CacheSalt); err != nil {
		return nil, Invalid("cache_salt", "%v", err)
	}
	if err := readMessages(m.Messages, gen); err != nil {
		return nil, err
	}
	if err := m.toolMembers.apply(gen); err != nil {
		return nil, err
	}
	if err := m.sampling.apply(gen); err != nil {
		return nil, err
	}
	if err := m.format(gen); err != nil {
		return nil, err
	}
	if err := m.numbers(c); err != nil {
		return nil, err
	}
	return c, m.thinking(c)
}

// refused refuses members that cannot be honoured.
func (m *chatRequest) refused() error {
	switch {
	case m.N != nil && !m.N.Is(1):
		return Invalid("n", "n must be 1: one answer at a time is supported")
	case present(m.Audio) || slices.Contains(m.Modalities, "audio"):
		return Invalid("modalities", "audio in answers is not supported")
	case present(m.WebSearchOptions):
		return Invalid("web_search_options", "web search is not supported")
	}
	return nil
}

// numbers applies the bound of tokens and the logprobs.
func (m *chatRequest) numbers(c *Chat) error {
	for _, of := range []struct {
		param string
		value *wire.Integer
	}{{"max_completion_tokens", m.MaxCompletionTokens}, {"max_tokens", m.MaxTokens}} {
		if of.value == nil {
			continue
		}
		n, err := integer(of.param, of.value, 1)
		if err != nil {
			return err
		}
		if c.Generate.MaxTokens == 0 { // max_completion_tokens wins
			c.Generate.MaxTokens = n
		}
	}
	c.Logprobs = m.Logprobs
	if m.TopLogprobs != nil {
		n, err := integer("top_logprobs", m.TopLogprobs, 0)
		switch {
		case err != nil:
			return err
		case n > maxLogprobs:
			return Invalid("top_logprobs", "top_logprobs must be between 0 and %d", maxLogprobs)
		case n > 0 && !m.Logprobs:
			return Invalid("top_logprobs", "top_logprobs needs logprobs")
		}
		c.Top = n
	}
	if m.Logprobs {
		c.Generate.Logprobs = max(c.Top, 1)
	}
	return nil
}

// format applies the constraint of the answer.
func (m *chatRequest) format(gen *infer.Generate) error {
	f := &gen.Format
	if m.ResponseFormat != nil {
		switch r := m.ResponseFormat; r.Type {
		case "text":
		case "json_object":
			f.JSONObject = !present(r.Schema)
			f.Schema = schemaOf(r.Schema)
		case "json_schema":
			schema := r.JSONSchema.Schema
			if !present(schema) {
				schema = r.Schema
			}
			if schema.Kind() != jsontext.KindBeginObject {
				return Invalid("response_format", "response_format.json_schema.schema must be an object")
			}
			f.Schema = schema
		default:
			return Invalid("response_format", "response_format.type must be one of: text, json_object, json_schema")
		}
	}
	if present(m.JSONSchema) {
		if m.JSONSchema.Kind() != jsontext.KindBeginObject {
			return Invalid("json_schema", "json_schema must be an object")
		}
		f.Schema, f.JSONObject = schemaOf(m.JSONSchema), false
	}
	if m.Grammar == "" {
		return nil
	}
	if f.Schema != nil || f.JSONObject {
		return Invalid("grammar", "grammar and a response_format are mutually exclusive")
	}
	if err := wire.CheckGrammar(m.Grammar); err != nil {
		return Invalid("grammar", "%v", err)
	}
	f.Grammar = m.Grammar
	return nil
}

func schemaOf(v jsontext.Value) []byte {
	if !present(v) {
		return nil
	}
	return v
}

// efforts are the budgets of thinking, in tokens, by the words of reasoning_effort; -1 is no
// thinking.
var efforts = map[string]int{"none": -1, "minimal": -1, "low": 1024, "medium": 4096, "high": 16384, "xhigh": 0}

// thinking applies the members about thinking. Later ones win: they are more precise.
func (m *chatRequest) thinking(c *Chat) error {
	gen := c.Generate
	if word := m.ReasoningEffort; word != "" {
		budget, ok := efforts[word]
		if !ok {
			return Invalid("reasoning_effort", "reasoning_effort must be one of: none, minimal, low, medium, high, xhigh")
		}
		c.thinks = "reasoning_effort"
		gen.Thinking, gen.ThinkingBudget = thinkIf(budget >= 0), max(budget, 0)
	}
	if m.Template.EnableThinking != nil {
		c.thinks = "chat_template_kwargs"
		gen.Thinking = thinkIf(*m.Template.EnableThinking)
	}
	if m.ReasoningBudget != nil {
		c.thinks = "reasoning_budget"
		switch n, err := m.ReasoningBudget.Within("reasoning_budget", 0); {
		case m.ReasoningBudget.String() == "-1":
			gen.Thinking, gen.ThinkingBudget = infer.ThinkOn, 0
		case err != nil:
			return Invalid("reasoning_budget", "%v", err)
		default:
			gen.Thinking, gen.ThinkingBudget = thinkIf(n > 0), n
		}
	}
	if gen.Thinking != infer.ThinkOn {
		gen.ThinkingBudget = 0
	}
	return nil
}

func thinkIf(on bool) infer.ThinkingMode {
	if on {
		return infer.ThinkOn
	}
	return infer.ThinkOff
}

// Offer adapts the request to the abilities of the model: thinking that it does not offer is
// ignored.
func (c *Chat) Offer(can infer.Abilities) {
	if can.Thinking || c.Generate.Thinking != infer.ThinkOn {
		return
	}
	c.Generate.Thinking, c.Generate.ThinkingBudget = infer.ThinkAuto, 0
	c.Ignored = append(c.Ignored, c.thinks)
	slices.Sort(c.Ignored)
}

// toolMembers are the members about tools; functions are their older form.
type toolMembers struct {
	Tools             []toolMember   `json:"tools"`
	ToolChoice        jsontext.Value `json:"tool_choice"`
	ParallelToolCalls *bool          `json:"parallel_tool_calls"`
	Functions         []function     `json:"functions"`
	FunctionCall      jsontext.Value `json:"function_call"`
}

type toolMember struct {
	Type     string   `json:"type"`
	Function function `json:"function"`
}

type function struct {
	Name        string         `json:"name"`
	Description string         `json:"description"`
	Parameters  jsontext.Value `json:"parameters"`
}

// maxTools bounds the tools of a request.
const maxTools = 1024

// apply checks the tools and adds them to gen.
func (m *toolMembers) apply(gen *infer.Generate) error {
	functions, param := m.Functions, "functions"
	for i, t := range m.Tools {
		if t.Type != "function" && t.Type != "" {
			return Invalid("tools", "tools[%d].type %.64q is not supported: only function is", i, t.Type)
		}
		functions, param = append(functions, t.Function), "tools"
	}
	if len(functions) > maxTools {
		return Invalid(param, "%s: at most %d are allowed", param, maxTools)
	}
	taken := make(map[string]bool, len(functions))
	for i, f := range functions {
		switch {
		case f.Name == "":
			return Invalid(param, "%s[%d] has no name", param, i)
		case taken[f.Name]:
			return Invalid(param, "%s: two are called %.64q", param, f.Name)
		case present(f.Parameters) && f.Parameters.Kind() != jsontext.KindBeginObject:
			return Invalid(param, "%s[%d]: parameters must be an object", param, i)
		}
		taken[f.Name] = true
		gen.Tools = append(gen.Tools, infer.Tool{Name: f.Name, Description: f.Description, Schema: schemaOf(f.Parameters)})
	}
	gen.OneCall = !wire.ValueOr(m.ParallelToolCalls, true) || len(m.Functions) > 0 && len(m.Tools) == 0
	choice, param := m.ToolChoice, "tool_choice"
	if !present(choice) {
		choice, param = m.FunctionCall, "function_call"
	}
	return readChoice(choice, param, gen)
}

// readChoice reads tool_choice, or function_call, which is its older form.
func readChoice(choice jsontext.Value, param string, gen *infer.Generate) error {
	if !present(choice) {
		return nil
	}
	var m struct {
		word     string
		Type     string   `json:"type"`
		Name     string   `json:"name"`
		Function function `json:"function"`
		Allowed  struct {
			Mode  string       `json:"mode"`
			Tools []toolMember `json:"tools"`
		} `json:"allowed_tools"`
	}
	if choice.Kind() == jsontext.KindString {
		if err := decode(param, choice, &m.word); err != nil {
			return err
		}
	} else if err := decode(param, choice, &m); err != nil {
		return err
	}
	switch {
	case m.word != "":
		return chooseMode(m.word, param, gen)
	case m.Type == "allowed_tools":
		if len(m.Allowed.Tools) > maxTools {
			return Invalid(param, "%s: at most %d are allowed", param, maxTools)
		}
		allowed := make(map[string]bool, len(m.Allowed.Tools))
		for _, t := range m.Allowed.Tools {
			if err := declared(t.Function.Name, param, gen); err != nil {
				return err
			}
			allowed[t.Function.Name] = true
		}
		gen.Tools = slices.DeleteFunc(gen.Tools, func(t infer.Tool) bool { return !allowed[t.Name] })
		return chooseMode(m.Allowed.Mode, param, gen)
	case m.Type == "function" || m.Type == "" && m.Name != "":
		name := m.Function.Name
		if name == "" {
			name = m.Name
		}
		if err := declared(name, param, gen); err != nil {
			return err
		}
		gen.Choice = infer.ToolChoice{Mode: infer.ToolNamed, Tool: name}
		return nil
	}
	return Invalid(param, "%s must be a word, or name a function", param)
}

// chooseMode applies a word. Without tools none and auto mean the same, and SDKs send them.
func chooseMode(word, param string, gen *infer.Generate) error {
	switch word {
	case "auto":
	case "none":
		if len(gen.Tools) > 0 {
			gen.Choice.Mode = infer.ToolNone
		}
	case "required":
		if len(gen.Tools) == 0 {
			return Invalid(param, "%s required needs tools", param)
		}
		gen.Choice.Mode = infer.ToolRequired
	default:
		return Invalid(param, "%s must be one of: auto, none, required", param)
	}
	return nil
}

func declared(name, param string, gen *infer.Generate) error {
	if !slices.ContainsFunc(gen.Tools, func(t infer.Tool) bool { return t.Name == name }) {
		return Invalid(param, "%s names %.64q, which is not among the tools", param, name)
	}
	return nil
}

// place names a part of a request in an error.
func place(list string, i int) string { return list + "[" + strconv.Itoa(i) + "]" }
