package refhttp

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/client"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// A chatMessage is a message of any role.
type chatMessage struct {
	Role      *string        `json:"role"`
	Content   jsontext.Value `json:"content"` // a text, null or parts
	ToolCalls []struct {
		ID       string  `json:"id"`
		Type     *string `json:"type"`
		Function *struct {
			Name      *string `json:"name"`
			Arguments *string `json:"arguments"`
		} `json:"function"`
	} `json:"tool_calls"`
	ToolCallID string `json:"tool_call_id"`

	parts []part // the parts of Content
}

// A part is a part of a message. Its members depend on its type.
type part struct {
	Type     *string `json:"type"`
	Text     *string `json:"text"`
	ImageURL *struct {
		URL *string `json:"url"`
	} `json:"image_url"`
	InputAudio *struct {
		Data *string `json:"data"`
	} `json:"input_audio"`
}

// whole reads the content into m.parts. It returns an error that names the first missing required
// member.
func (m *chatMessage) whole(at string) error {
	if m.Role == nil {
		return missing(at + ".role")
	}
	for i, call := range m.ToolCalls {
		at := fmt.Sprintf("%s.tool_calls[%d]", at, i)
		switch {
		case call.Type == nil:
			return missing(at + ".type")
		case call.Function == nil:
			return missing(at + ".function")
		case call.Function.Name == nil:
			return missing(at + ".function.name")
		case call.Function.Arguments == nil:
			return missing(at + ".function.arguments")
		}
	}
	switch {
	case !web.Present(m.Content):
		return nil
	case m.Content.Kind() == jsontext.KindString:
		var text string
		if err := wire.Unmarshal(m.Content, &text); err != nil {
			return Plain(http.StatusUnprocessableEntity, "the body is not a request: %s.content: %v", at, err)
		}
		kind := "text"
		m.parts = []part{{Type: &kind, Text: &text}}
		return nil
	}
	if err := wire.Unmarshal(m.Content, &m.parts); err != nil {
		return Plain(http.StatusUnprocessableEntity, "the body is not a request: %s.content is neither a string nor a list of parts", at)
	}
	for i, p := range m.parts {
		if err := p.whole(fmt.Sprintf("%s.content[%d]", at, i)); err != nil {
			return err
		}
	}
	return nil
}

// whole returns an error that names the first missing required member. Unknown types have no
// required members.
func (p *part) whole(at string) error {
	if p.Type == nil {
		return missing(at + ".type")
	}
	switch *p.Type {
	case "text":
		if p.Text == nil {
			return missing(at + ".text")
		}
	case "image_url":
		if p.ImageURL == nil || p.ImageURL.URL == nil {
			return missing(at + ".image_url.url")
		}
	case "input_audio":
		if p.InputAudio == nil || p.InputAudio.Data == nil {
			return missing(at + ".input_audio.data")
		}
	}
	return nil
}

// messages adds the messages of a request to c.Request, except for messages that yield no blocks,
// because they have no text, no media, no calls and no result.
func (c *Chat) messages(all []chatMessage) error {
	for i := range all {
		m := &all[i]
		blocks, err := c.read(m, fmt.Sprintf("messages[%d]", i))
		if err != nil {
			return err
		}
		role := client.Role(*m.Role)
		if role == toolRole { // results of tools are parts of a user message
			role = client.User
		}
		if len(blocks) > 0 {
			c.Request.Messages = append(c.Request.Messages, client.Message{Role: role, Blocks: blocks})
		}
	}
	return nil
}

const toolRole = "tool"

// read returns the blocks of a message.
func (c *Chat) read(m *chatMessage, at string) ([]client.Block, error) {
	switch *m.Role {
	case string(client.System), string(client.Assistant), toolRole:
		if m.hasMedia() {
			return nil, Invalid("%s: images and audio belong to messages of the user", at)
		}
	case string(client.User):
	default:
		return nil, Invalid("%s.role must be one of: system, user, assistant, tool", at)
	}
	if *m.Role == toolRole && m.ToolCallID != "" {
		return []client.Block{{Result: &client.ToolResult{ID: m.ToolCallID, Blocks: []client.Block{{Text: m.text()}}}}}, nil
	}
	var blocks []client.Block
	for i, p := range m.parts {
		block, err := c.block(&p, fmt.Sprintf("%s.content[%d]", at, i))
		if err != nil {
			return nil, err
		}
		if block != nil {
			blocks = append(blocks, *block)
		}
	}
	if *m.Role != string(client.Assistant) {
		return blocks, nil
	}
	for i, call := range m.ToolCalls {
		input := jsontext.Value(*call.Function.Arguments)
		if !input.IsValid() {
			return nil, Invalid("%s.tool_calls[%d].function.arguments must be JSON", at, i)
		}
		blocks = append(blocks, client.Block{Call: &client.ToolCall{ID: call.ID, Name: *call.Function.Name, Input: input}})
	}
	return blocks, nil
}

// block converts a part to a block. It returns nil if the part is empty or has an unknown type.
func (c *Chat) block(p *part, at string) (*client.Block, error) {
	switch *p.Type {
	case "text":
		if *p.Text == "" {
			return nil, nil
		}
		return &client.Block{Text: *p.Text}, nil
	case "image_url":
		id, err := c.image(*p.ImageURL.URL, at)
		return &client.Block{Media: id}, err
	case "input_audio":
		id, err := c.audio(*p.InputAudio.Data, at)
		return &client.Block{Media: id}, err
	}
	return nil, nil
}

func (m *chatMessage) hasMedia() bool {
	for _, p := range m.parts {
		if *p.Type == "image_url" || *p.Type == "input_audio" {
			return true
		}
	}
	return false
}

// text returns the text of all parts.
func (m *chatMessage) text() string {
	var text strings.Builder
	for _, p := range m.parts {
		if *p.Type == "text" {
			text.WriteString(*p.Text)
		}
	}
	return text.String()
}
