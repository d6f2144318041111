package llamacpp

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/builtin"
	"github.com/inferd-go/inferd/internal/modelname"
	"github.com/inferd-go/inferd/internal/printable"
	"github.com/inferd-go/inferd/internal/settings"
	"github.com/inferd-go/inferd/internal/store"
)

// builtinPrefix is the prefix of the name of a generated model.
const builtinPrefix = "builtin:"

// ParseModel returns the model of a typed name: a name of package modelname, the path of a file, or
// builtin:NAME.
func ParseModel(typed string) (backend.Model, error) {
	if name, ok := strings.CutPrefix(typed, builtinPrefix); ok {
		m := backend.Model{Builtin: name}
		return m, check(m)
	}
	ref, err := modelname.Parse(typed)
	if err != nil {
		return backend.Model{}, err
	}
	if ref.Kind == modelname.File {
		path := ref.Path
		if rest, ok := strings.CutPrefix(path, "~/"); ok {
			home, err := os.UserHomeDir()
			if err != nil {
				return backend.Model{}, fmt.Errorf("model %q: %w", printable.Text(typed), err)
			}
			path = filepath.Join(home, rest)
		}
		return backend.Model{Path: path}, nil
	}
	return backend.Model{Name: typed}, nil
}

// readModel reads the member "model" of o, which is a name or an object. It records errors in o.
func readModel(o *settings.Object) (m backend.Model) {
	if o.HasText("model") {
		var (
			typed string
			err   error
		)
		o.Text("model", &typed)
		if m, err = ParseModel(typed); err != nil {
			o.Failf("model", ": %w", err)
		}
		return m
	}
	o = o.Child("model")
	var size int
	for key, to := range map[string]*string{
		"builtin": &m.Builtin, "path": &m.Path, "sha256": &m.SHA256, "name": &m.Name, "source_url": &m.URL, "license": &m.License,
	} {
		o.Text(key, to)
	}
	o.Number("size_bytes", &size, 0, math.MaxInt)
	m.Size = int64(size)
	if m.Builtin != "" || m.Path != "" { // the other members describe a model of the store
		m = backend.Model{Builtin: m.Builtin, Path: m.Path, SHA256: m.SHA256}
		if err := check(m); err != nil {
			o.Failf("", ": %w", err)
		}
		return m
	}
	switch key, err := checkNamed(m); {
	case err == nil:
	case key == "":
		o.Failf("", ": %w", err)
	default:
		o.Failf(key, "%w", err)
	}
	return m
}

// check returns an error if a generated model, or a model by path, is not described correctly.
func check(m backend.Model) error {
	switch {
	case m.Builtin == "" && m.Path == "":
		return errors.New("one of path and builtin is needed")
	case m.Builtin != "" && m.Path != "":
		return errors.New("path and builtin are mutually exclusive")
	case m.Builtin != "" && !builtin.Has(m.Builtin):
		return fmt.Errorf("no built-in model is called %q: there are %s", printable.Text(m.Builtin), strings.Join(builtin.Names(), ", "))
	case m.SHA256 != "" && !isSHA256(m.SHA256):
		return errors.New("sha256 " + wantSHA256)
	}
	return nil
}

const wantSHA256 = "must be 64 lower-case hex digits"

func isSHA256(text string) bool {
	raw, err := hex.DecodeString(text)
	return err == nil && len(raw) == 32 && strings.ToLower(text) == text
}

// checkNamed returns an error if m, read from a JSON object, does not correctly describe a model of the
// store. key names the faulty member; empty means the whole object.
func checkNamed(m backend.Model) (key string, err error) {
	if m.Name == "" {
		return "", errors.New("one of name, path and builtin is needed")
	}
	if err := store.CheckName(m.Name); err != nil {
		return "name", fmt.Errorf("is not a valid name in the model store: %w", err)
	}
	if m.SHA256 == "" {
		return "sha256", fmt.Errorf("is missing: a model without it is named by a string: \"model\": %q", m.Name)
	}
	if !isSHA256(m.SHA256) {
		return "sha256", errors.New(wantSHA256)
	}
	if u, err := url.Parse(m.URL); m.URL != "" && (err != nil || u.Scheme != "https" || u.Host == "") {
		return "source_url", errors.New("must be an https:// address")
	}
	return "", nil
}

// Members returns the member "model", in its shortest form, or nothing if no model is set.
func (s *Settings) Members() map[string]any {
	m := s.Model
	switch {
	case m.Name != "" && m.SHA256 == "":
		return map[string]any{"model": m.Name}
	case m == (backend.Model{}):
		return nil
	}
	object := make(map[string]any)
	for key, value := range map[string]string{
		"builtin": m.Builtin, "path": m.Path, "name": m.Name, "sha256": m.SHA256, "source_url": m.URL, "license": m.License,
	} {
		if value != "" {
			object[key] = value
		}
	}
	if m.Size != 0 {
		object["size_bytes"] = m.Size
	}
	return map[string]any{"model": object}
}
