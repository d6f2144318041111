// Package config makes one validated struct of the command line, the environment and
// the config file. It is read by daemon and handed out as plain fields; nothing below
// knows that there is a config. It opens no model and creates nothing.
package config

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/inferd-go/inferd/internal/backend/mock"
	"github.com/inferd-go/inferd/internal/paths"
)

// Defaults of [Limits].
const (
	DefaultNCtx       = 8192
	DefaultEncodeNCtx = 2048 // of a model that embeds or reranks
	DefaultNSlots     = 4
	maxNSlots         = 64
)

// Sockets are the places of everything that a daemon binds.
type Sockets struct {
	Lock, Admin, Control      string // paths
	V1, V2, LP, Embed, Rerank string // of the surfaces
}

// Surfaces are the surfaces that are wanted.
type Surfaces struct{ V1, V2, LP, Embed, Rerank bool }

// A Config holds the settings of a daemon.
type Config struct {
	Common
	TCP TCP

	Backends []Backend // at least one; names are unique
	Warnings []string  // for the operator
}

// Common are the settings that flags, variables and the file give alike.
type Common struct {
	Surfaces Surfaces
	Group    string

	EngineLib string // folder with llama.cpp's libraries

	ActivePermits int // requests that run at once; 0 is the sum of the slots
	QueueDepth    int // requests of one caller that may wait
	QueueTotal    int // requests that may wait in all

	ReadyTimeout, WriteTimeout, DrainTimeout time.Duration
}

// Limits are how much of the machine an entry gets, and what that buys. A zero stands for the
// default.
type Limits struct {
	NCtx       int // tokens of context to generate with, over all slots; default 8192
	NSlots     int // sequences at once; default 4
	Threads    int // compute threads; default: the cores, shared among the engines
	NGPULayers int // layers on a GPU, if there is one; negative is all; default 0
	MaxStallMS int // between two tokens of a stream while prompts are prefilled; default 100, or 4 steps
	// Exact makes the bits of an answer independent of other requests, now and before.
	Exact bool
}

// A Backend is an entry of the config.
type Backend struct {
	Name    string
	Aliases []string
	Limits           // NCtx and NSlots are not zero
	Model   Model    // of an engine
	Tasks   Tasks    // of an engine
	Shared  []string // of an engine that generates: system messages whose KV every owner may use
	Pooling string   // of an engine that embeds: "mean", "cls" or "last"; empty is the model's own
	// Tokens of context to embed and to rerank with, also if the model itself decides on that.
	EmbedNCtx, RerankNCtx int
	Mock                  *Mock // nil for an engine
}

// Kind returns the name of the backend's kind on the wire.
func (b *Backend) Kind() string {
	if b.Mock != nil {
		return mock.Kind
	}
	return llamacppKind
}

// Tasks are the settings of an engine's tasks. The zero value leaves them to the model.
type Tasks struct {
	NoGenerate    bool // generating is switched off
	Embed, Rerank bool // in addition to generating, if the model can generate
}

// encodes reports whether a task beside generating is named.
func (t Tasks) encodes() bool { return t.Embed || t.Rerank }

// A Mock is a backend without a model, with its reported abilities.
type Mock struct {
	mock.Backend
	ReadyAfter                              time.Duration
	V2, Embed, Rerank, Vision, Audio, Tools bool
}

// A Model is where an engine's weights come from: one of Builtin and Path.
type Model struct {
	Builtin string // name of a generated model
	Path    string
	SHA256  string // of the file at Path, lower-case hex; empty trusts it
}

// Locate returns the places that the daemon binds, from the flags alone: they are
// needed before the config is read.
func Locate(f *Flags, env paths.Env) Sockets {
	var dir, main string
	if f.Main != "" {
		dir, main = env.Beside(f.Main)
	}
	at := func(leaf string) string { return env.Socket(dir, leaf) }
	s := Sockets{
		Lock: env.Lock(dir), Admin: at(paths.AdminLeaf), Control: at(paths.ControlLeaf),
		V1: at(paths.V1Leaf), V2: at(paths.V2Leaf), LP: at(paths.LPLeaf),
		Embed: at(paths.EmbedLeaf), Rerank: at(paths.RerankLeaf),
	}
	if main == paths.V1Leaf {
		s.V1 = f.Main
	}
	for _, set := range []struct {
		flag string
		to   *string
	}{
		{f.Lock, &s.Lock},
		{f.Addr.Admin, &s.Admin},
		{f.Addr.Control, &s.Control},
		{f.Addr.V1, &s.V1},
		{f.Addr.V2, &s.V2},
		{f.Addr.LP, &s.LP},
		{f.Addr.Embed, &s.Embed},
		{f.Addr.Rerank, &s.Rerank},
	} {
		if set.flag != "" {
			*set.to = set.flag
		}
	}
	return s
}

