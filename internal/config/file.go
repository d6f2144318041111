package config

import (
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// open returns the config file, or nil if there is none.
func open(path string) (*document, error) {
	data, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // no file is no error
	}
	if err != nil {
		return nil, err // names the file
	}
	return parse(path, data)
}

// fromFile reads the file: its settings into merged, and its entries. It returns the names of
// the variables that hold keys. Errors are the document's.
func (c *Config) fromFile(doc *document, merged *Flags) (keys []string) {
	root := doc.root
	for _, s := range settings {
		if s.key == "" {
			continue
		}
		section, _, _ := strings.Cut(s.key, ".")
		to := merged
		if merged.IsSet(s.flag) {
			to = new(Flags) // the flag holds; the member is checked all the same
		}
		s.read(root.child(section), to)
	}
	keys = append(keys, merged.APIKeyEnv)
	for _, name := range []string{"auto_pull", "models_home", "admin_addr", "model_autoselect", "model_autoselect_min_vram_gib"} {
		root.take(name) // of the reference; nothing in this release needs them
	}
	var common Limits
	for _, s := range limitSettings {
		if s.key == "n_ctx" || s.key == "n_gpu_layers" {
			s.read(root, &common)
		}
	}
	switch {
	case root.has("model") && root.has("backends"):
		root.child("model")
		doc.failf("", "model and backends are mutually exclusive")
	case root.has("model"):
		b := Backend{Name: llamacppKind, Limits: merged.over(common), Model: readModel(root.child("model"))}
		b.serveAs(defaultEngineOptions())
		c.add(doc, "", b)
	case root.has("backends"):
		entries := root.children("backends")
		if len(entries) == 0 {
			doc.failf("/backends", "must not be empty")
		}
		for _, o := range entries {
			keys = append(keys, c.readEntry(o, common, merged))
		}
	}
	return keys
}

// readEntry reads an entry of the file, and returns the name of the variable that holds its key.
func (c *Config) readEntry(o *object, limits Limits, f *Flags) (keyVariable string) {
	var kind string
	o.text("kind", &kind)
	o.text("api_key_env", &keyVariable) // of kinds that this release does not serve
	if err := checkKind(kind); err != nil {
		o.failf("kind", "%w", err)
		o.foreign = true
		return keyVariable
	}
	var b Backend
	if o.text("name", &b.Name); b.Name == "" {
		o.failf("name", "must not be empty")
	}
	b.Aliases = o.texts("aliases")
	for _, s := range limitSettings {
		s.read(o, &limits)
	}
	b.Limits = f.over(limits)
	c.Warnings = append(c.Warnings, kinds[kind](o, &b)...)
	c.add(o.doc, o.at, b)
	return keyVariable
}

// add checks an entry beside the others, and appends it.
func (c *Config) add(doc *document, at jsontext.Pointer, b Backend) {
	for _, other := range c.Backends {
		if other.Name == b.Name || slices.Contains(other.Aliases, b.Name) {
			doc.failf(at.AppendToken("name"), "%q is taken", b.Name)
		}
	}
	for i, alias := range b.Aliases { // entries may share one
		place := at.AppendToken("aliases").AppendToken(strconv.Itoa(i))
		if alias == "" {
			doc.failf(place, "must not be empty")
		}
		if slices.ContainsFunc(c.Backends, func(other Backend) bool { return other.Name == alias }) {
			doc.failf(place, "%q is the name of another", alias)
		}
	}
	if err := b.check(); err != nil {
		doc.failf(at, ": %w", err)
	}
	c.Backends = append(c.Backends, b)
}

// maxShared is how many bytes the shared prefixes of an entry may have together, as JSON.
const maxShared = 96 << 10

// A sharedPrefix is a text of the config file whose KV an entry is to keep for all owners.
type sharedPrefix struct {
	at          *object
	model, text string // model is the name or alias of the entry; empty where only one can be meant
}

func readShared(root *object) (all []sharedPrefix) {
	for _, o := range root.children("shared_prefixes") {
		p := sharedPrefix{at: o}
		o.text("model", &p.model)
		if o.text("text", &p.text); p.text == "" {
			o.failf("text", "must not be empty")
		}
		all = append(all, p)
	}
	return all
}

// share gives the shared prefixes to their entries.
func (c *Config) share(all []sharedPrefix) {
	for _, p := range all {
		meant := c.meant(p.model)
		switch {
		case len(meant) == 0 && p.model == "":
			p.at.failf("model", ": no entry generates with an engine")
			continue
		case len(meant) == 0:
			p.at.failf("model", ": no entry is called %q", p.model)
			continue
		case len(meant) > 1:
			p.at.failf("model", "must say which entry is meant")
			continue
		case !meant[0].mayGenerate():
			p.at.failf("model", ": %q does not generate with an engine", p.model)
			continue
		}
		meant[0].Shared = append(meant[0].Shared, p.text)
		if data, err := json.Marshal(meant[0].Shared); err != nil || len(data) > maxShared {
			p.at.doc.failf(p.at.at, ": %q has more than %d bytes of shared prefixes", meant[0].Name, maxShared)
		}
	}
}

// meant returns the entries of a name. Without a name these are the engines that may generate;
// those that are told to embed or rerank, too, only if there is no other.
func (c *Config) meant(name string) (all []*Backend) {
	var encode []*Backend
	for i := range c.Backends {
		switch b := &c.Backends[i]; {
		case name != "":
			if b.Name == name || slices.Contains(b.Aliases, name) {
				all = append(all, b)
			}
		case !b.mayGenerate():
		case b.Tasks.encodes():
			encode = append(encode, b)
		default:
			all = append(all, b)
		}
	}
	if len(all) == 0 {
		return encode
	}
	return all
}

// mayGenerate reports whether an entry is an engine that generates if its model can.
func (b *Backend) mayGenerate() bool { return b.Mock == nil && !b.Tasks.NoGenerate }
