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

// FirstModels are the models of the config file that is written if an operator does not choose: a
// generating one and an embedding one.
var FirstModels = []string{autoGenerate, autoEmbed}

// Unconfigured reports whether nothing says which model to serve: no flag or variable, and there is
// no config file at its default path.
func Unconfigured(f *Flags, env paths.Env) bool {
	if f.ConfigFile != "" || f.Backend != "" || f.Model != "" || f.ModelPath != "" || f.ModelSHA256 != "" {
		return false
	}
	_, err := os.Lstat(env.ConfigFile())
	return errors.Is(err, fs.ErrNotExist)
}

// The shape of a config file that is written. Other programs read it, too: models of the catalog are
// objects with a digest and a source, and a member that is left out has its default.
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

// First returns a config file that serves models: names of the catalog, or as [backend.Model.Name].
// The entries are of the first kind of [ParseFlags].
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

// entryName is the name of an entry by that of its model.
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

// Write writes a new config file, of which there is all or nothing. A file that is there already is
// left as it is: the error wraps [fs.ErrExist].
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
		err = root.Link(temp, leaf) // unlike a rename it replaces nothing
	}
	return errors.Join(err, root.Remove(temp))
}
