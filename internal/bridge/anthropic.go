package bridge

import (
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/anthropic"
)

var anthropicDialect = &dialect{wire.Anthropic, eventStream, anthropic.Failure}

// versionHeader is a header that all clients of this dialect send.
const versionHeader = "Anthropic-Version"

// readMessages reads a request of this dialect. model is the model name to give in the answer. ok is
// false if the request was answered with an error.
func (c *call) readMessages() (ask *anthropic.Request, model string, ok bool) {
	if ask, ok = decode(c, anthropic.Read); ok {
		model, ok = c.prepare(&ask.Ask)
	}
	return ask, model, ok
}

// messages answers POST /v1/messages.
func (c *call) messages() {
	if ask, model, ok := c.readMessages(); ok {
		c.generate(&ask.Ask, &anthropic.Answer{ID: c.id, RequestID: c.requestID(), Model: model, Request: ask})
	}
}

// countTokens answers POST /v1/messages/count_tokens. The count needs no slot.
func (c *call) countTokens() {
	if ask, _, ok := c.readMessages(); ok {
		c.exchange(anthropic.Count{}, &infer.Count{Of: ask.Generate}, "")
	}
}
