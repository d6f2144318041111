package overhttp

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/client"
)

// chat is a chat request in OpenAI's dialect, with the members that inferdctl sends.
type chat struct {
	Model       string          `json:"model,omitzero"`
	Messages    []message       `json:"messages"`
	Stream      bool            `json:"stream"`
	StreamWith  map[string]any  `json:"stream_options,omitzero"`
	MaxTokens   int             `json:"max_tokens,omitzero"`
	Temperature *float64        `json:"temperature,omitzero"`
	Seed        *int64          `json:"seed,omitzero"`
	Format      map[string]any  `json:"response_format,omitzero"`
	Tools       []tool          `json:"tools,omitzero"`
	ToolChoice  any             `json:"tool_choice,omitzero"`
	Template    map[string]bool `json:"chat_template_kwargs,omitzero"`
	Budget      int             `json:"reasoning_budget,omitzero"`
}

type message struct {
	Role    client.Role `json:"role"`
	Content string      `json:"content"`
}

type tool struct {
	Type     string   `json:"type"`
	Function function `json:"function"`
}

type function struct {
	Name        string         `json:"name"`
	Description string         `json:"description,omitzero"`
	Parameters  jsontext.Value `json:"parameters,omitzero"`
}

// chatOf converts a request with text messages. If MaxTokens is 0, it sends
// client.DefaultMaxTokens, the default of the sockets, because HTTP has no default. If a field
// has no counterpart in the chat request, the error names it.
func chatOf(req *client.Request) (*chat, error) {
	m := &chat{
		Model: req.Model, Stream: true, StreamWith: map[string]any{"include_usage": true},
		MaxTokens: req.MaxTokens, Temperature: req.Temperature, Seed: req.Seed, Budget: req.ThinkingBudget,
	}
	if m.MaxTokens == 0 {
		m.MaxTokens = client.DefaultMaxTokens
	}
	for _, msg := range req.Messages {
		var text strings.Builder
		for _, b := range msg.Blocks {
			if b.Media != "" || b.Call != nil || b.Result != nil || b.Thinking != "" {
				return nil, errors.New("internal error: only text goes over HTTP")
			}
			text.WriteString(b.Text)
		}
		m.Messages = append(m.Messages, message{msg.Role, text.String()})
	}
	if req.Format.JSONSchema != nil {
		m.Format = map[string]any{"type": "json_schema", "json_schema": map[string]any{
			"name": "answer", "strict": true, "schema": jsontext.Value(req.Format.JSONSchema),
		}}
	}
	for _, t := range req.Tools {
		m.Tools = append(m.Tools, tool{"function", function{t.Name, t.Description, t.InputSchema}})
	}
	switch req.ToolChoice {
	case "":
	case "auto", "required", "none":
		m.ToolChoice = req.ToolChoice
	default:
		m.ToolChoice = map[string]any{"type": "function", "function": map[string]any{"name": req.ToolChoice}}
	}
	if req.Thinking != client.ThinkAuto {
		m.Template = map[string]bool{thinkingWord: req.Thinking == client.ThinkOn}
	}
	return m, checkRest(*req)
}

// thinkingWord is the variable of chat templates that turns thinking on and off.
const thinkingWord = "enable_thinking"

// checkRest returns an error if the request has a field that chatOf does not send. It ignores the
// ID, which only distinguishes the requests on a socket.
func checkRest(rest client.Request) error {
	rest.ID, rest.Model, rest.Messages = "", "", nil
	rest.MaxTokens, rest.Temperature, rest.Seed = 0, nil, nil
	rest.Format.JSONSchema = nil
	rest.Tools, rest.ToolChoice = nil, ""
	rest.Thinking, rest.ThinkingBudget = client.ThinkAuto, 0
	for field, value := range reflect.ValueOf(rest).Fields() {
		if !value.IsZero() {
			return fmt.Errorf("%s does not go over HTTP", field.Name)
		}
	}
	return nil
}
