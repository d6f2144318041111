package bridge

import (
	"net/http"
	"strings"
	"time"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/openai"
)

// ignoredHeader names the members of a request that had no effect.
const ignoredHeader = "Inferd-Ignored"

// read reads the body of a request once the bridge is open. It reports false if the request has
// been answered.
func (c *call) read() ([]byte, bool) {
	body, ok := c.readBody()
	if !ok {
		return nil, false
	}
	return body, c.ready()
}

// ready waits until the entries are known. If that takes too long, it answers and reports false.
func (c *call) ready() bool {
	err := c.bridge.await(c.r.Context())
	switch {
	case err == nil:
		return true
	case c.r.Context().Err() != nil:
		abort()
	}
	c.refuse(err)
	return false
}

// chat answers POST /v1/chat/completions.
func (c *call) chat() {
	body, ok := c.read()
	if !ok {
		return
	}
	chat, err := openai.ReadChat(body)
	if err != nil {
		c.refuse(err)
		return
	}
	entry, routed, err := c.bridge.resolve(chat.Model, chat.Generate)
	if err != nil {
		c.refuse(err)
		return
	}
	chat.Generate.Model = routed
	if entry.Name != "" {
		chat.Offer(entry.Can)
	}
	if entry.Name == "" || entry.Can.Vision { // else it is refused at the router
		if err := c.decodeImages(chat); err != nil {
			c.refuse(err)
			return
		}
	}
	c.ignored(chat.Ignored)
	answer := &openai.Answer{ID: "chatcmpl-" + c.id, Model: nameOf(chat.Model, entry), Created: time.Now().Unix(), Chat: chat}
	r := &reply{call: c, collect: answer.Collect}
	if chat.Stream {
		r.stream = answer.Stream
	}
	c.exchange(&infer.Request{Task: chat.Generate, CacheSalt: chat.CacheSalt}, r)
}

// decoding has room for one request whose images are being decoded.
var decoding = make(chan struct{}, 1)

// decodeImages decodes the images of a request, within its caller's memory.
func (c *call) decodeImages(chat *openai.Chat) error {
	memory := chat.Images()
	if memory == 0 {
		return nil
	}
	if err := c.hold(memory); err != nil {
		return err
	}
	select {
	case decoding <- struct{}{}:
	case <-c.r.Context().Done():
		abort()
	}
	defer func() { <-decoding }()
	return chat.Decode()
}

// embeddings answers POST /v1/embeddings.
func (c *call) embeddings() {
	body, ok := c.read()
	if !ok {
		return
	}
	e, err := openai.ReadEmbeddings(body)
	if err != nil {
		c.refuse(err)
		return
	}
	entry, routed, err := c.bridge.resolve(e.Model, e.Task)
	if err != nil {
		c.refuse(err)
		return
	}
	e.Task.Model, e.Model = routed, nameOf(e.Model, entry)
	c.ignored(e.Ignored)
	c.exchange(&infer.Request{Task: e.Task}, &reply{call: c, collect: e.Collect})
}

// nameOf is the model in an answer: as the client spelled it.
func nameOf(asked string, entry Entry) string {
	if asked == "" {
		return entry.Name
	}
	return asked
}

func (c *call) ignored(names []string) {
	if len(names) > 0 {
		c.w.Header().Set(ignoredHeader, strings.Join(names, ", "))
	}
}

// exchange has a request answered.
func (c *call) exchange(req *infer.Request, r *reply) {
	req.ID, req.Peer = c.requestID(), c.peer
	r.start()
	err := c.bridge.Runner.Run(c.r.Context(), wire.OpenAI, req, r)
	r.stop()
	if err != nil {
		abort()
	}
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
func (c *call) model(name string) {
	if !c.ready() {
		return
	}
	for _, e := range c.bridge.list() {
		if e.is(name) {
			m := c.bridge.describe(e, name)
			c.sendJSON(http.StatusOK, m.Append(nil))
			return
		}
	}
	c.refuse(openai.UnknownModel(name))
}

func (b *Bridge) describe(e Entry, id string) openai.Model {
	return openai.Model{ID: id, Created: b.started, NCtx: e.NCtx, Params: e.Params, Size: e.Size}
}
