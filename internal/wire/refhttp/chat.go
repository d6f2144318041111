package refhttp

import (
	"fmt"
	"math"
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/client"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// A Chat is a request to complete a chat.
type Chat struct {
	Request *client.Request
	Stream  bool
	// Refused is the error with which the daemon would refuse the request, if the request has a
	// value that a client.Request cannot express, such as a max_tokens of 0. Otherwise it is nil.
	Refused error

	media media
}

// A chatRequest is the decoded body of a request. whole checks the required members.
type chatRequest struct {
	Model    *string       `json:"model"`
	Messages []chatMessage `json:"messages"`

	Stream        bool `json:"stream"`
	StreamOptions *struct {
		IncludeUsage *bool `json:"include_usage"`
	} `json:"stream_options"`
	MaxTokens   *wire.Integer `json:"max_tokens"`
	Temperature *wire.Number  `json:"temperature"`
	TopP        *wire.Number  `json:"top_p"`
	N           *wire.Integer `json:"n"`

	Tools          []tool         `json:"tools"`
	ToolChoice     jsontext.Value `json:"tool_choice"`
	ResponseFormat *struct {
		Type       *string `json:"type"`
		JSONSchema *struct {
			Schema jsontext.Value `json:"schema"`
		} `json:"json_schema"`
	} `json:"response_format"`
}

type tool struct {
	Type     *string `json:"type"`
	Function *struct {
		Name        *string        `json:"name"`
		Description string         `json:"description"`
		Parameters  jsontext.Value `json:"parameters"`
	} `json:"function"`
}

// ReadChat decodes the body of a request. Images and audio stay encoded until [Chat.Decode].
func ReadChat(body []byte) (*Chat, error) {
	var m chatRequest
	if err := unmarshal(body, &m); err != nil {
		return nil, err
	}
	if err := m.whole(); err != nil {
		return nil, err
	}
	c := &Chat{Request: &client.Request{Whole: !m.Stream}, Stream: m.Stream}
	if m.N != nil && !m.N.Is(1) && !m.N.Is(0) {
		return nil, Invalid("n must be 1: one answer at a time is supported")
	}
	if err := c.messages(m.Messages); err != nil {
		return nil, err
	}
	if err := m.tools(c.Request); err != nil {
		return nil, err
	}
	if f := m.ResponseFormat; f != nil && *f.Type == "json_schema" {
		if f.JSONSchema == nil || !web.Present(f.JSONSchema.Schema) {
			return nil, Invalid("response_format.json_schema.schema is missing")
		}
		c.Request.Format.JSONSchema = f.JSONSchema.Schema
	}
	return c, m.numbers(c)
}

// whole returns an error that names the first required member that is missing.
func (m *chatRequest) whole() error {
	switch {
	case m.Model == nil:
		return missing("model")
	case m.Messages == nil:
		return missing("messages")
	case m.StreamOptions != nil && m.StreamOptions.IncludeUsage == nil:
		return missing("stream_options.include_usage")
	case m.ResponseFormat != nil && m.ResponseFormat.Type == nil:
		return missing("response_format.type")
	}
	for i, t := range m.Tools {
		at := fmt.Sprintf("tools[%d]", i)
		switch {
		case t.Type == nil:
			return missing(at + ".type")
		case t.Function == nil:
			return missing(at + ".function")
		case t.Function.Name == nil:
			return missing(at + ".function.name")
		case len(t.Function.Parameters) == 0:
			return missing(at + ".function.parameters")
		}
	}
	for i := range m.Messages {
		if err := m.Messages[i].whole(fmt.Sprintf("messages[%d]", i)); err != nil {
			return err
		}
	}
	return nil
}

// tools checks and copies the tools and tool_choice.
func (m *chatRequest) tools(req *client.Request) error {
	for _, t := range m.Tools {
		one := client.Tool{Name: *t.Function.Name, Description: t.Function.Description}
		if web.Present(t.Function.Parameters) {
			one.InputSchema = t.Function.Parameters
		}
		req.Tools = append(req.Tools, one)
	}
	if !web.Present(m.ToolChoice) {
		return nil
	}
	if len(m.Tools) == 0 {
		return Invalid("tool_choice needs tools")
	}
	word := ""
	if m.ToolChoice.Kind() == jsontext.KindString {
		if err := wire.Unmarshal(m.ToolChoice, &word); err != nil {
			return Invalid("tool_choice is not a word")
		}
	}
	switch word {
	case "auto", "required", "none":
		req.ToolChoice = client.ToolChoice(word)
		return nil
	}
	return Invalid("tool_choice must be one of: auto, required, none")
}

// numbers copies the limit of tokens and the sampling. It returns an error if a value is out of the
// range of its type; the daemon checks all other rules.
func (m *chatRequest) numbers(c *Chat) error {
	if m.MaxTokens != nil {
		n, err := m.MaxTokens.Within("max_tokens", 0)
		if err != nil {
			return Plain(http.StatusUnprocessableEntity, "the body is not a request: %v", err)
		}
		if n == 0 { // in a client.Request 0 means the default
			c.Refused = &client.Error{Code: client.InvalidRequest, Message: "invalid request: max_tokens must be at least 1"}
		}
		c.Request.MaxTokens = n
	}
	for _, of := range []struct {
		member string
		from   *wire.Number
		to     **float64
	}{{"temperature", m.Temperature, &c.Request.Temperature}, {"top_p", m.TopP, &c.Request.TopP}} {
		if of.from == nil {
			continue
		}
		value := float64(*of.from)
		if math.IsInf(value, 0) { // JSON cannot express it
			return Plain(http.StatusUnprocessableEntity, "the body is not a request: %s is out of range", of.member)
		}
		*of.to = &value
	}
	return nil
}
