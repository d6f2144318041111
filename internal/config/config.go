// Package config makes one validated struct of the command line, the environment and
// the config file. It is read by daemon and handed out as plain fields; nothing below
// knows that there is a config. It opens no model and creates nothing.
package config

import (
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/inferd-go/inferd/internal/backend/mock"
	"github.com/inferd-go/inferd/internal/builtin"
	"github.com/inferd-go/inferd/internal/paths"
)

// Defaults of an Entry.
const (
	DefaultNCtx   = 8192
	DefaultNSlots = 4
	maxNSlots     = 64
)

// Sockets are the places of everything that a daemon binds before its config is read.
type Sockets struct {
	Lock, Admin, Control string // paths
	V1                   string // of the v1 generation surface
}

// A Config is what the daemon does.
type Config struct {
	ServeV1 bool
	Group   string

	EngineLib string // folder with llama.cpp's libraries

	ActivePermits int // requests that run at once; 0 is the sum of the slots
	QueueDepth    int // requests that may wait

	ReadyTimeout, WriteTimeout, DrainTimeout time.Duration

	Backends []Backend // at least one; names are unique
	Warnings []string  // for the operator
}

// A Backend is an entry of the config.
type Backend struct {
	Name    string
	Aliases []string
	Entry                 // no field but Threads and NGPULayers is zero
	Model   Model         // of an engine
	Mock    *mock.Backend // nil for an engine
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
	at := env.Socket
	s := Sockets{Lock: env.Lock()}
	if f.UDS != "" {
		at = func(leaf string) string { return filepath.Join(filepath.Dir(f.UDS), leaf) }
		s.Lock = at(paths.LockLeaf)
	}
	s.V1, s.Admin, s.Control = at(paths.V1Leaf), at(paths.AdminLeaf), at(paths.ControlLeaf)
	if f.UDS != "" && filepath.Base(f.UDS) != paths.LPLeaf {
		s.V1 = f.UDS
	}
	for _, set := range []struct {
		flag string
		to   *string
	}{{f.Lock, &s.Lock}, {f.V1Addr, &s.V1}, {f.AdminAddr, &s.Admin}, {f.ControlAddr, &s.Control}} {
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

// Load reads the config file and puts the flags over it.
func Load(f *Flags, env paths.Env) (*Config, error) {
	c := &Config{
		ServeV1: f.V1, Group: f.Group,
		ActivePermits: f.ActivePermits, QueueDepth: f.QueueDepth,
		ReadyTimeout: f.ReadyTimeout, WriteTimeout: f.WriteTimeout, DrainTimeout: f.DrainTimeout,
		Warnings: f.Warnings,
	}
	path := f.ConfigFile
	if path == "" {
		path = env.ConfigFile()
	}
	file, warnings, err := read(path)
	if err != nil {
		return nil, err
	}
	c.Warnings = append(c.Warnings, warnings...)
	if file == nil && f.ConfigFile != "" {
		c.Warnings = append(c.Warnings, path+" does not exist: going on without a config file")
	}
	c.EngineLib = env.EngineDir()
	if file != nil {
		if err := c.fromFile(file, f); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	if f.EngineLib != "" {
		c.EngineLib = f.EngineLib
	}
	if err := c.fromFlags(f); err != nil {
		return nil, err
	}
	if len(c.Backends) == 0 {
		return nil, ErrNoModel
	}
	if c.WriteTimeout == 0 {
		c.Warnings = append(c.Warnings, "--write-timeout-secs 0: a client that does not read keeps its slot for ever")
	}
	return c, nil
}

// fromFlags replaces the entries if the flags name one.
func (c *Config) fromFlags(f *Flags) error {
	switch f.Backend {
	case "mock":
		c.Backends = []Backend{{Name: mock.Kind, Entry: f.or(Entry{}), Mock: &mock.Backend{}}}
		return nil
	case "", "llamacpp":
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
	b := Backend{Name: "llamacpp", Entry: f.or(Entry{}), Model: m}
	if err := b.check(); err != nil {
		return err
	}
	c.Backends = []Backend{b}
	return nil
}

// or fills what e leaves open, from other and then from the defaults.
func (e Entry) or(other Entry) Entry {
	first := func(values ...int) int {
		for _, v := range values {
			if v != 0 {
				return v
			}
		}
		return 0
	}
	return Entry{
		NCtx:       first(e.NCtx, other.NCtx, DefaultNCtx),
		NSlots:     first(e.NSlots, other.NSlots, DefaultNSlots),
		Threads:    first(e.Threads, other.Threads),
		NGPULayers: first(e.NGPULayers, other.NGPULayers),
	}
}

func (c *Config) fromFile(file *file, f *Flags) error {
	if file.Engine != nil && file.Engine.LibDir != "" {
		c.EngineLib = file.Engine.LibDir
	}
	if a := file.Admission; a != nil {
		for _, set := range []struct {
			flag string
			key  string
			from *int
			to   *int
		}{
			{"active-permits", "admission.active_permits", a.ActivePermits, &c.ActivePermits},
			{"queue-depth", "admission.queue_depth", a.QueueDepth, &c.QueueDepth},
		} {
			if set.from == nil || f.given[set.flag] {
				continue
			}
			if *set.from < 0 {
				return fmt.Errorf("%s must not be negative", set.key)
			}
			*set.to = *set.from
		}
	}
	if s := file.Surfaces; s != nil && s.V1 != nil && !f.given["v1"] {
		c.ServeV1 = *s.V1
	}
	switch {
	case file.Model != nil && file.Backends != nil:
		return errors.New("model and backends are mutually exclusive")
	case file.Model != nil:
		b := fileBackend{Kind: "llamacpp", Name: "llamacpp", Model: file.Model, NCtx: file.NCtx, NGPULayers: file.NGPULayers}
		return c.add("", b, f)
	case file.Backends == nil:
		return nil
	case len(*file.Backends) == 0:
		return errors.New("backends must not be empty")
	}
	for i, b := range *file.Backends {
		if b.NCtx == nil {
			b.NCtx = file.NCtx
		}
		if b.NGPULayers == nil {
			b.NGPULayers = file.NGPULayers
		}
		if err := c.add(fmt.Sprintf("backends[%d].", i), b, f); err != nil {
			return err
		}
	}
	return nil
}

// add validates an entry of the file; at is how its keys begin.
func (c *Config) add(at string, fb fileBackend, f *Flags) error {
	b := Backend{Name: fb.Name, Aliases: fb.Aliases}
	own := Entry{}
	for _, set := range []struct {
		key  string
		from *int
		to   *int
		min  int
	}{
		{"n_ctx", fb.NCtx, &own.NCtx, 1},
		{"n_slots", fb.NSlots, &own.NSlots, 1},
		{"threads", fb.Threads, &own.Threads, 0},
		{"n_gpu_layers", fb.NGPULayers, &own.NGPULayers, 0},
	} {
		if set.from == nil {
			continue
		}
		if *set.from < set.min {
			return fmt.Errorf("%s%s must be at least %d", at, set.key, set.min)
		}
		*set.to = *set.from
	}
	b.Entry = f.or(own)
	if b.Name == "" {
		return fmt.Errorf("%sname must not be empty", at)
	}
	for _, other := range c.Backends {
		if other.Name == b.Name || slices.Contains(other.Aliases, b.Name) {
			return fmt.Errorf("%sname %q is taken", at, b.Name)
		}
	}
	switch fb.Kind {
	case "llamacpp":
		if fb.Model == nil {
			return fmt.Errorf("%smodel is missing", at)
		}
		m := fb.Model
		if m.Builtin == "" && m.Path == "" && m.Name != "" {
			return fmt.Errorf("%smodel: models by name need the model store, which this release does not have yet: give path or builtin", at)
		}
		b.Model = Model{Builtin: m.Builtin, Path: m.Path, SHA256: m.SHA256}
		if err := b.Model.check(); err != nil {
			return fmt.Errorf("%smodel: %w", at, err)
		}
	case mock.Kind:
		if !mock.KnowsFailure(fb.PreStreamError) {
			return fmt.Errorf("%spre_stream_error %q is not known", at, fb.PreStreamError)
		}
		b.Mock = &mock.Backend{
			TokenDelay: time.Duration(fb.TokenDelayMS) * time.Millisecond,
			PreStream:  fb.PreStreamError, DropAfter: fb.DropAfter, FailFirst: fb.FailFirst,
		}
		if fb.Tokens != nil {
			b.Mock.Tokens = append([]string{}, *fb.Tokens...)
		}
	case "":
		return fmt.Errorf("%skind is missing", at)
	default:
		return fmt.Errorf("%skind %q is not known: llamacpp or mock", at, fb.Kind)
	}
	if err := b.check(); err != nil {
		return fmt.Errorf("%s: %w", strings.TrimSuffix(at, "."), err)
	}
	c.Backends = append(c.Backends, b)
	return nil
}

func (b *Backend) check() error {
	switch {
	case b.NSlots > maxNSlots:
		return fmt.Errorf("n_slots %d is more than %d", b.NSlots, maxNSlots)
	case b.NCtx < b.NSlots: // each slot holds one token at least
		return fmt.Errorf("n_ctx %d is less than n_slots %d", b.NCtx, b.NSlots)
	}
	return nil
}

func (m Model) check() error {
	switch {
	case m.Builtin == "" && m.Path == "":
		return errors.New("one of path and builtin is needed")
	case m.Builtin != "" && m.Path != "":
		return errors.New("path and builtin are mutually exclusive")
	}
	if m.Builtin != "" {
		if !builtin.Has(m.Builtin) {
			return fmt.Errorf("no built-in model is called %q: there are %s", m.Builtin, strings.Join(builtin.Names(), ", "))
		}
	}
	if m.SHA256 != "" {
		raw, err := hex.DecodeString(m.SHA256)
		if err != nil || len(raw) != 32 || strings.ToLower(m.SHA256) != m.SHA256 {
			return errors.New("sha256 must be 64 lower-case hex digits")
		}
	}
	return nil
}
