package bridge

import (
	"time"

	"github.com/inferd-go/inferd/internal/wire/openai"
)

// completions answers POST /v1/completions.
func (c *call) completions() {
	ask, ok := decode(c, openai.ReadCompletion)
	if !ok {
		return
	}
	if model, ok := c.prepare(&ask.Ask); ok {
		c.generate(&ask.Ask, &openai.TextAnswer{ID: "cmpl-" + c.id, Model: model, Created: time.Now().Unix(), Request: ask})
	}
}

// rerank answers POST /v1/rerank.
func (c *call) rerank() {
	r, ok := decode(c, openai.ReadRerank)
	if !ok {
		return
	}
	entry, routed, ok := c.resolve(r.Model, r.Task)
	if !ok {
		return
	}
	r.ID, r.Task.Model, r.Model = "rerank-"+c.id, routed, nameOf(r.Model, entry)
	c.ignored(r.Ignored)
	c.exchange(r, r.Task, "")
}
