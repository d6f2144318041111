package store

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/printable"
)

// A Manifest maps the name of a model to its blobs. Other programs that share the store also read
// and write manifests, so unknown members are kept.
type Manifest struct {
	Schema     int     `json:"schema_version"`
	Name       string  `json:"name"`
	Format     string  `json:"format"` // "gguf"
	Blob       string  `json:"blob"`   // "sha256:" and the digest of the (first) blob
	Size       int64   `json:"size_bytes"`
	License    *string `json:"license"`
	Source     Source  `json:"source"`
	ProducedBy string  `json:"produced_by"` // program and version
	ProducedAt string  `json:"produced_at"` // RFC 3339

	Parts      []Part          `json:"parts,omitempty"`      // all parts of a split model, in order
	Companions map[string]Part `json:"companions,omitempty"` // by purpose, such as "mmproj"
	Refers     *Refers         `json:"refers,omitempty"`     // a file outside of the store, in place of the blob
	GGUF       *Header         `json:"gguf,omitempty"`       // from the header of the first file
	Asked      []string        `json:"asked,omitempty"`      // names by which users asked for the model

	Unknown jsontext.Value `json:",embed"`
}

// Source is the origin of a model. Members that are not known are empty.
type Source struct {
	Registry string `json:"registry"`
	Repo     string `json:"repo"`
	Revision string `json:"revision"`
	Filename string `json:"filename"`
}

// A Part is a blob of a model.
type Part struct {
	Blob   string  `json:"blob"` // as in Manifest
	Size   int64   `json:"size_bytes"`
	Refers *Refers `json:"refers,omitempty"` // as in Manifest, of this part
}

// Refers is a file outside of the store, with the identity that it had when it was hashed.
type Refers struct {
	Path string `json:"path"` // absolute
	Identity
}

// Header holds some members of the header of a GGUF file. Members that are not known are zero.
type Header struct {
	Arch   string `json:"arch"`
	Quant  string `json:"quant"`
	NCtx   int64  `json:"n_ctx_train"`
	NVocab int64  `json:"n_vocab"`
}

// Digest returns the digest of the blob, or of the first part.
func (m *Manifest) Digest() string { return strings.TrimPrefix(m.Blob, digestPrefix) }

const digestPrefix = "sha256:"

// Blobs returns the parts of the model in order, without companions.
func (m *Manifest) Blobs() []Part {
	if len(m.Parts) > 0 {
		return m.Parts
	}
	return []Part{{Blob: m.Blob, Size: m.Size, Refers: m.Refers}}
}

// digests returns the digests of the parts in order, with their prefix.
func (m *Manifest) digests() []string {
	var all []string
	for _, p := range m.Blobs() {
		all = append(all, p.Blob)
	}
	return all
}

// TotalSize returns the number of bytes of all parts.
func (m *Manifest) TotalSize() int64 {
	size := int64(0)
	for _, p := range m.Blobs() {
		size += p.Size
	}
	return size
}

// allBlobs returns every blob that the manifest names.
func (m *Manifest) allBlobs() []Part {
	all := append([]Part{{Blob: m.Blob, Size: m.Size}}, m.Parts...)
	for _, p := range m.Companions {
		all = append(all, p)
	}
	return all
}

const (
	manifestSchema = 1
	maxManifest    = 1 << 20 // bytes
	maxRefs        = 4096    // limit for the parts, companions and asked names of a manifest
)

// check returns an error if the manifest of the given name cannot be used.
func (m *Manifest) check(name string) error {
	switch {
	case m.Schema != manifestSchema:
		return fmt.Errorf("schema_version is %d, want %d", m.Schema, manifestSchema)
	case m.Name != name:
		return fmt.Errorf("its name is %q, not that of the file", printable.Text(m.Name))
	case m.Format != "gguf":
		return fmt.Errorf("format is %q, want \"gguf\"", printable.Text(m.Format))
	case len(m.Parts) > maxParts, len(m.Companions) > maxRefs, len(m.Asked) > maxRefs:
		return errors.New("too many parts, companions or asked names")
	case len(m.Parts) > 0 && m.Parts[0].Blob != m.Blob:
		return errors.New("blob is not the first of its parts")
	}
	for _, p := range append(m.allBlobs(), m.Blobs()...) {
		digest, ok := strings.CutPrefix(p.Blob, digestPrefix)
		if !ok || !isDigest(digest) {
			return fmt.Errorf("blob is %q, want \"sha256:\" and 64 lower-case hex digits", printable.Text(p.Blob))
		}
		if p.Size < 0 {
			return fmt.Errorf("size_bytes is %d, want 0 or more", p.Size)
		}
		if p.Refers != nil && !filepath.IsAbs(p.Refers.Path) {
			return fmt.Errorf("refers: %q is not an absolute path", printable.Text(p.Refers.Path))
		}
	}
	return nil
}

// Manifest returns the manifest of a model. If there is none, the error wraps [fs.ErrNotExist]; if
// it cannot be used, the error is a [DamagedError].
func (s *Store) Manifest(name string) (*Manifest, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	d, err := s.open(false)
	if err != nil {
		return nil, err
	}
	return d.manifest(name)
}

// A DamagedError means that one file of the store cannot be used. Other files can.
type DamagedError struct {
	Path string
	Err  error
}

func (e *DamagedError) Error() string { return fmt.Sprintf("%s is damaged: %v", e.Path, e.Err) }

// Unwrap returns the cause.
func (e *DamagedError) Unwrap() error { return e.Err }

