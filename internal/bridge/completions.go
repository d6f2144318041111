package bridge

import (
	"time"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire/openai"
)

// completions answers POST /v1/completions.
func (c *call) completions() {
	body, ok := c.read()
	if !ok {
		return
	}
	ask, err := openai.ReadCompletion(body)
	if err != nil {
		c.refuse(err)
		return
	}
	if model, ok := c.prepare(&ask.Ask); ok {
		c.generate(&ask.Ask, &openai.TextAnswer{ID: "cmpl-" + c.id, Model: model, Created: time.Now().Unix(), Request: ask})
	}
}

// rerank answers POST /v1/rerank.
func (c *call) rerank() {
	body, ok := c.read()
	if !ok {
		return
	}
	r, err := openai.ReadRerank(body)
	if err != nil {
		c.refuse(err)
		return
	}
	entry, routed, err := c.bridge.resolve(r.Model, r.Task)
	if err != nil {
		c.refuse(err)
		return
	}
	r.ID, r.Task.Model, r.Model = "rerank-"+c.id, routed, nameOf(r.Model, entry)
	c.ignored(r.Ignored)
	c.exchange(&infer.Request{Task: r.Task}, &reply{call: c, collect: r})
}
