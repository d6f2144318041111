package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/paths"
	"github.com/inferd-go/inferd/internal/store"
)

// modelSettings has the members of the daemon's config file that concern the model store. Other
// members are not checked: the store can be maintained even if the daemon would refuse the file.
type modelSettings struct {
	Home     *string         `json:"models_home"`
	Catalog  *string         `json:"catalog"`
	Model    jsontext.Value  `json:"model"`
	Backends []entrySettings `json:"backends"`
}

// entrySettings has the models of an entry.
type entrySettings struct {
	Kind   string         `json:"kind"`
	Name   string         `json:"name"`
	Model  jsontext.Value `json:"model"`
	MMProj jsontext.Value `json:"mmproj"`
}

// modelSettings reads the config file. If the default file does not exist, all settings are empty.
// A file that the operator names must exist, because it may name another store and other models
// that are in use.
func (c *command) modelSettings() (modelSettings, error) {
	var s modelSettings
	file := cmp.Or(c.config, os.Getenv("INFERD_CONFIG"))
	named := file != ""
	if !named {
		file = paths.Default().ConfigFile()
	}
	data, err := os.ReadFile(file) //nolint:gosec // G703: the operator names it
	if errors.Is(err, os.ErrNotExist) && !named {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		return s, fmt.Errorf("config %s: %w", file, err)
	}
	return s, nil
}

// modelStore returns the store that the daemon uses with the settings.
func (c *command) modelStore(s modelSettings) *store.Store {
	env := paths.Default()
	home := env.ModelsDir()
	if s.Home != nil && *s.Home != "" {
		home = *s.Home
		if rest, ok := strings.CutPrefix(home, "~/"); ok {
			if user, err := os.UserHomeDir(); err == nil {
				home = filepath.Join(user, rest)
			}
		}
	}
	return &store.Store{Home: home, BuiltinDir: env.BuiltinDir(), VerifiedFile: env.VerifiedFile()}
}

// usersOf maps each model of the config to the names of the entries that use it. A key is a model
// name or a digest in hex.
func (s modelSettings) usersOf() map[string][]string {
	users := make(map[string][]string)
	note := func(entry string, model jsontext.Value) {
		var name string
		var object struct {
			Name   string `json:"name"`
			SHA256 string `json:"sha256"`
		}
		if json.Unmarshal(model, &name) != nil && json.Unmarshal(model, &object) != nil {
			return
		}
		for _, word := range []string{name, object.Name, object.SHA256} {
			if word != "" && !slices.Contains(users[word], entry) {
				users[word] = append(users[word], entry)
			}
		}
	}
	note("default", s.Model)
	for _, b := range s.Backends {
		note(b.Name, b.Model)
		note(b.Name, b.MMProj)
	}
	return users
}

// storeVerb returns the store of the config, and the models of the config with the entries that use
// them; see usersOf. A config file that is invalid, or named but missing, is an error.
func (c *command) storeVerb() (*store.Store, map[string][]string, error) {
	settings, err := c.modelSettings()
	if err != nil {
		return nil, nil, err
	}
	return c.modelStore(settings), settings.usersOf(), nil
}

// storeOrDefault returns the store of the config or, if the config file does not exist, the default
// store, which the daemon would use. Only verbs that cannot do harm in a wrong store call it.
func (c *command) storeOrDefault() (*store.Store, error) {
	s, _, err := c.storeVerb()
	if errors.Is(err, os.ErrNotExist) {
		return c.modelStore(modelSettings{}), nil
	}
	return s, err
}
