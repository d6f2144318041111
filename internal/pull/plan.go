package pull

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/inferd-go/inferd/internal/modelname"
	"github.com/inferd-go/inferd/internal/store"
)

// A file is one file of a plan.
type file struct {
	name    string // last segment of the path
	size    int64  // 0 if unknown
	sha256  string // empty if unknown
	sources []source
}

// A plan is the model to which a name was resolved, with its files and their sources.
type plan struct {
	name      string // name of the manifest
	asked     string // the resolved name; empty if it equals name
	license   string
	source    store.Source
	files     []file // the parts in order
	projector string // see Result
}

// check returns an error if two files have the same digest. No real split model has such parts, and
// the second ingest would wait for the first for ever.
func (m *plan) check() error {
	no := make(map[string]int)
	for i, f := range m.files {
		if before := no[f.sha256]; before > 0 && f.sha256 != "" {
			return fmt.Errorf("its parts %d and %d have one SHA-256, %s: they cannot both be right", before, i+1, f.sha256)
		}
		no[f.sha256] = i + 1
	}
	return nil
}

// matches reports whether a manifest has the digests of the plan. It reports false if a digest of the
// plan is unknown.
func (m *plan) matches(manifest *store.Manifest) bool {
	return slices.EqualFunc(m.files, digestsOf(manifest), func(f file, digest string) bool { return f.sha256 == digest })
}

// digestsOf returns the digests of all parts of a model.
func digestsOf(m *store.Manifest) (all []string) {
	for _, p := range m.Blobs() {
		all = append(all, strings.TrimPrefix(p.Blob, "sha256:"))
	}
	return all
}

// askedOf returns the form of a name for the member "asked" of manifests. The query of an address
// may be a secret, so it is replaced by its hash, or by the SHA-256 of the content if that is
// known.
func askedOf(ref modelname.Ref) string {
	u, err := url.Parse(ref.URL)
	if ref.Kind != modelname.Link || err != nil {
		return ref.String()
	}
	switch {
	case ref.SHA256 != "":
		return display(u) + "#sha256=" + ref.SHA256
	case u.RawQuery != "":
		sum := sha256.Sum256([]byte(u.RawQuery))
		return display(u) + "?sha256-of-query=" + hex.EncodeToString(sum[:16])
	}
	return display(u)
}
