package config

import (
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/paths"
	"github.com/inferd-go/inferd/internal/settings"
)

// fromFile reads the settings of the file into merged, and its entries into c. It returns the names
// of the variables that hold keys. Errors are recorded in doc.
func (c *Config) fromFile(doc *settings.Document, merged *Flags, env paths.Env) (keys []string) {
	root := doc.Root
	for _, s := range daemonSettings {
		if s.Key == "" {
			continue
		}
		holder := root
		if section, _, inner := strings.Cut(s.Key, "."); inner {
			holder = root.Child(section)
		}
		to := merged
		if merged.IsSet(s.Flag) {
			to = new(Flags) // the flag overrides the member, which is checked nevertheless
		}
		s.Read(holder, to)
	}
	merged.readCatalog(env)
	c.readWords(root, merged)
	keys = append(keys, merged.APIKeyEnv)
	c.HTTP.Keys = readHTTPKeys(root.Child("http"))
	for _, k := range c.HTTP.Keys {
		keys = append(keys, k.Env)
	}
	root.Take("admin_addr") // a member of the reference implementation that this release does not need
	var common backend.Limits
	for _, s := range limitSettings {
		if s.Key == "n_ctx" || s.Key == "n_gpu_layers" {
			s.Read(root, &common)
		}
	}
	switch {
	case root.Has("model") && root.Has("backends"):
		root.Take("model")
		root.Failf("", "model and backends are mutually exclusive")
	case root.Has("model"):
		kind := merged.kinds[0]
		e := &backend.Entry{Name: kind.Name, Limits: merged.over(common, merged.suggested(root.PeekText("model"))), Kind: kind, Settings: kind.New()}
		e.Settings.ReadModel(root, e)
		c.add(root, e)
	case root.Has("backends"):
		entries := root.Children("backends")
		if len(entries) == 0 && merged.autoselect != autoselectAuto {
			root.Failf("backends", "must not be empty")
		}
		for _, o := range entries {
			keys = append(keys, c.readEntry(o, common, merged))
		}
	}
	if merged.autoselect == autoselectAuto {
		c.autoselect(root, common, merged)
	}
	return keys
}

// readWords refuses unknown words in the settings verify and model_autoselect.
func (c *Config) readWords(root *settings.Object, f *Flags) {
	if f.Verify != VerifyOnce && f.Verify != VerifyAlways {
		root.Failf("verify", "%.64q is not known: want once or always", f.Verify)
	}
	if f.autoselect != autoselectOff && f.autoselect != autoselectAuto {
		root.Failf("model_autoselect", "%.64q is not known: off or auto", f.autoselect)
	}
}

// Models that autoselect chooses. GPU memory is not measured, so the generating model is always the
// smaller one.
const (
	autoGenerate  = "gemma-4-e4b"
	autoEmbed     = "embeddinggemma-300m"
	autoEmbedNCtx = 2048
)

// autoselect adds a generating entry, with the given limits, before the other entries. It adds an
// embedding entry after them, unless one of them embeds or reranks. If the file has an entry of an
// engine that neither embeds nor reranks, autoselect adds nothing.
func (c *Config) autoselect(root *settings.Object, limits backend.Limits, f *Flags) {
	kind, embeds := f.kinds[0], false
	for _, e := range c.Backends {
		if e.Kind != kind {
			continue
		}
		role := e.Settings.Role()
		if !role.Encodes {
			return
		}
		embeds = true
	}
	chosen := func(name string, limits backend.Limits) *backend.Entry {
		e := &backend.Entry{Name: name, Limits: f.over(limits, 0), Kind: kind, Settings: kind.New()}
		if err := e.Settings.FromFlags(e, backend.ModelFlags{Name: name}); err != nil {
			root.Failf("model_autoselect", ": %w", err)
		}
		return e
	}
	others := c.Backends
	c.Backends = nil
	c.add(root, chosen(autoGenerate, limits))
	for _, e := range others {
		c.add(root, e)
	}
	if !embeds {
		limits.NCtx = autoEmbedNCtx
		c.add(root, chosen(autoEmbed, limits))
	}
}

