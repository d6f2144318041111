// Package config makes one validated struct of the command line, the environment and
// the config file. It is read by daemon and handed out as plain fields; nothing below
// knows that there is a config. It opens no model and creates nothing.
package config

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/backend/mock"
	"github.com/inferd-go/inferd/internal/builtin"
	"github.com/inferd-go/inferd/internal/paths"
)

// Defaults of an Entry.
const (
	DefaultNCtx       = 8192
	DefaultEncodeNCtx = 2048 // of a model that embeds or reranks
	DefaultNSlots     = 4
	maxNSlots         = 64
	maxMockMS         = 24 * 60 * 60 * 1000 // of a mock's delays: a day
)

// Sockets are the places of everything that a daemon binds.
type Sockets struct {
	Lock, Admin, Control      string // paths
	V1, V2, LP, Embed, Rerank string // of the surfaces
}

// Surfaces are the ways in that are wanted.
type Surfaces struct{ V1, V2, LP, Embed, Rerank bool }

// A Config is what the daemon does.
type Config struct {
	Surfaces Surfaces
	TCP      TCP
	Group    string

	EngineLib string // folder with llama.cpp's libraries

	ActivePermits int // requests that run at once; 0 is the sum of the slots
	QueueDepth    int // requests of one caller that may wait
	QueueTotal    int // requests that may wait in all

	ReadyTimeout, WriteTimeout, DrainTimeout time.Duration

	Backends []Backend // at least one; names are unique
	Warnings []string  // for the operator
}

// A Backend is an entry of the config.
type Backend struct {
	Name    string
	Aliases []string
	Entry            // no field but Threads, NGPULayers and MaxStallMS is zero
	Model   Model    // of an engine
	Task    Task     // of an engine
	Shared  []string // of an engine that generates: system messages whose beginning is kept for everybody
	Pooling string   // of an engine that embeds: "mean", "cls" or "last"; empty is the model's own
	// Context of an engine by its task, which may turn out when the model is loaded; NCtx is
	// that of Task.
	GenerateNCtx, EmbedNCtx, RerankNCtx int
	Mock                                *Mock // nil for an engine
}

// Kind is what the wire calls the entry's backend.
func (b *Backend) Kind() string {
	if b.Mock != nil {
		return mock.Kind
	}
	return llamacppKind
}

const llamacppKind = "llamacpp"

// Task is what an engine is for. The set is closed.
type Task string

// Tasks.
const (
	Auto   Task = "auto" // the model says
	Embed  Task = "embed"
	Rerank Task = "rerank"
)

// A Mock is a backend without a model, and what it says of itself.
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
	c := &Config{
		Surfaces: f.Surfaces, Group: f.Group,
		ActivePermits: f.ActivePermits, QueueDepth: f.QueueDepth, QueueTotal: f.QueueTotal,
		ReadyTimeout: f.ReadyTimeout, WriteTimeout: f.WriteTimeout, DrainTimeout: f.DrainTimeout,
		Warnings: append(env.Warnings(), f.Warnings...),
	}
	if err := c.load(f, env); err != nil {
		return &Config{Warnings: c.Warnings}, err
	}
	return c, nil
}

