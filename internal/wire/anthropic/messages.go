package anthropic

import (
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/web"
)

type message struct {
	Role    string         `json:"role"`
	Content jsontext.Value `json:"content"` // a text or blocks
}

// A block is an element of the content of a message, of a result or of a document. Its members depend
// on its type.
type block struct {
	Type         string         `json:"type"`
	Text         *string        `json:"text"`
	Thinking     string         `json:"thinking"`
	ID           string         `json:"id"`
	Name         string         `json:"name"`
	Input        jsontext.Value `json:"input"`
	ToolUseID    string         `json:"tool_use_id"`
	IsError      bool           `json:"is_error"`
	Content      jsontext.Value `json:"content"`
	Source       jsontext.Value `json:"source"` // for an image or a document
	Title        string         `json:"title"`
	Context      string         `json:"context"`
	ToolName     string         `json:"tool_name"`
	CacheControl jsontext.Value `json:"cache_control"`
}

// A source is the member source of an image or a document: its data, or the blocks of a document.
type source struct {
	Type      string         `json:"type"`
	MediaType string         `json:"media_type"`
	Data      string         `json:"data"`
	Content   jsontext.Value `json:"content"`
}

// foreign are the types of blocks that only Anthropic's servers produce. A history that began there
// may have such blocks; they are ignored.
var foreign = []string{
	"redacted_thinking", "server_tool_use", "web_search_tool_result", "web_fetch_tool_result", "code_execution_tool_result",
	"bash_code_execution_tool_result", "text_editor_code_execution_tool_result", "tool_search_tool_result", "mcp_tool_use",
	"mcp_tool_result", "container_upload", "compaction", "advisor_tool_result",
}

// billing is the prefix of a text that some clients put before the system message. It is removed: some
// versions of these clients change it in each request, so that the KV of an earlier prompt could never
// be reused (ggml-org/llama.cpp#21793).
const billing = "x-anthropic-billing-header:"

// history reads the system message and the messages. Leading messages with the role system are
// joined to the system message.
func (m *request) history(r *Request) error {
	leading, err := readSystem(m.System, r)
	if err != nil {
		return err
	}
	if len(m.Messages) == 0 {
		return web.Invalid("messages", "messages must not be empty")
	}
	gen := r.Generate
	for i, msg := range m.Messages {
		at := fmt.Sprintf("messages[%d]", i)
		parts, err := readContent(msg.Content, at, inMessage, r)
		if err == nil {
			err = checkRole(msg.Role, parts, at)
		}
		if err != nil {
			return err
		}
		switch msg.Role {
		case "system":
			texts, err := systemTexts(parts, at)
			if err != nil {
				return err
			}
			if len(gen.Messages) == 0 {
				leading = append(leading, texts...)
				continue
			}
			if len(texts) > 0 {
				gen.Messages = append(gen.Messages, infer.TextMessage(infer.System, strings.Join(texts, "\n\n")))
			}
			continue
		case "user", "assistant":
		default:
			return web.Invalid("messages", "%s.role must be one of: user, assistant, system", at)
		}
		web.AddSystem(leading, gen)
		leading = nil
		gen.Messages = append(gen.Messages, infer.Message{Role: infer.Role(msg.Role), Content: parts})
	}
	web.AddSystem(leading, gen) // has an effect only if all messages are system messages
	last := len(gen.Messages) - 1
	switch {
	case last < 0:
		return web.Invalid("messages", "messages has no text")
	case gen.Messages[last].Role == infer.Assistant:
		return web.Invalid("messages", "messages must not end with one of the assistant: an answer is not continued")
	}
	return nil
}

// readSystem returns the texts of the system message, without empty texts and billing.
func readSystem(system jsontext.Value, r *Request) ([]string, error) {
	if !web.Present(system) {
		return nil, nil
	}
	if system.Kind() == jsontext.KindString {
		var text string
		if err := web.Decode("system", system, &text); err != nil {
			return nil, err
		}
		if strings.HasPrefix(text, billing) {
			_, text, _ = strings.Cut(text, "\n")
		}
		if text == "" {
			return nil, nil
		}
		return []string{text}, nil
	}
	var blocks []block
	if err := web.Decode("system", system, &blocks); err != nil {
		return nil, err
	}
	var all []string
	for i, b := range blocks {
		switch {
		case b.Type != "text" || b.Text == nil:
			return nil, web.Invalid("system", "system[%d] must be a text block", i)
		case strings.HasPrefix(*b.Text, billing), *b.Text == "":
		default:
			all = append(all, *b.Text)
		}
		r.IgnorePresent(map[string]jsontext.Value{"cache_control": b.CacheControl})
	}
	return all, nil
}

// systemTexts returns the texts of a message with the role system, without empty texts and billing. It
// returns an error if a part is not text.
func systemTexts(parts []infer.Part, at string) (all []string, err error) {
	for _, part := range parts {
		text, ok := part.(*infer.TextPart)
		switch {
		case !ok:
			return nil, web.Invalid("messages", "%s: a system message takes text only", at)
		case text.Text != "" && !strings.HasPrefix(text.Text, billing):
			all = append(all, text.Text)
		}
	}
	return all, nil
}

