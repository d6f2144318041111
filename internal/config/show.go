package config

import (
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/paths"
	"github.com/inferd-go/inferd/internal/settings"
)

// Effective returns the text of a config file that combines the flags, the variables, the config
// file and the defaults. It contains no keys, only the names of the variables and files that hold
// them. Loaded with the same keys, the text gives the same config.
func Effective(f *Flags, env paths.Env) (text []byte, warnings []string, err error) {
	c := &Config{Warnings: append(env.Warnings(), f.Warnings...)}
	merged := *f
	if err := c.load(f, &merged, env); err != nil {
		return nil, c.Warnings, err
	}
	merged.Common = c.Common          // with the folders of this machine
	merged.autoselect = autoselectOff // its entries are listed
	file := nest(settings.Of(daemonSettings, &merged).Members())
	var (
		entries []map[string]any
		shared  []map[string]any
	)
	for _, e := range c.Backends {
		entries = append(entries, showEntry(e))
		for _, text := range e.Shared {
			shared = append(shared, map[string]any{"model": e.Name, "text": text})
		}
	}
	file["backends"] = entries
	if keys := showHTTPKeys(c.HTTP.Keys); keys != nil {
		file["http"].(map[string]any)["keys"] = keys //nolint:errcheck // its members have rows
	}
	if shared != nil {
		file["shared_prefixes"] = shared
	}
	text, err = json.Marshal(file, json.Deterministic(true), jsontext.WithIndent("  "))
	if err != nil {
		return nil, c.Warnings, err
	}
	return append(text, '\n'), c.Warnings, nil
}

// showEntry returns the members of an entry, as in a config file.
func showEntry(e *backend.Entry) map[string]any {
	all := map[string]any{"kind": e.Kind.Name, "name": e.Name}
	if len(e.Aliases) > 0 {
		all["aliases"] = slices.Clone(e.Aliases)
	}
	limits := e.Limits
	for _, members := range []map[string]any{settings.Of(limitSettings, &limits).Members(), e.Settings.Table().Members(), e.Settings.Members()} {
		maps.Copy(all, members)
	}
	return all
}

// showHTTPKeys returns the members that name the source of each key of HTTP clients.
func showHTTPKeys(keys []HTTPKey) (all []map[string]string) {
	for _, k := range keys {
		one := map[string]string{"name": k.Name}
		if k.Env != "" {
			one["key_env"] = k.Env
		}
		if k.File != "" {
			one["key_file"] = k.File
		}
		all = append(all, one)
	}
	return all
}

// nest moves each member with a key SECTION.NAME into an object with the key SECTION.
func nest(members map[string]any) map[string]any {
	all := make(map[string]any)
	for key, value := range members {
		section, name, inner := strings.Cut(key, ".")
		if !inner {
			all[key] = value
			continue
		}
		object, ok := all[section].(map[string]any)
		if !ok {
			object = make(map[string]any)
			all[section] = object
		}
		object[name] = value
	}
	return all
}
