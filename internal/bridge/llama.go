package bridge

import (
	"net/http"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire/llama"
	"github.com/inferd-go/inferd/internal/wire/openai"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// generator returns the entry that answers in the dialect of llama.cpp's server, which has only one
// model. Of the entries that generate, it is the one with the given name, or else the first with
// the abilities in need, or else the first. It is empty if no entry generates.
func (b *Bridge) generator(name string, need infer.Abilities) (entry Entry) {
	for _, e := range b.list() {
		switch {
		case !e.Can.Generate:
		case e.hasName(name):
			return e
		case entry.Name == "", !entry.Can.Cover(need) && e.Can.Cover(need):
			entry = e
		}
	}
	return entry
}

// llamaProps answers GET /props.
func (c *call) llamaProps() {
	if !c.ready() {
		return
	}
	e := c.bridge.generator("", infer.Abilities{Generate: true})
	m := llama.Model{Name: e.Name, NCtx: e.NCtx, Slots: e.Slots, Can: e.Can, Template: e.Template}
	c.sendJSON(http.StatusOK, m.Props())
}

// llamaSlots answers GET /slots.
func (c *call) llamaSlots() { c.refuse(llama.Slots()) }

// llamaCompletion answers POST /completion.
func (c *call) llamaCompletion() { c.llamaAnswer(llama.ReadCompletion) }

// llamaInfill answers POST /infill.
func (c *call) llamaInfill() { c.llamaAnswer(llama.ReadInfill) }

func (c *call) llamaAnswer(read func([]byte) (*llama.Completion, error)) {
	ask, ok := decode(c, read)
	if !ok {
		return
	}
	e := c.bridge.generator(ask.Model, infer.Abilities{Infill: ask.Generate.Suffix != nil})
	if !e.hasName(ask.Model) {
		ask.Model = e.Name
	}
	if model, ok := c.prepare(&ask.Ask); ok {
		c.generate(&ask.Ask, &llama.Answer{Request: ask, Model: model, NCtx: e.NCtx})
	}
}

// llamaTokenize answers POST /tokenize.
func (c *call) llamaTokenize() { c.llamaTokens(llama.ReadTokenize) }

// llamaDetokenize answers POST /detokenize.
func (c *call) llamaDetokenize() { c.llamaTokens(llama.ReadDetokenize) }

// llamaTemplate answers POST /apply-template.
func (c *call) llamaTemplate() { c.llamaTokens(llama.ReadTemplate) }

func (c *call) llamaTokens(read func([]byte) (*llama.Tokens, error)) {
	t, ok := decode(c, func(body []byte) (*llama.Tokens, error) {
		t, err := read(body)
		if err == nil && t.Messages != nil {
			err = openai.ReadConversation(t.Messages, t.Tools, t.Task.Of)
		}
		return t, err
	})
	if !ok {
		return
	}
	e := c.bridge.generator(t.Model, infer.Abilities{Count: true, Tools: len(t.Task.Of.Tools) > 0})
	if !e.hasName(t.Model) {
		if t.Strict && t.Model != "" && !c.bridge.AnyModel {
			c.refuse(web.UnknownModel(t.Model))
			return
		}
		t.Model = e.Name
	}
	t.Task.Of.Model, t.NCtx = t.Model, e.NCtx
	c.exchange(t, t.Task, "")
}