func (c *Config) load(f *Flags, env paths.Env) error {
	path := f.ConfigFile
	if path == "" {
		path = env.ConfigFile()
	}
	file, warnings, err := read(path)
	c.Warnings = append(c.Warnings, f.warnUnknown(file.keyVariables())...)
	if err != nil {
		return err
	}
	c.Warnings = append(c.Warnings, warnings...)
	if file == nil && f.ConfigFile != "" {
		c.Warnings = append(c.Warnings, path+" does not exist: going on without a config file")
	}
	c.EngineLib = env.EngineDir()
	var said *fileListen
	if file != nil {
		if err := c.fromFile(file, f); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		said = file.Listen
	}
	if err := c.tcp(said, f, env.Getenv); err != nil {
		return err
	}
	if f.EngineLib != "" {
		c.EngineLib = f.EngineLib
	}
	if err := c.fromFlags(f); err != nil {
		return err
	}
	if file != nil {
		if err := c.share(file.Shared); err != nil {
			return fmt.Errorf("%s: %w", path, err)
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
	case "mock":
		b := Backend{Name: mock.Kind, Entry: f.over(Entry{}), Mock: new(Mock)}
		b.Mock.fill(&fileBackend{Name: mock.Kind})
		c.Backends = []Backend{b}
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
	b := Backend{Name: llamacppKind, Entry: f.over(Entry{}), Model: m}
	if err := b.serveAs(f.Embed, f.Rerank, f.EmbedNCtx, f.RerankNCtx); err != nil {
		return fmt.Errorf("--model-path: %w", err)
	}
	var err error
	if b.Pooling, err = pooling(f.Pooling); err != nil {
		return fmt.Errorf("--llamacpp-embed-pooling %w", err)
	}
	if err := b.check(); err != nil {
		return err
	}
	c.Backends = []Backend{b}
	return nil
}

// over returns an entry's limits with the given flags in their place, and with the defaults.
func (f *Flags) over(e Entry) Entry {
	for _, set := range []struct {
		flag string
		from int
		to   *int
	}{
		{"n-ctx", f.NCtx, &e.NCtx},
		{"n-slots", f.NSlots, &e.NSlots},
		{"threads", f.Threads, &e.Threads},
		{"n-gpu-layers", f.NGPULayers, &e.NGPULayers},
		{"max-stall-ms", f.MaxStallMS, &e.MaxStallMS},
	} {
		if f.Given(set.flag) {
			*set.to = set.from
		}
	}
	e.NCtx = cmp.Or(e.NCtx, DefaultNCtx)
	e.NSlots = cmp.Or(e.NSlots, DefaultNSlots)
	return e
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
			{"queue-total", "admission.queue_total", a.QueueTotal, &c.QueueTotal},
		} {
			if set.from == nil || f.Given(set.flag) {
				continue
			}
			if *set.from < 0 {
				return fmt.Errorf("%s must not be negative", set.key)
			}
			*set.to = *set.from
		}
	}
	if s := file.Surfaces; s != nil {
		for _, set := range []struct {
			flag string
			from *bool
			to   *bool
		}{
			{"v1", s.V1, &c.Surfaces.V1},
			{"v2", s.V2, &c.Surfaces.V2},
			{"lp", s.LP, &c.Surfaces.LP},
			{"embed", s.Embed, &c.Surfaces.Embed},
			{"rerank", s.Rerank, &c.Surfaces.Rerank},
		} {
			if set.from != nil && !f.Given(set.flag) {
				*set.to = *set.from
			}
		}
	}
	switch {
	case file.Model != nil && file.Backends != nil:
		return errors.New("model and backends are mutually exclusive")
	case file.Model != nil:
		b := fileBackend{Kind: llamacppKind, Name: llamacppKind, Model: file.Model, NCtx: file.NCtx, NGPULayers: file.NGPULayers}
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
	if err := checkKind(fb.Kind); err != nil {
		return fmt.Errorf("%s%w", at, err)
	}
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
		{"max_stall_ms", fb.MaxStallMS, &own.MaxStallMS, 0},
		{"n_gpu_layers", fb.NGPULayers, &own.NGPULayers, math.MinInt32}, // negative is all
		{"embed_n_ctx", fb.EmbedNCtx, new(int), 1},
		{"rerank_n_ctx", fb.RerankNCtx, new(int), 1},
	} {
		if set.from == nil {
			continue
		}
		if *set.from < set.min {
			return fmt.Errorf("%s%s must be at least %d", at, set.key, set.min)
		}
		if *set.from > math.MaxInt32 {
			return fmt.Errorf("%s%s must be at most %d", at, set.key, math.MaxInt32)
		}
		*set.to = *set.from
	}
	b.Entry = f.over(own)
	if b.Name == "" {
		return fmt.Errorf("%sname must not be empty", at)
	}
	for _, other := range c.Backends {
		if other.Name == b.Name || slices.Contains(other.Aliases, b.Name) {
			return fmt.Errorf("%sname %q is taken", at, b.Name)
		}
	}
	for i, alias := range b.Aliases { // entries may share one
		if alias == "" {
			return fmt.Errorf("%saliases[%d] must not be empty", at, i)
		}
		if slices.ContainsFunc(c.Backends, func(other Backend) bool { return other.Name == alias }) {
			return fmt.Errorf("%saliases[%d] %q is the name of another", at, i, alias)
		}
	}
	switch fb.Kind {
	case llamacppKind:
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
		if err := b.serveAs(deref(fb.Embed), deref(fb.Rerank), deref(fb.EmbedNCtx), deref(fb.RerankNCtx)); err != nil {
			return fmt.Errorf("%s%w", at, err)
		}
		var err error
		if b.Pooling, err = pooling(string(fb.Pooling)); err != nil {
			return fmt.Errorf("%sembed_pooling %w", at, err)
		}
		c.warnUnused(at, fb)
	case mock.Kind:
		if !mock.KnowsFailure(fb.PreStreamError) {
			return fmt.Errorf("%spre_stream_error %q is not known", at, fb.PreStreamError)
		}
		for _, task := range fb.Unsupported {
			if task != "embed" && task != "rerank" {
				return fmt.Errorf("%sunsupported %q is not known: embed or rerank", at, task)
			}
		}
		for _, knob := range []struct {
			key         string
			value, most int
		}{
			{"token_delay_ms", fb.TokenDelayMS, maxMockMS},
			{"ready_after_ms", fb.ReadyAfterMS, maxMockMS},
			{"mid_stream_drop_after", fb.DropAfter, math.MaxInt},
			{"not_ready_after", fb.NotReadyAfter, math.MaxInt},
			{"fail_first", fb.FailFirst, math.MaxInt},
			{"embed_dimensions", fb.Dimensions, mock.MaxDimensions},
		} {
			if knob.value < 0 || knob.value > knob.most {
				return fmt.Errorf("%s%s must be between 0 and %d", at, knob.key, knob.most)
			}
		}
		b.Mock = new(Mock)
		b.Mock.fill(&fb)
	}
	if err := b.check(); err != nil {
		return fmt.Errorf("%s: %w", strings.TrimSuffix(at, "."), err)
	}
	c.Backends = append(c.Backends, b)
	return nil
}

