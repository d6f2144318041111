package bridge

import (
	"time"

	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/responses"
)

var responsesDialect = &dialect{wire.Responses, eventStream, responses.Failure}

// responses answers POST /v1/responses.
func (c *call) responses() {
	ask, ok := decode(c, responses.Read)
	if !ok {
		return
	}
	if model, ok := c.prepare(&ask.Ask); ok {
		c.generate(&ask.Ask, &responses.Answer{ID: c.id, Model: model, Created: time.Now().Unix(), Request: ask})
	}
}
