package openai

import (
	"cmp"
	"slices"
	"strconv"
	"sync"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// A Chat is a request to complete a chat.
type Chat struct {
	web.Ask

	Usage    bool // a stream ends with the usage
	Logprobs bool
	Top      int // number of alternatives to report for each token
}

// A chatRequest is the decoded body of a request. A null member counts as missing.
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
	constraint
	ReasoningEffort string `json:"reasoning_effort"`

	// Members of llama.cpp's server.
	Template struct {
		EnableThinking *bool `json:"enable_thinking"`
	} `json:"chat_template_kwargs"`
	ReasoningBudget *wire.Integer `json:"reasoning_budget"`

	CacheSalt string `json:"cache_salt"` // an extension of inferd

	// Members that are refused.
	Audio            jsontext.Value `json:"audio"`
	Modalities       []string       `json:"modalities"`
	WebSearchOptions jsontext.Value `json:"web_search_options"`

	ignoredMembers
}

// ignoredMembers have no effect. Refusing them would break clients that always send them.
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

// none reports whether the request has none of these members, which is the usual case.
func (m *ignoredMembers) none() bool {
	return len(m.User)+len(m.Store)+len(m.Metadata)+len(m.ServiceTier)+len(m.Verbosity)+
		len(m.PromptCacheKey)+len(m.SafetyIdentifier)+len(m.Prediction)+len(m.CachePrompt) == 0
}

// members returns the values of the members, by name.
func (m *ignoredMembers) members() map[string]jsontext.Value {
	return map[string]jsontext.Value{
		"user": m.User, "store": m.Store, "metadata": m.Metadata, "service_tier": m.ServiceTier, "verbosity": m.Verbosity,
		"prompt_cache_key": m.PromptCacheKey, "safety_identifier": m.SafetyIdentifier, "prediction": m.Prediction,
		"cache_prompt": m.CachePrompt,
	}
}

// spare holds empty chatRequests for reuse.
var spare sync.Pool

