package openai

import (
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// A chatMessage is a message of any role.
type chatMessage struct {
	Role             string         `json:"role"`
	Content          jsontext.Value `json:"content"` // a text, null or parts
	Refusal          string         `json:"refusal"`
	ReasoningContent string         `json:"reasoning_content"`
	Reasoning        string         `json:"reasoning"`
	ToolCalls        []struct {
		ID       string       `json:"id"`
		Function functionCall `json:"function"`
	} `json:"tool_calls"`
	FunctionCall *functionCall `json:"function_call"`
	ToolCallID   string        `json:"tool_call_id"`
	Name         string        `json:"name"`
}

type functionCall struct {
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

// A contentPart is a part of a message. Its members depend on its type.
type contentPart struct {
	Type     string  `json:"type"`
	Text     *string `json:"text"`
	Refusal  *string `json:"refusal"`
	ImageURL *struct {
		URL string `json:"url"`
	} `json:"image_url"`
	InputAudio *struct {
		Data   string `json:"data"`
		Format string `json:"format"`
	} `json:"input_audio"`
}

// ReadConversation adds messages and tools in the form of this dialect to gen, for requests of other
// dialects that have such members. tools may be nil.
func ReadConversation(messages, tools jsontext.Value, gen *infer.Generate) error {
	var m toolMembers
	if web.Present(tools) {
		if err := web.Decode("tools", tools, &m.Tools); err != nil {
			return err
		}
	}
	if err := m.apply(gen); err != nil {
		return err
	}
	var all []chatMessage
	if err := web.Decode("messages", messages, &all); err != nil {
		return err
	}
	return readMessages(all, gen)
}

// readMessages adds the messages of a request to gen. It joins leading system messages into one
// message, and consecutive results of tools into another.
func readMessages(messages []chatMessage, gen *infer.Generate) error {
	if len(messages) == 0 {
		return web.Invalid("messages", "messages must not be empty")
	}
	var leading []string // texts of leading system messages
	for i := range messages {
		m, at := &messages[i], place("messages", i)
		if m.Role != "assistant" && (len(m.ToolCalls) > 0 || m.FunctionCall != nil) {
			return web.Invalid("messages", "%s has tool_calls, which only messages of the assistant may have", at)
		}
		if (m.Role == "system" || m.Role == "developer") && len(gen.Messages) == 0 {
			parts, err := readContent(m.Content, at, gen)
			if err != nil {
				return err
			}
			for _, part := range parts {
				if _, text := part.(*infer.TextPart); !text {
					return web.Invalid("messages", "%s: a %s message takes text only", at, m.Role)
				}
			}
			leading = append(leading, infer.Message{Content: parts}.Text())
			continue
		}
		web.AddSystem(leading, gen)
		leading = nil
		msg, err := m.read(at, gen)
		if err != nil {
			return err
		}
		if n := len(gen.Messages); isResult(m.Role) && n > 0 && isResult(messages[i-1].Role) {
			gen.Messages[n-1].Content = append(gen.Messages[n-1].Content, msg.Content...)
			continue
		}
		gen.Messages = append(gen.Messages, msg)
	}
	web.AddSystem(leading, gen) // has an effect only if all messages are system messages
	return nil
}

// isResult reports whether messages with the given role have the result of a tool.
func isResult(role string) bool { return role == "tool" || role == "function" }

// read converts a message that is not a leading system message.
func (m *chatMessage) read(at string, gen *infer.Generate) (infer.Message, error) {
	content, err := readContent(m.Content, at, gen)
	if err != nil {
		return infer.Message{}, err
	}
	switch m.Role {
	case "system", "developer":
		return infer.Message{Role: infer.System, Content: content}, nil
	case "user":
		return infer.Message{Role: infer.User, Content: content}, nil
	case "tool", "function":
		id := m.ToolCallID
		if m.Role == "function" {
			id = m.Name
		}
		if id == "" {
			return infer.Message{}, web.Invalid("messages", "%s has no tool_call_id", at)
		}
		return infer.Message{Role: infer.User, Content: []infer.Part{&infer.ResultPart{ID: id, Content: content}}}, nil
	case "assistant":
		return m.assistant(content, at)
	}
	return infer.Message{}, web.Invalid("messages", "%s.role must be one of: system, developer, user, assistant, tool", at)
}

// assistant returns a message of the model: its thinking, its text, and its calls.
func (m *chatMessage) assistant(content []infer.Part, at string) (infer.Message, error) {
	msg := infer.Message{Role: infer.Assistant}
	thoughts := m.ReasoningContent
	if thoughts == "" {
		thoughts = m.Reasoning
	}
	if thoughts != "" {
		msg.Content = append(msg.Content, &infer.ThinkingPart{Text: thoughts})
	}
	msg.Content = append(msg.Content, content...)
	if m.Refusal != "" {
		msg.Content = append(msg.Content, &infer.TextPart{Text: m.Refusal})
	}
	calls := m.ToolCalls
	if m.FunctionCall != nil {
		calls = append(calls, struct {
			ID       string       `json:"id"`
			Function functionCall `json:"function"`
		}{m.FunctionCall.Name, *m.FunctionCall})
	}
	for i, call := range calls {
		if call.Function.Name == "" {
			return msg, web.Invalid("messages", "%s.tool_calls[%d] has no name", at, i)
		}
		input, err := web.Arguments("messages", fmt.Sprintf("%s.tool_calls[%d]", at, i), call.Function.Arguments)
		if err != nil {
			return msg, err
		}
		msg.Content = append(msg.Content, &infer.CallPart{ID: call.ID, Name: call.Function.Name, Input: input})
	}
	return msg, nil
}

// readContent returns the parts of a message's content, at least one. at is the path of the message,
// for errors. Media become attachments of gen.
func readContent(content jsontext.Value, at string, gen *infer.Generate) ([]infer.Part, error) {
	return web.ReadContent("messages", at, "%s.content must be a string or an array of parts", content, func(i int, p *contentPart) ([]infer.Part, error) {
		part, err := p.read(fmt.Sprintf("%s.content[%d]", at, i), gen)
		return []infer.Part{part}, err
	})
}

func (p *contentPart) read(at string, gen *infer.Generate) (infer.Part, error) {
	switch {
	case (p.Type == "text" || p.Type == "") && p.Text != nil:
		return &infer.TextPart{Text: *p.Text}, nil
	case p.Type == "refusal" && p.Refusal != nil:
		return &infer.TextPart{Text: *p.Refusal}, nil
	case p.Type == "image_url" && p.ImageURL != nil:
		a, err := web.ImageURL(p.ImageURL.URL)
		if err != nil {
			return nil, web.Invalid("messages", "%s: %v", at, err)
		}
		return web.Attach("messages", at, a, gen)
	case p.Type == "input_audio" && p.InputAudio != nil:
		a, err := web.WAV(p.InputAudio.Data, p.InputAudio.Format)
		if err != nil {
			return nil, web.Invalid("messages", "%s: %v", at, err)
		}
		return web.Attach("messages", at, a, gen)
	case p.Type == "text" || p.Type == "refusal" || p.Type == "image_url" || p.Type == "input_audio":
		return nil, web.Invalid("messages", "%s has no %s", at, p.Type)
	}
	return nil, web.Invalid("messages", "%s.type must be one of: text, image_url, input_audio, refusal", at)
}
