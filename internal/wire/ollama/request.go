package ollama

import (
	"fmt"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// A Request is a chat, or a prompt to continue.
type Request struct {
	web.Ask

	// Load means that the request only loads the model. All models of the daemon are loaded.
	Load bool

	prompt bool // the request has a prompt; the answer has a response in place of a message
	top    int  // number of alternatives to report for each token
}

// A message is a message of any role.
type message struct {
	Role       string     `json:"role"`
	Content    string     `json:"content"`
	Thinking   string     `json:"thinking"`
	Images     []string   `json:"images"` // base64
	ToolCalls  []toolCall `json:"tool_calls"`
	ToolName   string     `json:"tool_name"`
	ToolCallID string     `json:"tool_call_id"`
}

type toolCall struct {
	ID       string `json:"id"`
	Function struct {
		Name      string         `json:"name"`
		Arguments jsontext.Value `json:"arguments"` // an object, or its JSON as a text
	} `json:"function"`
}

// ReadChat decodes the body of a chat request. The caller must have checked it with [wire.Weigh].
func ReadChat(body []byte) (*Request, error) {
	var m struct {
		common

		Messages []message `json:"messages"`
		Tools    []struct {
			Type     string `json:"type"`
			Function struct {
				Name        string         `json:"name"`
				Description string         `json:"description"`
				Parameters  jsontext.Value `json:"parameters"`
			} `json:"function"`
		} `json:"tools"`
	}
	if err := wire.Unmarshal(body, &m); err != nil {
		return nil, err
	}
	r := &Request{}
	if err := m.apply(r); err != nil {
		return nil, err
	}
	r.Load = len(m.Messages) == 0
	tools := make([]web.Tool, len(m.Tools))
	for i, t := range m.Tools {
		if t.Type != "function" && t.Type != "" {
			return nil, web.Invalid("tools", "tools[%d].type %.64q is not supported: only function is", i, t.Type)
		}
		tools[i] = web.Tool{Name: t.Function.Name, Description: t.Function.Description, Parameters: t.Function.Parameters}
	}
	if err := web.AddTools("tools", tools, r.Generate); err != nil {
		return nil, err
	}
	h := history{gen: r.Generate, ids: make(map[string]bool)}
	return r, h.read(m.Messages)
}

// A history converts the messages of a chat, and assigns results to tool calls.
type history struct {
	gen     *infer.Generate
	open    []infer.CallPart // calls that have no result yet
	ids     map[string]bool  // IDs of all calls
	made    int              // number of IDs made for calls that have none
	results bool             // the last message has results
}

// read adds messages to the request. It joins leading system messages into one message, and
// consecutive results of tools into another.
func (h *history) read(messages []message) error {
	var leading []string
	for i, m := range messages {
		at := fmt.Sprintf("messages[%d]", i)
		if m.Role != "assistant" && len(m.ToolCalls) > 0 {
			return web.Invalid("messages", "%s has tool_calls, which only messages of the assistant may have", at)
		}
		if m.Role == "system" && len(h.gen.Messages) == 0 {
			if err := m.textOnly(at); err != nil {
				return err
			}
			leading = append(leading, m.Content)
			continue
		}
		web.AddSystem(leading, h.gen)
		leading = nil
		if err := h.add(&m, at); err != nil {
			return err
		}
		h.results = m.Role == "tool"
	}
	web.AddSystem(leading, h.gen) // has an effect only if all messages are system messages
	return nil
}

// add adds a message that is not a leading system message.
func (h *history) add(m *message, at string) error {
	if m.Role == "system" || m.Role == "assistant" {
		if err := m.textOnly(at); err != nil {
			return err
		}
	}
	content := []infer.Part{&infer.TextPart{Text: m.Content}}
	for _, data := range m.Images {
		part, err := attach(data, at, h.gen)
		if err != nil {
			return err
		}
		content = append(content, part)
	}
	switch m.Role {
	case "system", "user":
		h.gen.Messages = append(h.gen.Messages, infer.Message{Role: infer.Role(m.Role), Content: content})
	case "assistant":
		return h.assistant(m, content, at)
	case "tool":
		id, err := h.called(m, at)
		if err != nil {
			return err
		}
		part := &infer.ResultPart{ID: id, Content: content}
		if n := len(h.gen.Messages); h.results {
			h.gen.Messages[n-1].Content = append(h.gen.Messages[n-1].Content, part)
			return nil
		}
		h.gen.Messages = append(h.gen.Messages, infer.Message{Role: infer.User, Content: []infer.Part{part}})
	default:
		return web.Invalid("messages", "%s.role must be one of: system, user, assistant, tool", at)
	}
	return nil
}

// textOnly returns an error if the message has images.
func (m *message) textOnly(at string) error {
	if len(m.Images) > 0 {
		return web.Invalid("messages", "%s: a message of the %s takes text only", at, m.Role)
	}
	return nil
}

// assistant adds a message of the model: its thinking, its text, and its calls.
func (h *history) assistant(m *message, content []infer.Part, at string) error {
	msg := infer.Message{Role: infer.Assistant}
	if m.Thinking != "" {
		msg.Content = append(msg.Content, &infer.ThinkingPart{Text: m.Thinking})
	}
	msg.Content = append(msg.Content, content...)
	for i, c := range m.ToolCalls {
		at := fmt.Sprintf("%s.tool_calls[%d]", at, i)
		if c.Function.Name == "" {
			return web.Invalid("messages", "%s has no name", at)
		}
		text := string(c.Function.Arguments)
		if c.Function.Arguments.Kind() == jsontext.KindString {
			if err := web.Decode("messages", c.Function.Arguments, &text); err != nil {
				return err
			}
		}
		input, err := web.Arguments("messages", at, text)
		if err != nil {
			return err
		}
		call := infer.CallPart{ID: c.ID, Name: c.Function.Name, Input: input}
		if call.ID == "" {
			h.made++
			call.ID = fmt.Sprintf("call_%d", h.made)
		}
		h.open, h.ids[call.ID] = append(h.open, call), true
		msg.Content = append(msg.Content, &call)
	}
	h.gen.Messages = append(h.gen.Messages, msg)
	return nil
}

// called returns the ID of the call to which a result belongs: the call with the ID in the result, or,
// if the result has none, the first call of the named tool that has no result yet, or, if it names no
// tool either, the first call without a result. It returns an error if there is no such call.
func (h *history) called(m *message, at string) (string, error) {
	for i, call := range h.open {
		if m.ToolCallID == call.ID || m.ToolCallID == "" && (m.ToolName == "" || m.ToolName == call.Name) {
			h.open = append(h.open[:i], h.open[i+1:]...)
			return call.ID, nil
		}
	}
	switch {
	case h.ids[m.ToolCallID]: // a further result of the call
		return m.ToolCallID, nil
	case m.ToolCallID != "":
		return "", web.Invalid("messages", "%s: no message before it has a call in tool_calls with the id %.64q", at, m.ToolCallID)
	case m.ToolName != "":
		return "", web.Invalid("messages", "%s: no message before it has a call of %.64q in tool_calls that has no result yet", at, m.ToolName)
	}
	return "", web.Invalid("messages", "%s: no message before it has a call in tool_calls that has no result yet", at)
}

// attach adds an image to gen, and returns the part that refers to it. at is the path of the
// message, for errors.
func attach(data, at string, gen *infer.Generate) (infer.Part, error) {
	read := web.Image
	if strings.HasPrefix(data, "data:") {
		read = web.ImageURL
	}
	a, err := read(data)
	if err != nil {
		return nil, web.Invalid("messages", "%s: %v", at, err)
	}
	return web.Attach("messages", at, a, gen)
}

// ReadGenerate decodes the body of a request with a prompt. The caller must have checked it with
// [wire.Weigh].
func ReadGenerate(body []byte) (*Request, error) {
	var m struct {
		common

		Prompt   string         `json:"prompt"`
		System   string         `json:"system"`
		Suffix   string         `json:"suffix"`
		Raw      bool           `json:"raw"`
		Images   []string       `json:"images"`
		Template string         `json:"template"`
		Context  jsontext.Value `json:"context"`
	}
	if err := wire.Unmarshal(body, &m); err != nil {
		return nil, err
	}
	r := &Request{prompt: true}
	if err := m.apply(r); err != nil {
		return nil, err
	}
	r.History = "prompt"
	var tokens []jsontext.Value
	if web.Present(m.Context) {
		if err := web.Decode("context", m.Context, &tokens); err != nil {
			return nil, err
		}
	}
	gen := r.Generate
	switch {
	case m.Template != "":
		return nil, web.Invalid("template", "template is not supported: the model's own is used")
	case len(tokens) > 0:
		return nil, web.Invalid("context", "context is not supported: send the conversation to /api/chat")
	case (m.Raw || m.Suffix != "") && len(m.Images) > 0:
		return nil, web.Invalid("images", "images need the model's template, which raw and suffix do not use")
	case m.Raw && m.System != "":
		return nil, web.Invalid("system", "system needs the model's template, which raw does not use")
	case m.Suffix != "":
		if m.System != "" {
			r.Ignore("system")
		}
		gen.Prompt, gen.Suffix = &m.Prompt, &m.Suffix
		return r, nil
	case m.Prompt == "" && len(m.Images) == 0:
		r.Load = true
		return r, nil
	case m.Raw:
		gen.Prompt = &m.Prompt
		return r, nil
	}
	messages := []message{{Role: "user", Content: m.Prompt, Images: m.Images}}
	if m.System != "" {
		messages = append([]message{{Role: "system", Content: m.System}}, messages...)
	}
	h := history{gen: gen}
	return r, h.read(messages)
}