// checkRole returns an error if a message has a part that only the other role may have.
func checkRole(role string, parts []infer.Part, at string) error {
	for _, part := range parts {
		wrong := false
		switch part.(type) {
		case *infer.TextPart:
		case *infer.ThinkingPart, *infer.CallPart:
			wrong = role == "user"
		case *infer.MediaPart, *infer.ResultPart:
			wrong = role == "assistant"
		}
		if wrong {
			return web.Invalid("messages", "%s: thinking and tool_use belong to the assistant, media and tool_result to the user", at)
		}
	}
	return nil
}

// A level is the place of a block: in a message, in a result or in a document. Nesting is limited,
// because each level is decoded separately.
type level int

const (
	inMessage level = iota
	inResult
	inDocument
)

// readContent returns the parts of the content of a message, a result or a document, at least one.
// in is the level of its blocks; at is its path in the request, for errors. Media become
// attachments of r.
func readContent(content jsontext.Value, at string, in level, r *Request) ([]infer.Part, error) {
	return web.ReadContent("messages", at, "%s.content must be a string or an array of blocks", content, func(i int, b *block) ([]infer.Part, error) {
		return b.read(fmt.Sprintf("%s.content[%d]", at, i), in, r)
	})
}

// read returns the parts of a block, or none for a block that is ignored.
func (b *block) read(at string, in level, r *Request) ([]infer.Part, error) {
	if web.Present(b.CacheControl) {
		r.Ignore("cache_control")
	}
	switch {
	case b.Type == "text" && b.Text != nil:
		return []infer.Part{&infer.TextPart{Text: *b.Text}}, nil
	case b.Type == "text":
		return nil, web.Invalid("messages", "%s has no text", at)
	case b.Type == "image":
		return b.image(at, r)
	case b.Type == "document" && in < inDocument:
		return b.document(at, r)
	case b.Type == "tool_reference":
		return []infer.Part{&infer.TextPart{Text: b.ToolName}}, nil
	case in > inMessage:
		return nil, web.Invalid("messages", "%s: a result has texts, images and documents only, and a document has no document", at)
	case b.Type == "thinking":
		if b.Thinking == "" {
			return nil, nil
		}
		return []infer.Part{&infer.ThinkingPart{Text: b.Thinking}}, nil
	case b.Type == "tool_use":
		return b.call(at)
	case b.Type == "tool_result":
		return b.result(at, r)
	case slices.Contains(foreign, b.Type):
		r.Ignore("messages." + b.Type)
		return nil, nil
	}
	return nil, web.Invalid("messages", "%s.type must be one of: text, image, tool_use, tool_result, thinking, redacted_thinking, document", at)
}

// call returns the part for a tool call of the model.
func (b *block) call(at string) ([]infer.Part, error) {
	input := []byte("{}")
	switch {
	case b.ID == "":
		return nil, web.Invalid("messages", "%s has no id", at)
	case b.Name == "":
		return nil, web.Invalid("messages", "%s has no name", at)
	case web.Present(b.Input):
		input = b.Input
	}
	return []infer.Part{&infer.CallPart{ID: b.ID, Name: b.Name, Input: input}}, nil
}

// result returns the part for the result of a tool call.
func (b *block) result(at string, r *Request) ([]infer.Part, error) {
	if b.ToolUseID == "" {
		return nil, web.Invalid("messages", "%s has no tool_use_id", at)
	}
	content, err := readContent(b.Content, at, inResult, r)
	if err != nil {
		return nil, err
	}
	return []infer.Part{&infer.ResultPart{ID: b.ToolUseID, Content: content, Failed: b.IsError}}, nil
}

// source returns the source of an image or a document.
func (b *block) source(at string) (s source, err error) {
	if !web.Present(b.Source) || wire.Unmarshal(b.Source, &s) != nil {
		return s, web.Invalid("messages", "%s.source must be an object", at)
	}
	return s, nil
}

// image adds an image to r as an attachment, and returns the part that refers to it.
func (b *block) image(at string, r *Request) ([]infer.Part, error) {
	s, err := b.source(at)
	if err != nil {
		return nil, err
	}
	if s.Type != "base64" {
		return nil, web.Invalid("messages", "%s: an image must have a source of the type base64: nothing is fetched", at)
	}
	a, err := web.Image(s.Data)
	if err != nil {
		return nil, web.Invalid("messages", "%s: %v", at, err)
	}
	part, err := web.Attach("messages", at, a, r.Generate)
	return []infer.Part{part}, err
}

// document returns the text of a document, after its title and its context.
func (b *block) document(at string, r *Request) ([]infer.Part, error) {
	s, err := b.source(at)
	if err != nil {
		return nil, err
	}
	var parts []infer.Part
	for _, text := range []string{b.Title, b.Context} {
		if text != "" {
			parts = append(parts, &infer.TextPart{Text: text + "\n\n"})
		}
	}
	switch s.Type {
	case "text":
		return append(parts, &infer.TextPart{Text: s.Data}), nil
	case "content":
		content, err := readContent(s.Content, at, inDocument, r)
		if err != nil {
			return nil, err
		}
		return append(parts, content...), nil
	}
	return nil, web.Invalid("messages", "%s: a document must be text: its source has the type %.32q", at, s.Type)
}
