package bridge

import (
	"net/http"
	"time"

	"github.com/inferd-go/inferd/internal/wire/openai"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// chat answers POST /v1/chat/completions.
func (c *call) chat() {
	chat, ok := decode(c, openai.ReadChat)
	if !ok {
		return
	}
	if model, ok := c.prepare(&chat.Ask); ok {
		c.generate(&chat.Ask, &openai.Answer{ID: "chatcmpl-" + c.id, Model: model, Created: time.Now().Unix(), Chat: chat})
	}
}

// embeddings answers POST /v1/embeddings.
func (c *call) embeddings() {
	e, ok := decode(c, openai.ReadEmbeddings)
	if !ok {
		return
	}
	entry, routed, ok := c.resolve(e.Model, e.Task)
	if !ok {
		return
	}
	e.Task.Model, e.Model = routed, nameOf(e.Model, entry)
	c.ignored(e.Ignored)
	c.exchange(e, e.Task, "")
}

// models answers GET /v1/models.
func (c *call) models() {
	if !c.ready() {
		return
	}
	var list []openai.Model
	for _, e := range c.bridge.list() {
		list = append(list, c.bridge.describe(e, e.Name))
	}
	c.sendJSON(http.StatusOK, openai.AppendModels(nil, list))
}

// model answers GET /v1/models/{name}.
func (c *call) model() {
	name := c.below
	if !c.ready() {
		return
	}
	for _, e := range c.bridge.list() {
		if e.hasName(name) {
			m := c.bridge.describe(e, name)
			c.sendJSON(http.StatusOK, m.Append(nil))
			return
		}
	}
	c.refuse(web.UnknownModel(name))
}

func (b *Bridge) describe(e Entry, id string) openai.Model {
	return openai.Model{ID: id, Created: b.started, NCtx: e.NCtx, Params: e.Params, Size: e.Size}
}
