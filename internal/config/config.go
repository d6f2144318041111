// Package config builds one validated struct from the command line, the environment and the config
// file. Package daemon reads it and passes its values on as plain fields; no other package of
// internal/ depends on it. The kinds of backends are passed to [ParseFlags]. Each kind owns the
// settings of its entries, so none of these settings are here. The package opens no model, and only
// [Write] creates a file.
package config

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/models"
	"github.com/inferd-go/inferd/internal/paths"
	"github.com/inferd-go/inferd/internal/settings"
)

// Defaults of [backend.Limits], and the maximum of its NSlots.
const (
	DefaultNCtx   = 8192
	DefaultNSlots = 4
	maxNSlots     = 64
)

// Sockets holds the paths of a daemon's sockets and of its lock file.
type Sockets struct {
	Lock, Admin, Control      string // no surfaces
	V1, V2, LP, Embed, Rerank string // of the surfaces
	HTTP                      string
}

// Surfaces has a field for each surface other than HTTP: true if the surface is enabled.
type Surfaces struct{ V1, V2, LP, Embed, Rerank bool }

// A Config holds the settings of a daemon.
type Config struct {
	Common
	TCP  TCP
	HTTP HTTP

	Backends []*backend.Entry // at least one; names are unique
	Warnings []string         // for the operator
}

// Common holds the settings that [Flags] and [Config] share.
type Common struct {
	Surfaces Surfaces
	Group    string

	EngineLib string // folder with llama.cpp's libraries

	ActivePermits int // requests that run at once; 0 is the sum of the slots
	QueueDepth    int // requests of one caller that may wait
	QueueTotal    int // requests that may wait in all

	ReadyTimeout, WriteTimeout, DrainTimeout time.Duration

	Models
}

// Models holds the settings of the model store.
type Models struct {
	ModelsHome string // folder of the model store; never empty in a [Config]
	AutoPull   bool   // pull the models of the config that are missing
	Catalog    string // file with models by name, besides the catalog of the release; may be empty
	Verify     string // VerifyOnce or VerifyAlways
}

// Locate returns the sockets and the lock of the daemon. It does not use the config file, because
// the paths are needed before the file is read.
func Locate(f *Flags, env paths.Env) Sockets {
	var dir, main string
	if f.Main != "" {
		dir, main = env.Beside(f.Main)
	}
	at := func(leaf string) string { return env.Socket(dir, leaf) }
	s := Sockets{
		Lock: env.Lock(dir), Admin: at(paths.AdminLeaf), Control: at(paths.ControlLeaf),
		V1: at(paths.V1Leaf), V2: at(paths.V2Leaf), LP: at(paths.LPLeaf),
		Embed: at(paths.EmbedLeaf), Rerank: at(paths.RerankLeaf), HTTP: at(paths.HTTPLeaf),
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
		{f.Addr.HTTP, &s.HTTP},
	} {
		if set.flag != "" {
			*set.to = set.flag
		}
	}
	return s
}

// ErrNoModel is returned if neither the flags nor the config file name a model to serve.
var ErrNoModel = errors.New(`no model is configured. Name one in one of these ways:
  inferdctl pull NAME, then inferd --model NAME   (such as qwen3-0.6b, or hf:OWNER/REPO)
  inferdctl config init                           (writes a config file with two models, which inferd then pulls)
  inferd --model-path FILE.gguf                   (--model-sha256 HEX checks it first)
  inferd --model-path builtin:chain               (generated, to try things out)
  a config file, ~/.inferd/config.json or --config FILE, such as
    {"backends":[{"kind":"llamacpp","name":"gen","model":"qwen3-0.6b"}]}`)

// Load reads the config file and overrides it with the flags. After an error, the returned config
// holds only the warnings up to that point.
func Load(f *Flags, env paths.Env) (*Config, error) {
	c := &Config{Warnings: append(env.Warnings(), f.Warnings...)}
	merged := *f
	if err := c.load(f, &merged, env); err != nil {
		return &Config{Warnings: c.Warnings}, err
	}
	return c, nil
}