// ReadChat decodes the body of a request. The caller must have checked it with [wire.Weigh]. An
// error can be passed to [ErrorOf].
func ReadChat(body []byte) (*Chat, error) {
	m, ok := spare.Get().(*chatRequest)
	if !ok {
		m = new(chatRequest)
	}
	defer func() {
		*m = chatRequest{}
		spare.Put(m)
	}()
	if err := wire.Unmarshal(body, m); err != nil {
		return nil, err
	}
	gen := &infer.Generate{Blocks: true, Model: m.Model, Defaults: Defaults()}
	c := &Chat{
		Ask:   web.Ask{Generate: gen, Model: m.Model, CacheSalt: m.CacheSalt, Stream: m.Stream, History: "messages"},
		Usage: m.StreamOptions.IncludeUsage,
	}
	if !m.none() {
		c.IgnorePresent(m.members())
	}
	if err := m.refused(); err != nil {
		return nil, err
	}
	if err := wire.CheckSalt(m.CacheSalt); err != nil {
		return nil, web.Invalid("cache_salt", "%v", err)
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
	if err := m.constraint.apply(gen); err != nil {
		return nil, err
	}
	c.IgnoreStops("stop")
	if err := m.numbers(c); err != nil {
		return nil, err
	}
	return c, m.thinking(c)
}

// refused returns an error if the request has a member that is not supported.
func (m *chatRequest) refused() error {
	switch {
	case m.N != nil && !m.N.Is(1):
		return web.Invalid("n", "n must be 1: one answer at a time is supported")
	case web.Present(m.Audio) || slices.Contains(m.Modalities, "audio"):
		return web.Invalid("modalities", "audio in answers is not supported")
	case web.Present(m.WebSearchOptions):
		return web.Invalid("web_search_options", "web search is not supported")
	}
	return nil
}

// numbers checks and copies the members for the limit of tokens and for logprobs.
func (m *chatRequest) numbers(c *Chat) error {
	for _, of := range []struct {
		param string
		value *wire.Integer
	}{{"max_completion_tokens", m.MaxCompletionTokens}, {"max_tokens", m.MaxTokens}} {
		if of.value == nil {
			continue
		}
		n, err := web.Integer(of.param, of.value, 1)
		if err != nil {
			return err
		}
		if c.Generate.MaxTokens == 0 { // max_completion_tokens takes precedence
			c.Generate.MaxTokens = n
		}
	}
	c.Logprobs = m.Logprobs
	if m.TopLogprobs != nil {
		n, err := web.Integer("top_logprobs", m.TopLogprobs, 0)
		switch {
		case err != nil:
			return err
		case n > maxLogprobs:
			return web.Invalid("top_logprobs", "top_logprobs must be between 0 and %d", maxLogprobs)
		case n > 0 && !m.Logprobs:
			return web.Invalid("top_logprobs", "top_logprobs needs logprobs")
		}
		c.Top = n
	}
	if m.Logprobs {
		c.Generate.Logprobs = max(c.Top, 1)
	}
	return nil
}

// thinking checks and copies the members for thinking. Of several, the more precise one takes
// precedence: reasoning_budget, then chat_template_kwargs, then reasoning_effort.
func (m *chatRequest) thinking(c *Chat) error {
	gen := c.Generate
	if word := m.ReasoningEffort; word != "" {
		if err := c.Effort("reasoning_effort", word); err != nil {
			return err
		}
	}
	if m.Template.EnableThinking != nil {
		c.Thinks = append(c.Thinks, "chat_template_kwargs")
		gen.Thinking = infer.ThinkIf(*m.Template.EnableThinking)
	}
	if m.ReasoningBudget != nil {
		c.Thinks = append(c.Thinks, "reasoning_budget")
		switch n, err := m.ReasoningBudget.Within("reasoning_budget", 0); {
		case m.ReasoningBudget.String() == "-1":
			gen.Thinking, gen.ThinkingBudget = infer.ThinkOn, 0
		case err != nil:
			return web.Invalid("reasoning_budget", "%v", err)
		default:
			gen.Thinking, gen.ThinkingBudget = infer.ThinkIf(n > 0), n
		}
	}
	if gen.Thinking != infer.ThinkOn {
		gen.ThinkingBudget = 0
	}
	return nil
}

// toolMembers has the members for tools. functions and function_call are their older form.
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

// apply checks the tools and copies them to gen.
func (m *toolMembers) apply(gen *infer.Generate) error {
	functions, param := m.Functions, "functions"
	for i, t := range m.Tools {
		if t.Type != "function" && t.Type != "" {
			return web.Invalid("tools", "tools[%d].type %.64q is not supported: only function is", i, t.Type)
		}
		functions, param = append(functions, t.Function), "tools"
	}
	tools := make([]web.Tool, len(functions))
	for i, f := range functions {
		tools[i] = web.Tool(f)
	}
	if err := web.AddTools(param, tools, gen); err != nil {
		return err
	}
	gen.OneCall = !wire.ValueOr(m.ParallelToolCalls, true) || len(m.Functions) > 0 && len(m.Tools) == 0
	choice, param := m.ToolChoice, "tool_choice"
	if !web.Present(choice) {
		choice, param = m.FunctionCall, "function_call"
	}
	return readChoice(choice, param, gen)
}

// readChoice reads tool_choice, or its older form function_call. param is the name of the member.
func readChoice(choice jsontext.Value, param string, gen *infer.Generate) error {
	if !web.Present(choice) {
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
		if err := web.Decode(param, choice, &m.word); err != nil {
			return err
		}
	} else if err := web.Decode(param, choice, &m); err != nil {
		return err
	}
	switch {
	case m.word != "":
		return web.ChooseMode(param, m.word, gen)
	case m.Type == "allowed_tools":
		names := make([]string, len(m.Allowed.Tools))
		for i, t := range m.Allowed.Tools {
			names[i] = t.Function.Name
		}
		if err := web.ChooseFrom(param, names, gen); err != nil {
			return err
		}
		return web.ChooseMode(param, m.Allowed.Mode, gen)
	case m.Type == "function" || m.Type == "" && m.Name != "":
		return web.ChooseTool(param, cmp.Or(m.Function.Name, m.Name), gen)
	}
	return web.Invalid(param, "%s must be a word, or name a function", param)
}

// place returns the path of element i of a list, for errors.
func place(list string, i int) string { return list + "[" + strconv.Itoa(i) + "]" }
