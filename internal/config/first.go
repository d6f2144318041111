package config

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/modelname"
	"github.com/inferd-go/inferd/internal/paths"
)

// FirstModels are the models of a new config file if the operator names none: one model that
// generates, and one that embeds.
var FirstModels = []string{autoGenerate, autoEmbed}

// Unconfigured reports whether no flag or variable names a model or a config file, and no config
// file exists at the default path.
func Unconfigured(f *Flags, env paths.Env) bool {
	if f.ConfigFile != "" || f.Backend != "" || f.Model != "" || f.ModelPath != "" || f.ModelSHA256 != "" {
		return false
	}
	_, err := os.Lstat(env.ConfigFile())
	return errors.Is(err, fs.ErrNotExist)
}

// The form of the config file that [Flags.First] returns. Other programs read this file too: a
// model of the catalog is an object with a digest and a source, and an omitted member stands for
// its default.
type (
	firstFile struct {
		AutoPull   bool         `json:"auto_pull"`
		NCtx       int          `json:"n_ctx"`
		NGPULayers int          `json:"n_gpu_layers"`
		Backends   []firstEntry `json:"backends"`
	}
	firstEntry struct {
		Kind       string      `json:"kind"`
		Name       string      `json:"name"`
		Model      any         `json:"model"` // a firstModel, or a name
		MMProj     *firstModel `json:"mmproj,omitempty"`
		NCtx       int         `json:"n_ctx"`
		NGPULayers int         `json:"n_gpu_layers"`
		Embed      bool        `json:"embed,omitzero"`
		Rerank     bool        `json:"rerank,omitzero"`
	}
	firstModel struct {
		Name    string `json:"name"`
		SHA256  string `json:"sha256"`
		Size    int64  `json:"size_bytes"`
		URL     string `json:"source_url"`
		License string `json:"license,omitempty"`
	}
)

// First returns the text of a config file that serves models. Each of them is a name in the
// catalog, or a name as in [backend.Model.Name]. The entries are of the first kind that was passed
// to [ParseFlags].
func (f *Flags) First(catalog modelname.Catalog, models ...string) ([]byte, error) {
	file := firstFile{AutoPull: true, NCtx: DefaultNCtx}
	for _, name := range models {
		e := firstEntry{Kind: f.kinds[0].Name, Name: entryName(name), Model: name, NCtx: DefaultNCtx}
		if known, ok := catalog.Find(name); ok {
			e.Name, e.Model = known.Name, describe(known)
			e.Embed, e.Rerank = known.Task == "embed", known.Task == "rerank"
			if known.NCtx > 0 {
				e.NCtx = known.NCtx
			}
			if projector, ok := catalog.Find(known.Name + "-mmproj"); ok {
				e.MMProj = describe(projector)
			}
		}
		file.Backends = append(file.Backends, e)
	}
	text, err := json.Marshal(file, jsontext.WithIndent("  "))
	if err != nil {
		return nil, err
	}
	return append(text, '\n'), nil
}

func describe(e modelname.Entry) *firstModel {
	m := &firstModel{Name: e.Name, SHA256: e.SHA256, Size: e.SizeBytes, License: e.License}
	if len(e.Sources) > 0 {
		m.URL = e.Sources[0]
	}
	return m
}

// entryName derives the name of an entry from the name of its model. It returns "gen" if the model
// has no name.
func entryName(model string) string {
	ref, err := modelname.Parse(model)
	if err != nil {
		return "gen"
	}
	name := ""
	switch ref.Kind {
	case modelname.Plain, modelname.Ollama:
		name = ref.Name
	case modelname.Hub:
		name = ref.Repo
	case modelname.Link, modelname.File:
	}
	name = strings.ToLower(name[strings.LastIndexByte(name, '/')+1:])
	if name == "" {
		return "gen"
	}
	return strings.TrimSuffix(name, "-gguf")
}

// Write creates a config file, and its folder if that is missing. The file appears only when it is
// complete. Write does not replace an existing file; it then returns an error that wraps
// [fs.ErrExist].
func Write(path string, text []byte) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s: %w", path, fs.ErrExist)
	}
	dir, leaf := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	temp := "." + leaf + "." + rand.Text()[:8]
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = root.Link(temp, leaf) // unlike a rename, it does not replace a file
	}
	return errors.Join(err, root.Remove(temp))
}
