// Package llamacpp has the settings of entries of kind "llamacpp": the model of an engine, its tasks
// and their contexts. Package engine starts the engines; the two are separate so that a program can
// read a config without linking the supervision of engines.
package llamacpp

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/settings"
)

// Kind is the kind "llamacpp" without Start; engine.Kind is the same kind with Start.
var Kind = backend.Kind{Name: "llamacpp", New: func() backend.Settings { return New() }}

// DefaultEncodeNCtx is the context of a model that embeds or reranks, in tokens.
const DefaultEncodeNCtx = 2048

// Settings are the settings of an entry with an engine.
type Settings struct {
	Model   backend.Model
	Tasks   Tasks
	Pooling string // of vectors: "mean", "cls" or "last"; empty is the model's own
	// Tokens of context to embed and to rerank, even if the tasks are left to the model.
	EmbedNCtx, RerankNCtx int

	written written
}

var _ backend.Settings = (*Settings)(nil)

// New returns the settings of an entry in which no member is set.
func New() *Settings { return &Settings{written: written{generate: true}} }

// Tasks are the settings of an engine's tasks. The zero value leaves them to the model.
type Tasks struct {
	NoGenerate    bool // the engine must not generate
	Embed, Rerank bool // the engine also embeds or reranks, besides generating if the model can
}

// written are the settings as the config or the flags give them, before resolve.
type written struct {
	generate              bool
	embed, rerank         bool
	pooling               settings.Word // a word, or its number in llama.cpp
	embedNCtx, rerankNCtx int           // 0 means the default
}

// rows are the rows of the table of settings. Their flags apply only to the entry of --model or
// --model-path.
var rows = []settings.Setting[written]{
	{Flag: "llamacpp-generate", Key: "generate", Help: "whether the model generates, if it can", At: func(w *written) any { return &w.generate }},
	{Flag: "llamacpp-embed", Key: "embed", Help: "whether it embeds, besides generating if it can (default: the model says)", At: func(w *written) any { return &w.embed }},
	{Flag: "llamacpp-embed-pooling", Key: "embed_pooling", Help: "pooling of its vectors, a `word` or number: mean (1), cls (2) or last (3) (default: the model says, else mean)", At: func(w *written) any { return &w.pooling }},
	{Flag: "llamacpp-embed-n-ctx", Key: "embed_n_ctx", Help: "`tokens` of context to embed with (default 2048)", Least: 1, Most: math.MaxInt32, At: func(w *written) any { return &w.embedNCtx }},
	{Flag: "llamacpp-rerank", Key: "rerank", Help: "whether it reranks, besides generating if it can (default: the model says)", At: func(w *written) any { return &w.rerank }},
	{Flag: "llamacpp-rerank-n-ctx", Key: "rerank_n_ctx", Help: "`tokens` of context to rerank with (default 2048)", Least: 1, Most: math.MaxInt32, At: func(w *written) any { return &w.rerankNCtx }},
}

// Table returns the settings that are in rows.
func (s *Settings) Table() settings.Table { return settings.Of(rows, &s.written) }

// Read reads the members of an entry with an engine.
func (s *Settings) Read(o *settings.Object, e *backend.Entry) (warnings []string) {
	s.Table().Read(o)
	if o.Has("model") {
		s.Model = readModel(o)
	} else {
		o.Failf("model", "is missing")
	}
	if err := s.resolve(e); err != nil {
		o.Failf("embed_pooling", "%w", err)
	}
	for _, name := range []string{"chat_template", "mmproj", "mmproj_image_max_tokens"} {
		if o.Take(name) != nil {
			warnings = append(warnings, o.Key(name)+" has no effect in this release")
		}
	}
	return warnings
}

// ReadModel reads an entry that consists only of a model.
func (s *Settings) ReadModel(o *settings.Object, e *backend.Entry) {
	s.Model = readModel(o)
	_ = s.resolve(e) // it fails only for an unknown pooling, and here the pooling is the default
}

// FromFlags completes the settings of --model or --model-path.
func (s *Settings) FromFlags(e *backend.Entry, m backend.ModelFlags) (err error) {
	switch {
	case m.Path == "" && m.SHA256 != "":
		return errors.New("--model-sha256 needs --model-path")
	case m.Path != "" && m.Name != "":
		return errors.New("--model and --model-path exclude each other")
	case m.Path != "":
		s.Model = backend.Model{Path: m.Path, SHA256: m.SHA256}
		if name, ok := strings.CutPrefix(m.Path, builtinPrefix); ok {
			s.Model = backend.Model{Builtin: name, SHA256: m.SHA256}
		}
		if err := check(s.Model); err != nil {
			return fmt.Errorf("--model-path: %w", err)
		}
	case m.Name != "":
		if s.Model, err = ParseModel(m.Name); err != nil {
			return fmt.Errorf("--model: %w", err)
		}
	default:
		return errors.New("--backend llamacpp needs --model or --model-path")
	}
	if err := s.resolve(e); err != nil {
		return fmt.Errorf("--llamacpp-embed-pooling %w", err)
	}
	return nil
}

// Role returns how the engine uses its context.
func (s *Settings) Role() backend.Role {
	return backend.Role{Generates: !s.Tasks.NoGenerate, Encodes: s.Tasks.encodes(), Prefixes: !s.Tasks.NoGenerate}
}

// encodes reports whether the settings turn on embedding or reranking.
func (t Tasks) encodes() bool { return t.Embed || t.Rerank }

// resolve derives the tasks, their contexts and the pooling from the written values. If the tasks are
// left to the model, embedding and reranking get a context of n_ctx tokens by default. Its error
// concerns the pooling; the caller prefixes the name of that setting.
func (s *Settings) resolve(e *backend.Entry) (err error) {
	w := &s.written
	s.Tasks = Tasks{NoGenerate: !w.generate, Embed: w.embed, Rerank: w.rerank}
	own := e.NCtx
	if s.Tasks.encodes() {
		own = DefaultEncodeNCtx
	}
	s.EmbedNCtx, s.RerankNCtx = cmp.Or(w.embedNCtx, own), cmp.Or(w.rerankNCtx, own)
	s.Pooling, err = pooling(w.pooling)
	return err
}

// pooling returns the name of a pooling, or "" for the model's own.
func pooling(w settings.Word) (string, error) {
	switch w {
	case "0", "none":
		return "", fmt.Errorf("%s means no pooling, which would give a vector for each token: want mean (1), cls (2) or last (3)", string(w))
	case "1":
		return "mean", nil
	case "2":
		return "cls", nil
	case "3":
		return "last", nil
	case "", "mean", "cls", "last":
		return string(w), nil
	}
	return "", fmt.Errorf("%.64q is not known: want mean (1), cls (2) or last (3)", string(w))
}