// maxShared is how many bytes the shared prefixes of an entry may have together, as JSON: they
// travel in a variable of the engine's, of which Linux takes 128 KiB.
const maxShared = 96 << 10

// share gives the shared prefixes to the entries that they are for. The model may be left
// out where only one entry can be meant.
func (c *Config) share(all []fileShared) error {
	for i, p := range all {
		at := fmt.Sprintf("shared_prefixes[%d]", i)
		if p.Text == "" {
			return fmt.Errorf("%s.text must not be empty", at)
		}
		var meant []*Backend
		for j := range c.Backends {
			b := &c.Backends[j]
			if p.Model == "" && b.Mock == nil && b.Task == Auto || p.Model != "" && (b.Name == p.Model || slices.Contains(b.Aliases, p.Model)) {
				meant = append(meant, b)
			}
		}
		switch {
		case len(meant) == 0:
			return fmt.Errorf("%s.model: no entry is called %q", at, p.Model)
		case len(meant) > 1:
			return fmt.Errorf("%s.model must say which entry is meant", at)
		case meant[0].Mock != nil || meant[0].Task != Auto:
			return fmt.Errorf("%s.model: %q does not generate with an engine", at, p.Model)
		}
		meant[0].Shared = append(meant[0].Shared, p.Text)
		if data, err := json.Marshal(meant[0].Shared); err != nil || len(data) > maxShared {
			return fmt.Errorf("%s: %q has more than %d bytes of shared prefixes", at, meant[0].Name, maxShared)
		}
	}
	return nil
}

// fill takes the knobs of an entry.
func (m *Mock) fill(fb *fileBackend) {
	yes := func(b *bool) bool { return b == nil || *b }
	m.TokenDelay = time.Duration(fb.TokenDelayMS) * time.Millisecond
	m.PreStream = fb.PreStreamError
	m.DropAfter = fb.DropAfter
	m.ToolUse = fb.EmitToolUse
	m.Thoughts = fb.Thoughts
	m.FailFirst = fb.FailFirst
	m.NotReadyAfter = fb.NotReadyAfter
	m.Dimensions = fb.Dimensions
	m.NoEmbed = slices.Contains(fb.Unsupported, "embed")
	m.NoRerank = slices.Contains(fb.Unsupported, "rerank")
	m.NoV2 = !yes(fb.V2)
	m.Name = fb.Name
	if fb.Tokens != nil {
		m.Tokens = append([]string{}, *fb.Tokens...)
	}
	m.ReadyAfter = time.Duration(fb.ReadyAfterMS) * time.Millisecond
	m.V2, m.Embed, m.Rerank = yes(fb.V2), yes(fb.Embed), yes(fb.Rerank)
	m.Vision, m.Audio, m.Tools = fb.Vision, fb.Audio, fb.Tools
}

// serveAs says what an engine is for. One that embeds or reranks does only that, on a
// context of its own size.
func (b *Backend) serveAs(embed, rerank bool, embedNCtx, rerankNCtx int) error {
	b.Task, b.GenerateNCtx = Auto, b.NCtx
	b.EmbedNCtx, b.RerankNCtx = cmp.Or(embedNCtx, b.NCtx), cmp.Or(rerankNCtx, b.NCtx)
	switch {
	case embed && rerank:
		return errors.New("embed and rerank are mutually exclusive: give each its own entry")
	case embed:
		b.EmbedNCtx = cmp.Or(embedNCtx, DefaultEncodeNCtx)
		b.Task, b.NCtx = Embed, b.EmbedNCtx
	case rerank:
		b.RerankNCtx = cmp.Or(rerankNCtx, DefaultEncodeNCtx)
		b.Task, b.NCtx = Rerank, b.RerankNCtx
	}
	return nil
}

// poolings are the values of embed_pooling, by our words and by the reference's numbers.
var poolings = map[string]string{
	"": "", "mean": "mean", "cls": "cls", "last": "last", "1": "mean", "2": "cls", "3": "last",
}

// pooling returns our word for a value of embed_pooling. The error follows the name of the
// setting.
func pooling(value string) (string, error) {
	word, ok := poolings[value]
	switch {
	case value == "0" || value == "none":
		return "", fmt.Errorf("%s is no pooling, which would give a vector for each token: want mean (1), cls (2) or last (3)", value)
	case !ok:
		return "", fmt.Errorf("%.64q is not known: want mean (1), cls (2) or last (3)", value)
	}
	return word, nil
}

// deref returns *p, or zero if there is none.
func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// warnUnused names what an entry says and this release does not do yet.
func (c *Config) warnUnused(at string, fb fileBackend) {
	for _, key := range []struct {
		name  string
		value jsontext.Value
	}{{"chat_template", fb.ChatTemplate}, {"mmproj", fb.MMProj}, {"mmproj_image_max_tokens", fb.MMProjTokens}} {
		if key.value != nil && key.value.Kind() != jsontext.KindNull {
			c.Warnings = append(c.Warnings, at+key.name+" has no effect in this release")
		}
	}
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
