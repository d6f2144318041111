package bridge

import (
	"net/http"

	"github.com/inferd-go/inferd/internal/wire/ollama"
)

// ollamaRoot answers GET /. Clients use it to check whether a server runs.
func (c *call) ollamaRoot() {
	c.send(http.StatusOK, "text/plain; charset=utf-8", []byte(ollama.Running))
}

// ollamaVersion answers GET /api/version.
func (c *call) ollamaVersion() {
	c.sendJSON(http.StatusOK, []byte(`{"version":"`+ollama.Version+`"}`))
}

// ollamaTags answers GET /api/tags.
func (c *call) ollamaTags() {
	if c.ready() {
		c.sendJSON(http.StatusOK, ollama.Tags(c.bridge.ollamaModels()))
	}
}

// ollamaProcesses answers GET /api/ps.
func (c *call) ollamaProcesses() {
	if c.ready() {
		c.sendJSON(http.StatusOK, ollama.Processes(c.bridge.ollamaModels()))
	}
}

func (b *Bridge) ollamaModels() (all []ollama.Model) {
	for _, e := range b.list() {
		all = append(all, b.ollamaModel(e))
	}
	return all
}

func (b *Bridge) ollamaModel(e Entry) ollama.Model {
	return ollama.Model{
		Name: e.Name, Modified: b.started, Size: e.Size, Params: e.Params, OnGPU: e.OnGPU, Digest: e.Digest,
		Family: e.Architecture, Quantization: e.Quantization, NCtx: e.NCtx, Can: e.Can, Template: e.Template,
	}
}

// ollamaEntry returns the entry with a name, with or without the tag latest. spelled is the
// spelling that the entry has as a name or alias. ok is false if there is no such entry.
func (b *Bridge) ollamaEntry(name string) (entry Entry, spelled string, ok bool) {
	for _, spelled := range []string{name, ollama.OtherSpelling(name)} {
		for _, e := range b.list() {
			if e.hasName(spelled) {
				return e, spelled, true
			}
		}
	}
	return Entry{}, "", false
}

// ollamaFind calls ollamaEntry. If no entry has the name, it returns an empty entry if the name is
// empty or AnyModel is set. Otherwise it refuses the request, and ok is false.
func (c *call) ollamaFind(name string) (entry Entry, spelled string, ok bool) {
	if entry, spelled, ok = c.bridge.ollamaEntry(name); ok {
		return entry, spelled, true
	}
	if name == "" || c.bridge.AnyModel {
		return Entry{}, name, true
	}
	c.refuse(ollama.UnknownModel(name))
	return Entry{}, "", false
}

// ollamaShow answers POST /api/show.
func (c *call) ollamaShow() {
	asked, ok := decode(c, ollama.ReadName)
	if !ok {
		return
	}
	e, _, ok := c.ollamaFind(asked.Name)
	switch {
	case !ok:
	case e.Name == "": // no entry has the name, and no other one is shown in its place
		c.refuse(ollama.UnknownModel(asked.Name))
	default:
		m := c.bridge.ollamaModel(e)
		c.sendJSON(http.StatusOK, m.Show())
	}
}

// lines returns the content type of an answer: lines of JSON for a stream, otherwise JSON.
func lines(stream bool) string {
	if stream {
		return ollama.ContentType
	}
	return "application/json"
}

// ollamaUnsupported refuses requests that would change the daemon's models.
func (c *call) ollamaUnsupported() { c.refuse(ollama.Unsupported(c.r.URL.Path)) }

// ollamaChat answers POST /api/chat.
func (c *call) ollamaChat() { c.ollamaAnswer(ollama.ReadChat) }

// ollamaGenerate answers POST /api/generate.
func (c *call) ollamaGenerate() { c.ollamaAnswer(ollama.ReadGenerate) }

func (c *call) ollamaAnswer(read func([]byte) (*ollama.Request, error)) {
	ask, ok := decode(c, read)
	if !ok {
		return
	}
	asked := ask.Model
	_, spelled, ok := c.ollamaFind(asked)
	if !ok {
		return
	}
	a := &ollama.Answer{Request: ask, Model: asked}
	if ask.Load {
		c.ignored(ask.Ignored)
		c.send(http.StatusOK, lines(ask.Stream), a.Loaded())
		return
	}
	ask.Model = spelled
	model, ok := c.prepare(&ask.Ask)
	if !ok {
		return
	}
	if asked == "" {
		a.Model = model
	}
	c.generate(&ask.Ask, a)
}

// ollamaEmbed answers POST /api/embed.
func (c *call) ollamaEmbed() { c.ollamaVectors(ollama.ReadEmbed) }

// ollamaEmbeddings answers POST /api/embeddings, the older form of /api/embed.
func (c *call) ollamaEmbeddings() { c.ollamaVectors(ollama.ReadEmbeddings) }

func (c *call) ollamaVectors(read func([]byte) (*ollama.Embeddings, error)) {
	e, ok := decode(c, read)
	if !ok {
		return
	}
	_, spelled, ok := c.ollamaFind(e.Model)
	if !ok {
		return
	}
	entry, routed, ok := c.resolve(spelled, e.Task)
	if !ok {
		return
	}
	e.Task.Model, e.Model = routed, nameOf(e.Model, entry)
	c.ignored(e.Ignored)
	if len(e.Task.Inputs) == 0 {
		c.sendJSON(http.StatusOK, e.Loaded())
		return
	}
	c.exchange(e, e.Task, "")
}