func (d *disk) manifest(name string) (*Manifest, error) {
	file := manifestPath(name)
	data, _, err := d.readFile(file, maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("model %q is not in the model store: %w", name, err)
	}
	var m Manifest
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if err == nil && m.Name != name && strings.EqualFold(m.Name, name) && CheckName(m.Name) == nil && d.sameFile(file, manifestPath(m.Name)) {
		return nil, &otherCaseError{name, &m}
	}
	if err == nil {
		err = m.check(name)
	}
	if err != nil {
		return nil, &DamagedError{d.path(file), err}
	}
	return &m, nil
}

// sameFile reports whether two paths lead to the same file.
func (d *disk) sameFile(a, b string) bool {
	first, errA := d.root.Lstat(a)
	second, errB := d.root.Lstat(b)
	return errA == nil && errB == nil && os.SameFile(first, second)
}

// An otherCaseError means that the manifest at the path of a name is of another model: the two
// names differ only in case, which the file system ignores.
type otherCaseError struct {
	name  string
	found *Manifest
}

func (e *otherCaseError) Error() string {
	return fmt.Sprintf("model %q is not in the model store, but %q is", e.name, e.found.Name)
}

// Unwrap returns [fs.ErrNotExist].
func (e *otherCaseError) Unwrap() error { return fs.ErrNotExist }

// A TakenError means that a name already belongs to another model.
type TakenError struct {
	Name, Digest string // of the other model
}

func (e *TakenError) Error() string {
	return fmt.Sprintf("the name %q belongs to another model, sha256:%s: choose another name, or remove that model first (inferdctl rm %s)", e.Name, e.Digest, e.Name)
}

// PutManifest writes a manifest. From then on the model can be used by its name. Its blobs must
// have been committed, and the caller must hold the lock of the name. Empty members get their
// defaults. If the name belongs to a model with other digests, the error is a [TakenError], unless
// replace is set; a damaged manifest is replaced. On a file system that ignores case, a name that
// differs from another model's only in case is always refused.
func (s *Store) PutManifest(m *Manifest, replace bool) error {
	if err := CheckName(m.Name); err != nil {
		return err
	}
	d, err := s.open(true)
	if err != nil {
		return err
	}
	m.Schema = manifestSchema
	m.Format = cmp.Or(m.Format, "gguf")
	m.ProducedAt = cmp.Or(m.ProducedAt, time.Now().UTC().Format(time.RFC3339))
	if err := m.check(m.Name); err != nil {
		return fmt.Errorf("manifest %s: %w", m.Name, err)
	}
	unlock, err := s.holdBlobs(d, m)
	if err != nil {
		return err
	}
	defer unlock()
	old, err := d.manifest(m.Name)
	if err == nil && !slices.Equal(old.digests(), m.digests()) && !replace {
		return &TakenError{m.Name, old.Digest()}
	}
	if other, found := errors.AsType[*otherCaseError](err); found {
		return &TakenError{other.found.Name, other.found.Digest()}
	}
	if _, damaged := errors.AsType[*DamagedError](err); err != nil && !damaged && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	data, err := json.Marshal(m, jsontext.WithIndent("  "), json.Deterministic(true))
	if err != nil {
		return fmt.Errorf("manifest %s: %w", m.Name, err)
	}
	if err := d.removeTemps(manifestPath(m.Name)); err != nil {
		return s.unwritable(err)
	}
	if err := d.replace(manifestPath(m.Name), append(bytes.TrimSpace(data), '\n'), sharedFileMode, true); err != nil {
		return s.unwritable(err)
	}
	return nil
}

// holdBlobs locks the blobs of a manifest against removal while the manifest is written. It returns
// an error if a blob is missing, has another size or is being written by another process. It syncs
// the blobs and their parent folders: the process that made them may have been killed before its
// sync, and other programs that share the store may never sync. It also removes the remaining files
// of their ingests, since this process may be killed before Close does. The returned function
// releases the locks.
func (s *Store) holdBlobs(d *disk, m *Manifest) (_ func(), err error) {
	var locks []*Lock
	unlock := func() {
		for _, l := range locks {
			l.Release()
		}
	}
	defer func() {
		if err != nil {
			unlock()
		}
	}()
	for _, p := range m.files() {
		digest := p.Blob[len(digestPrefix):]
		if p.Refers != nil {
			continue
		}
		if !s.isWriting(digest) {
			lock, err := s.lockBlob(d, digest, true)
			if err != nil {
				return nil, err
			}
			locks = append(locks, lock)
		}
		err := d.syncBlob(digest, p.Size)
		if err == nil {
			err = d.removeRest(digest)
		}
		if err != nil {
			return nil, fmt.Errorf("manifest %s: %w", m.Name, err)
		}
	}
	return unlock, d.syncUp(blobsDir)
}

// removeRest removes the folder of an ingest if its data has become the blob. The caller holds a
// lock of the blob.
func (d *disk) removeRest(digest string) error {
	dir := partialDir(digest)
	if _, err := d.root.Lstat(dir); err != nil {
		return nil //nolint:nilerr // there is none
	}
	if _, err := d.root.Lstat(path.Join(dir, tempLeaf)); !errors.Is(err, fs.ErrNotExist) {
		return nil // the ingest is not committed
	}
	return d.removeDir(dir)
}

// syncBlob syncs a blob, its folder and the folder above. It returns an error if the blob is
// missing or has another size.
func (d *disk) syncBlob(digest string, size int64) error {
	name := blobPath(digest)
	f, info, err := d.open(name, os.O_RDONLY)
	if err != nil {
		return err
	}
	if info.Size() != size {
		err = fmt.Errorf("%s has %d bytes, not %d", d.path(name), info.Size(), size)
	} else {
		err = d.do(Op{Kind: OpSync, Path: name}, func() error { return syncRead(f) })
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := d.syncDir(blobDir(digest)); err != nil {
		return err
	}
	return d.syncDir(path.Dir(blobDir(digest)))
}
