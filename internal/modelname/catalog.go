package modelname

import (
	"bytes"
	_ "embed" // the catalog
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/inferd-go/inferd/internal/usage"
)

// An Entry is a model of the catalog. Its digest is known before the download.
type Entry struct {
	Name      string   `json:"name"`
	File      string   `json:"file"`
	SizeBytes int64    `json:"size_bytes"`
	SHA256    string   `json:"sha256"`
	License   string   `json:"license"`
	Sources   []string `json:"sources"` // https URLs, in the order in which they are tried; none: it cannot be pulled
	NCtx      int      `json:"n_ctx"`   // suggested context in tokens; 0: the daemon's default
	Task      string   `json:"task"`    // generate, embed, rerank, mmproj or empty
}

// A Catalog is a list of entries with distinct names.
type Catalog []Entry

//go:embed catalog.json
var embedded []byte

// Embedded returns the catalog of this release.
func Embedded() Catalog {
	c, err := ParseCatalog(embedded)
	if err != nil {
		panic("internal error: embedded catalog: " + err.Error())
	}
	return c
}

// ParseCatalog parses a catalog: a JSON array of entries. Unknown members are refused, because a
// misspelt one would silently lose a digest or a source.
func ParseCatalog(text []byte) (Catalog, error) {
	var c Catalog
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return nil, fmt.Errorf("want an array of entries: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("data follows the array of entries")
	}
	seen := make(map[string]bool)
	for i, e := range c {
		if err := e.check(); err != nil {
			return nil, fmt.Errorf("entry %d (%q): %w", i+1, e.Name, err)
		}
		key := strings.ToLower(e.Name)
		if seen[key] {
			return nil, fmt.Errorf("entry %d: an earlier entry has the same name %q", i+1, e.Name)
		}
		seen[key] = true
	}
	return c, nil
}

func (e *Entry) check() error {
	switch {
	case !plainName.MatchString(e.Name) || strings.Contains(e.Name, ".."):
		return errors.New("name is not a model's name")
	case !isGGUF(e.File) || strings.ContainsAny(e.File, `/\`):
		return errors.New("file is not the name of a .gguf file")
	case e.SizeBytes <= 0:
		return errors.New("size_bytes must be above 0")
	case !IsSHA256(e.SHA256):
		return errors.New("sha256 must have 64 lower-case hex characters")
	case e.NCtx < 0:
		return errors.New("n_ctx must not be negative")
	}
	switch e.Task {
	case "", "generate", "embed", "rerank", "mmproj":
	default:
		return fmt.Errorf("task %q is none of generate, embed, rerank, mmproj", e.Task)
	}
	for _, s := range e.Sources {
		if u, err := url.Parse(s); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
			return fmt.Errorf("source %s is not an https:// address", quoted(s))
		}
	}
	return nil
}

// Over returns the entries of c, followed by the entries of base with names that c does not have.
func (c Catalog) Over(base Catalog) Catalog {
	all := append(Catalog(nil), c...)
	for _, e := range base {
		if _, ok := c.Find(e.Name); !ok {
			all = append(all, e)
		}
	}
	return all
}

// Find returns the entry with a name. Case does not matter.
func (c Catalog) Find(name string) (Entry, bool) {
	for _, e := range c {
		if strings.EqualFold(e.Name, name) {
			return e, true
		}
	}
	return Entry{}, false
}

// Unknown returns the error for a name that is not in the catalog. The error suggests the nearest name, or
// lists all names if none is near.
func (c Catalog) Unknown(name string) error {
	names := make([]string, len(c))
	for i, e := range c {
		names[i] = e.Name
	}
	if near := usage.Nearest(name, names); near != "" {
		return fmt.Errorf("no model is called %q: did you mean %s?", name, near)
	}
	return fmt.Errorf("no model is called %q: the catalog has %s; or use hf:OWNER/REPO, ollama:NAME or an https:// address", name, strings.Join(names, ", "))
}