// ErrNoModel is returned when nothing says which model to serve.
var ErrNoModel = errors.New(`no model is configured. Name one in one of three ways:
  inferd --model-path FILE.gguf              (--model-sha256 HEX checks it first)
  inferd --model-path builtin:chain          (generated, to try things out)
  a config file, ~/.inferd/config.json or --config FILE, such as
    {"backends":[{"kind":"llamacpp","name":"gen","model":{"path":"/models/model.gguf"}}]}`)

// Load reads the config file and puts the flags over it. If that fails, the config has
// nothing but the warnings up to there.
func Load(f *Flags, env paths.Env) (*Config, error) {
	c := &Config{Warnings: append(env.Warnings(), f.Warnings...)}
	if err := c.load(f, env); err != nil {
		return &Config{Warnings: c.Warnings}, err
	}
	return c, nil
}

func (c *Config) load(f *Flags, env paths.Env) error {
	path := cmp.Or(f.ConfigFile, env.ConfigFile())
	doc, err := open(path)
	merged := *f // the flags, with the file's values where none was given
	var (
		keys   []string
		shared []sharedPrefix
	)
	if doc != nil {
		keys = c.fromFile(doc, &merged)
		shared = readShared(doc.root)
	}
	c.Warnings = append(c.Warnings, f.warnUnknown(keys)...)
	switch {
	case err != nil:
		return err
	case doc != nil:
		c.Warnings = append(c.Warnings, doc.unknown()...)
		if doc.err != nil {
			return doc.err
		}
	case f.ConfigFile != "":
		c.Warnings = append(c.Warnings, path+" does not exist: going on without a config file")
	}
	c.Common = merged.Common
	c.EngineLib = cmp.Or(c.EngineLib, env.EngineDir())
	if err := c.tcp(&merged, env.Getenv); err != nil {
		return err
	}
	if err := c.fromFlags(f); err != nil {
		return err
	}
	if doc != nil {
		if c.share(shared); doc.err != nil {
			return doc.err
		}
	}
	if len(c.Backends) == 0 {
		return ErrNoModel
	}
	if c.WriteTimeout == 0 {
		c.Warnings = append(c.Warnings, "--write-timeout-secs 0: a client that does not read keeps its slot for ever")
	}
	return nil
}

// fromFlags replaces the entries if the flags name one.
func (c *Config) fromFlags(f *Flags) error {
	switch f.Backend {
	case mock.Kind:
		c.Backends = []Backend{{Name: mock.Kind, Limits: f.over(Limits{}), Mock: newMock(mock.Kind)}}
		return nil
	case "", llamacppKind:
	default:
		return fmt.Errorf("--backend %q is not known: llamacpp or mock", f.Backend)
	}
	if f.ModelPath == "" {
		if f.ModelSHA256 != "" {
			return errors.New("--model-sha256 needs --model-path")
		}
		if f.Backend != "" {
			return errors.New("--backend llamacpp needs --model-path")
		}
		return nil
	}
	m := Model{Path: f.ModelPath, SHA256: f.ModelSHA256}
	if name, ok := strings.CutPrefix(f.ModelPath, "builtin:"); ok {
		m = Model{Builtin: name, SHA256: f.ModelSHA256}
	}
	if err := m.check(); err != nil {
		return fmt.Errorf("--model-path: %w", err)
	}
	b := Backend{Name: llamacppKind, Limits: f.over(Limits{}), Model: m}
	b.serveAs(f.model)
	var err error
	if b.Pooling, err = f.model.Pooling.check(); err != nil {
		return fmt.Errorf("--llamacpp-embed-pooling %w", err)
	}
	if err := b.check(); err != nil {
		return err
	}
	c.Backends = []Backend{b}
	return nil
}

// over returns the limits of an entry with the flags' in their place, and with the defaults.
func (f *Flags) over(l Limits) Limits {
	for _, s := range limitSettings {
		if !f.IsSet(s.flag) {
			continue
		}
		switch to := s.at(&l).(type) {
		case *int:
			*to = *s.at(&f.limits).(*int) //nolint:errcheck // of one setting
		case *bool:
			*to = *s.at(&f.limits).(*bool) //nolint:errcheck // as above
		}
	}
	l.NCtx = cmp.Or(l.NCtx, DefaultNCtx)
	l.NSlots = cmp.Or(l.NSlots, DefaultNSlots)
	return l
}

func (b *Backend) check() error {
	switch {
	case b.NSlots > maxNSlots:
		return fmt.Errorf("n_slots %d is more than %d", b.NSlots, maxNSlots)
	case !b.Tasks.NoGenerate && b.NCtx < b.NSlots: // each slot holds one token at least
		return fmt.Errorf("n_ctx %d is less than n_slots %d", b.NCtx, b.NSlots)
	}
	return nil
}
