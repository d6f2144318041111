// Package llamacpp has the settings of entries of kind "llamacpp": the model of an engine, its tasks
// and their contexts. It starts nothing: package engine does, so that a program can read a config
// without the supervision of engines.
package llamacpp

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/builtin"
	"github.com/inferd-go/inferd/internal/settings"
)

// Kind has no Start, see package engine.
var Kind = backend.Kind{Name: "llamacpp", New: func() backend.Settings { return New() }}

// DefaultEncodeNCtx is the context of a model that embeds or reranks, in tokens.
const DefaultEncodeNCtx = 2048

// Settings are the settings of an entry with an engine.
type Settings struct {
	Model   Model
	Tasks   Tasks
	Pooling string // of vectors: "mean", "cls" or "last"; empty is the model's own
	// Tokens of context to embed and to rerank, even if the tasks are left to the model.
	EmbedNCtx, RerankNCtx int

	written written
}

var _ backend.Settings = (*Settings)(nil)

// New returns the settings of an entry without a member.
func New() *Settings { return &Settings{written: written{generate: true}} }

// Tasks are the settings of an engine's tasks. The zero value leaves them to the model.
type Tasks struct {
	NoGenerate    bool // generating is switched off
	Embed, Rerank bool // in addition to generating, if the model can generate
}

// A Model is the source of an engine's weights: either Builtin or Path.
type Model struct {
	Builtin string // name of a generated model
	Path    string
	SHA256  string // of the file at Path, lower-case hex; empty trusts it
}

// written are the settings as they are written.
type written struct {
	generate              bool
	embed, rerank         bool
	pooling               settings.Word // a word of ours, or a number of the reference
	embedNCtx, rerankNCtx int           // 0 is the default
}

// rows are the settings with a row. A flag applies only to the entry of --model-path.
var rows = []settings.Setting[written]{
	{Flag: "llamacpp-generate", Key: "generate", Help: "whether the model generates, if it can", At: func(w *written) any { return &w.generate }},
	{Flag: "llamacpp-embed", Key: "embed", Help: "whether it embeds, besides generating if it can (default: the model says)", At: func(w *written) any { return &w.embed }},
	{Flag: "llamacpp-embed-pooling", Key: "embed_pooling", Help: "pooling of its vectors, a `word` or number: mean (1), cls (2) or last (3) (default: the model says, else mean)", At: func(w *written) any { return &w.pooling }},
	{Flag: "llamacpp-embed-n-ctx", Key: "embed_n_ctx", Help: "`tokens` of context to embed with (default 2048)", Least: 1, Most: math.MaxInt32, At: func(w *written) any { return &w.embedNCtx }},
	{Flag: "llamacpp-rerank", Key: "rerank", Help: "whether it reranks, besides generating if it can (default: the model says)", At: func(w *written) any { return &w.rerank }},
	{Flag: "llamacpp-rerank-n-ctx", Key: "rerank_n_ctx", Help: "`tokens` of context to rerank with (default 2048)", Least: 1, Most: math.MaxInt32, At: func(w *written) any { return &w.rerankNCtx }},
}

// Table returns the settings of the tasks.
func (s *Settings) Table() settings.Table { return settings.Of(rows, &s.written) }

// Read reads the members of an entry with an engine.
func (s *Settings) Read(o *settings.Object, e *backend.Entry) (warnings []string) {
	s.Table().Read(o)
	if o.Has("model") {
		s.Model = readModel(o.Child("model"))
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

// ReadModel reads an entry with only a model.
func (s *Settings) ReadModel(o *settings.Object, e *backend.Entry) {
	s.Model = readModel(o)
	_ = s.resolve(e) // the default pooling is right
}

// FromFlags completes the settings of --model-path.
func (s *Settings) FromFlags(e *backend.Entry, path, sha256 string) error {
	switch {
	case path == "" && sha256 != "":
		return errors.New("--model-sha256 needs --model-path")
	case path == "":
		return errors.New("--backend llamacpp needs --model-path")
	}
	s.Model = Model{Path: path, SHA256: sha256}
	if name, ok := strings.CutPrefix(path, "builtin:"); ok {
		s.Model = Model{Builtin: name, SHA256: sha256}
	}
	if err := s.Model.check(); err != nil {
		return fmt.Errorf("--model-path: %w", err)
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

// encodes reports whether a task beside generating is named.
func (t Tasks) encodes() bool { return t.Embed || t.Rerank }

// resolve derives the tasks, the context of each, and the pooling from the written values. If the
// tasks are left to the model, it embeds or reranks with a context of n_ctx tokens. The error is about
// the pooling, and is to follow the name of the setting.
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

// pooling returns the name of a pooling.
func pooling(w settings.Word) (string, error) {
	switch w {
	case "0", "none":
		return "", fmt.Errorf("%s is no pooling, which would give a vector for each token: want mean (1), cls (2) or last (3)", string(w))
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

// readModel reads the source of the weights of an entry.
func readModel(o *settings.Object) (m Model) {
	var name, url string
	for key, to := range map[string]*string{"builtin": &m.Builtin, "path": &m.Path, "sha256": &m.SHA256, "name": &name, "source_url": &url} {
		o.Text(key, to)
	}
	for _, unused := range []string{"size_bytes", "license"} {
		o.Take(unused)
	}
	switch {
	case m.Builtin == "" && m.Path == "" && name != "":
		o.Failf("", ": models by name need the model store, which this release does not have yet: give path or builtin")
	default:
		if err := m.check(); err != nil {
			o.Failf("", ": %w", err)
		}
	}
	return m
}

func (m Model) check() error {
	switch {
	case m.Builtin == "" && m.Path == "":
		return errors.New("one of path and builtin is needed")
	case m.Builtin != "" && m.Path != "":
		return errors.New("path and builtin are mutually exclusive")
	case m.Builtin != "" && !builtin.Has(m.Builtin):
		return fmt.Errorf("no built-in model is called %q: there are %s", m.Builtin, strings.Join(builtin.Names(), ", "))
	case m.SHA256 == "":
		return nil
	}
	raw, err := hex.DecodeString(m.SHA256)
	if err != nil || len(raw) != 32 || strings.ToLower(m.SHA256) != m.SHA256 {
		return errors.New("sha256 must be 64 lower-case hex digits")
	}
	return nil
}
