package v2

import (
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

type message struct {
	Role    infer.Role `json:"role"`    // required
	Content []block    `json:"content"` // required
}

// A block is a content block of a message. Its members depend on its type.
type block struct {
	Type         *string        `json:"type"` // required
	Text         *string        `json:"text,omitzero"`
	AttachmentID *string        `json:"attachment_id,omitzero"`
	ToolCallID   *string        `json:"tool_call_id,omitzero"`
	Name         *string        `json:"name,omitzero"`
	Input        jsontext.Value `json:"input,omitzero"`
	Content      *[]block       `json:"content,omitzero"`
	IsError      bool           `json:"is_error,omitzero"` // of a tool_result block
}

// The types of blocks.
const (
	imageBlock  = "image"
	audioBlock  = "audio"
	videoBlock  = "video"
	useBlock    = "tool_use"
	resultBlock = "tool_result"
)

// media maps types of blocks to the kinds of attachments to which they refer.
var media = map[string]infer.Media{imageBlock: infer.Image, audioBlock: infer.Audio, videoBlock: infer.Video}

// shapeOf checks that blocks have the members that their types require. at is the path of the message
// or the block that contains them, for errors.
func shapeOf(blocks []block, at string) error {
	for j, b := range blocks {
		at := at + ".content[" + strconv.Itoa(j) + "]"
		if b.Type == nil {
			return wire.Missing(at + ".type")
		}
		switch *b.Type {
		case textBlock, thinkingBlock:
			if b.Text == nil {
				return wire.Missing(at + ".text")
			}
		case imageBlock, audioBlock, videoBlock:
			if b.AttachmentID == nil {
				return wire.Missing(at + ".attachment_id")
			}
		case useBlock:
			switch {
			case b.ToolCallID == nil:
				return wire.Missing(at + ".tool_call_id")
			case b.Name == nil:
				return wire.Missing(at + ".name")
			case b.Input == nil:
				return wire.Missing(at + ".input")
			}
		case resultBlock:
			switch {
			case b.ToolCallID == nil:
				return wire.Missing(at + ".tool_call_id")
			case b.Content == nil:
				return wire.Missing(at + ".content")
			}
			if err := shapeOf(*b.Content, at); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkRole returns an error if a message has a part that its role may not have, because templates
// would not show that part to the model. at is the path of the message in the request.
func checkRole(role infer.Role, parts []infer.Part, at string) error {
	for _, part := range parts {
		switch part.(type) {
		case *infer.TextPart, *infer.MediaPart:
		case *infer.ThinkingPart:
			if role != infer.Assistant {
				return onlyAssistant(at, thinkingBlock)
			}
		case *infer.CallPart:
			if role != infer.Assistant {
				return onlyAssistant(at, useBlock)
			}
		case *infer.ResultPart:
			if role == infer.Assistant {
				return wire.Invalid("%s has a %s block, which messages of the assistant may not have", at, resultBlock)
			}
		}
	}
	return nil
}

func onlyAssistant(at, block string) error {
	return wire.Invalid("%s has a %s block, which only messages of the assistant may have", at, block)
}

func isThinking(p infer.Part) bool {
	_, is := p.(*infer.ThinkingPart)
	return is
}

// partsOf converts blocks to parts. at is the path of the message or the block that contains them, for
// errors; kinds has the kinds of attachments by ID.
func partsOf(blocks []block, at string, kinds map[string]infer.Media) ([]infer.Part, error) {
	parts := make([]infer.Part, len(blocks))
	for j, b := range blocks {
		at := at + ".content[" + strconv.Itoa(j) + "]"
		switch *b.Type {
		case textBlock:
			parts[j] = &infer.TextPart{Text: *b.Text}
		case thinkingBlock:
			parts[j] = &infer.ThinkingPart{Text: *b.Text}
		case imageBlock, audioBlock, videoBlock:
			id := *b.AttachmentID
			switch kinds[id] {
			case "":
				return nil, wire.Invalid("%s references unknown attachment_id %.64q", at, id)
			case media[*b.Type]:
				parts[j] = &infer.MediaPart{Attachment: id}
			default:
				return nil, wire.Invalid("%s block expects %s attachment but %.64q is a different kind", at, *b.Type, id)
			}
		case useBlock:
			parts[j] = &infer.CallPart{ID: *b.ToolCallID, Name: *b.Name, Input: b.Input}
		case resultBlock:
			content, err := partsOf(*b.Content, at, kinds)
			if err != nil {
				return nil, err
			}
			if slices.ContainsFunc(content, isThinking) {
				return nil, onlyAssistant(at, thinkingBlock)
			}
			parts[j] = &infer.ResultPart{ID: *b.ToolCallID, Content: content, Failed: b.IsError}
		default:
			return nil, wire.Invalid("%s uses unknown content-block type", at)
		}
	}
	return parts, nil
}