// readEntry reads an entry of the file. limits holds the limits at the top of the file, which the
// entry's own override. It returns the name of the variable that holds the entry's key, or an empty
// string.
func (c *Config) readEntry(o *settings.Object, limits backend.Limits, f *Flags) (keyVariable string) {
	var kind string
	o.Text("kind", &kind)
	o.Text("api_key_env", &keyVariable) // of kinds that this release does not serve
	if err := f.checkKind(kind); err != nil {
		o.Failf("kind", "%w", err)
		o.Ignore()
		return keyVariable
	}
	e := &backend.Entry{Kind: f.kind(kind)}
	if o.Text("name", &e.Name); e.Name == "" {
		o.Failf("name", "must not be empty")
	}
	e.Aliases = o.Texts("aliases")
	settings.Of(limitSettings, &limits).Read(o)
	e.Limits = f.over(limits, f.suggested(o.PeekText("model")))
	e.Settings = e.Kind.New()
	c.Warnings = append(c.Warnings, e.Settings.Read(o, e)...)
	c.add(o, e)
	return keyVariable
}

// add checks an entry against the earlier ones, records errors in o, and appends the entry.
func (c *Config) add(o *settings.Object, e *backend.Entry) {
	for _, other := range c.Backends {
		if other.Name == e.Name || slices.Contains(other.Aliases, e.Name) {
			o.Failf("name", "%q is the name or an alias of an earlier entry", e.Name)
		}
	}
	for i, alias := range e.Aliases { // entries may share an alias
		if alias == "" {
			o.FailElementf("aliases", i, "must not be empty")
		}
		if slices.ContainsFunc(c.Backends, func(other *backend.Entry) bool { return other.Name == alias }) {
			o.FailElementf("aliases", i, "%q is the name of an earlier entry", alias)
		}
	}
	if err := check(e); err != nil {
		o.Failf("", ": %w", err)
	}
	c.Backends = append(c.Backends, e)
}

// maxShared bounds the total size of the shared prefixes of an entry, as JSON, in bytes.
const maxShared = 96 << 10

// A sharedPrefix is a text of the config file. The engine of its entry keeps the KV of the text for
// all owners.
type sharedPrefix struct {
	at          *settings.Object
	model, text string // model is the name or alias of the entry; it may be empty if only one entry qualifies
}

func readShared(root *settings.Object) (all []sharedPrefix) {
	for _, o := range root.Children("shared_prefixes") {
		p := sharedPrefix{at: o}
		o.Text("model", &p.model)
		if o.Text("text", &p.text); p.text == "" {
			o.Failf("text", "must not be empty")
		}
		all = append(all, p)
	}
	return all
}

// share adds the shared prefixes to their entries. A prefix is an error of its object if not
// exactly one entry is meant, if that entry keeps no prefixes, or if its prefixes exceed maxShared.
func (c *Config) share(all []sharedPrefix) {
	for _, p := range all {
		targets := c.prefixTargets(p.model)
		switch {
		case len(targets) == 0 && p.model == "":
			p.at.Failf("model", ": no entry generates with an engine")
			continue
		case len(targets) == 0:
			p.at.Failf("model", ": no entry is called %q", p.model)
			continue
		case len(targets) > 1:
			p.at.Failf("model", "must say which entry is meant")
			continue
		case !targets[0].Settings.Role().Prefixes:
			p.at.Failf("model", ": %q does not generate with an engine", p.model)
			continue
		}
		targets[0].Shared = append(targets[0].Shared, p.text)
		if data, err := json.Marshal(targets[0].Shared); err != nil || len(data) > maxShared {
			p.at.Failf("", ": %q has more than %d bytes of shared prefixes", targets[0].Name, maxShared)
		}
	}
}

// prefixTargets returns the entries with that name or alias. For an empty name it returns the entries that
// may have shared prefixes; entries that also embed or rerank are returned only if there are no
// others.
func (c *Config) prefixTargets(name string) (all []*backend.Entry) {
	var encode []*backend.Entry
	for _, e := range c.Backends {
		switch role := e.Settings.Role(); {
		case name != "":
			if e.Name == name || slices.Contains(e.Aliases, name) {
				all = append(all, e)
			}
		case !role.Prefixes:
		case role.Encodes:
			encode = append(encode, e)
		default:
			all = append(all, e)
		}
	}
	if len(all) == 0 {
		return encode
	}
	return all
}