// load fills c from the flags f and the config file. merged must be a copy of f; load adds to it
// the file's value of each setting that no flag has set.
func (c *Config) load(f, merged *Flags, env paths.Env) error {
	path := cmp.Or(f.ConfigFile, env.ConfigFile())
	doc, err := settings.Open(path)
	var (
		keys   []string
		shared []sharedPrefix
	)
	if doc != nil {
		keys = c.fromFile(doc, merged, env)
		shared = readShared(doc.Root)
	} else {
		merged.readCatalog(env)
	}
	c.Warnings = append(c.Warnings, f.warnUnknown(keys)...)
	switch {
	case err != nil:
		return err
	case doc != nil:
		c.Warnings = append(c.Warnings, doc.Unknown()...)
		if err := doc.Err(); err != nil {
			return err
		}
	case f.ConfigFile != "":
		c.Warnings = append(c.Warnings, path+" does not exist: going on without a config file")
	}
	c.Common = merged.Common
	c.EngineLib = cmp.Or(c.EngineLib, env.EngineDir())
	c.ModelsHome = cmp.Or(env.Expand(c.ModelsHome), env.ModelsDir())
	c.Catalog = env.Expand(c.Catalog)
	if err := c.tcp(merged, env.Getenv); err != nil {
		return err
	}
	if err := c.http(merged); err != nil {
		return err
	}
	if err := c.fromFlags(f, merged); err != nil {
		return err
	}
	if doc != nil {
		c.share(shared)
		if err := doc.Err(); err != nil {
			return err
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

// fromFlags replaces the entries of the config file by one entry, if the flags f describe one.
// merged holds the catalog.
func (c *Config) fromFlags(f, merged *Flags) error {
	name := f.Backend
	if name == "" {
		if f.Model == "" && f.ModelPath == "" && f.ModelSHA256 == "" {
			return nil
		}
		name = f.kinds[0].Name
	}
	kind := f.kind(name)
	if kind == nil {
		return fmt.Errorf("--backend %q is not known: want %s", name, f.kindNames())
	}
	e := &backend.Entry{Name: name, Limits: f.over(backend.Limits{}, merged.suggested(f.Model)), Kind: kind, Settings: f.own[name]}
	if err := e.Settings.FromFlags(e, backend.ModelFlags{Name: f.Model, Path: f.ModelPath, SHA256: f.ModelSHA256}); err != nil {
		return err
	}
	if err := check(e); err != nil {
		return err
	}
	c.Backends = []*backend.Entry{e}
	return nil
}

// kind returns the kind of that name, or nil.
func (f *Flags) kind(name string) *backend.Kind {
	for _, k := range f.kinds {
		if k.Name == name {
			return k
		}
	}
	return nil
}

// kindNames lists the kinds for messages.
func (f *Flags) kindNames() string {
	names := make([]string, len(f.kinds))
	for i, k := range f.kinds {
		names[i] = k.Name
	}
	return strings.Join(names, " or ")
}

// checkKind returns an error if the kind of an entry is unknown. In a message, the text of the
// error follows the name of the member.
func (f *Flags) checkKind(kind string) error {
	switch {
	case f.kind(kind) != nil:
		return nil
	case kind == "":
		return errors.New("is missing")
	case kind == "openai-compat", kind == "bedrock-invoke":
		return fmt.Errorf("%q is not served by this release yet: want %s", kind, f.kindNames())
	}
	return fmt.Errorf("%.64q is not known: want %s", kind, f.kindNames())
}

// readCatalog reads the catalog of the release and the file that f.Catalog names, which must be set
// by then. It ignores errors: without a catalog, no context size is suggested, and the daemon,
// which needs the catalog to pull, returns the error.
func (f *Flags) readCatalog(env paths.Env) {
	f.catalog, _ = models.Catalog(env.Expand(f.Catalog))
}

// suggested returns the context size that the catalog gives for a model, in tokens, or 0 if it
// gives none.
func (f *Flags) suggested(model string) int {
	e, _ := f.catalog.Find(model)
	return e.NCtx
}

// over returns the limits l of an entry, with the values of the flags that were set, and with
// defaults for n_ctx and n_slots. suggested is the default of n_ctx; 0 means [DefaultNCtx].
func (f *Flags) over(l backend.Limits, suggested int) backend.Limits {
	for _, s := range limitSettings {
		if !f.IsSet(s.Flag) {
			continue
		}
		switch to := s.At(&l).(type) {
		case *int:
			*to = *s.At(&f.limits).(*int) //nolint:errcheck // the same setting has the same type
		case *bool:
			*to = *s.At(&f.limits).(*bool) //nolint:errcheck // as above
		}
	}
	l.NCtx = cmp.Or(l.NCtx, suggested, DefaultNCtx)
	l.NSlots = cmp.Or(l.NSlots, DefaultNSlots)
	return l
}

// check returns an error for limits that are too large or conflict.
func check(e *backend.Entry) error {
	switch {
	case e.NSlots > maxNSlots:
		return fmt.Errorf("n_slots %d is more than %d", e.NSlots, maxNSlots)
	case e.Settings.Role().Generates && e.NCtx < e.NSlots: // each slot holds at least one token
		return fmt.Errorf("n_ctx %d is less than n_slots %d", e.NCtx, e.NSlots)
	}
	return nil
}
