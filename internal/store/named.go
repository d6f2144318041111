package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/inferd-go/inferd/internal/status"
)

// named opens a model by name. Every file is checked against its digest in the manifest. If the
// manifest cannot be used, or has another digest than ref, the blob with the digest of ref is opened.
func (s *Store) named(ctx context.Context, ref Ref, phase func(status.Phase)) (*Model, error) {
	if err := CheckName(ref.Name); err != nil {
		return nil, err
	}
	if ref.SHA256 != "" && !isDigest(ref.SHA256) {
		_, err := ParseDigest(ref.SHA256)
		return nil, fmt.Errorf("model %q: digest %w", ref.Name, cmp.Or(err, errNotDigest))
	}
	d, err := s.open(false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("model %q is not in the model store: %w", ref.Name, err)
	}
	if err != nil {
		return nil, err
	}
	m, err := d.manifest(ref.Name)
	switch {
	case err == nil && ref.SHA256 != "" && m.Digest() != ref.SHA256:
		err = fmt.Errorf("model %q has SHA-256 %s in the model store, but %s was expected", ref.Name, m.Digest(), ref.SHA256)
	case err == nil && ref.SHA256 == "": // the manifest decides the digest: refuse one that every user can replace
		err = errors.Join(d.checkMode("."), d.checkMode(manifestsDir))
	}
	if err != nil && ref.SHA256 != "" {
		if info, look := d.root.Lstat(blobPath(ref.SHA256)); look == nil {
			m = &Manifest{Name: ref.Name, Blob: digestPrefix + ref.SHA256, Size: info.Size()}
			err = nil
		}
	}
	if err != nil {
		return nil, err
	}
	return s.openManifest(ctx, d, m, phase)
}

// openManifest opens and checks the files of a manifest.
func (s *Store) openManifest(ctx context.Context, d *disk, m *Manifest, phase func(status.Phase)) (_ *Model, err error) {
	blobs := m.Blobs()
	model := s.newModel(m.Name, "")
	defer func() {
		if err != nil {
			model.Close()
		}
	}()
	for i, part := range blobs {
		digest := part.Blob[len(digestPrefix):]
		f, info, path, err := d.openBlob(part)
		if err != nil {
			return nil, fmt.Errorf("model %q: %w", m.Name, partError(i, len(blobs), err))
		}
		model.Files = append(model.Files, f)
		if info, err = model.watch(ctx, f, info, path); err != nil {
			return nil, fmt.Errorf("model %q: %w", m.Name, partError(i, len(blobs), err))
		}
		if i == 0 {
			model.Path, model.Info = path, info
			phase(status.CheckingLocal{Path: path})
		}
		got, err := s.digestOf(ctx, f, info, path, digest, phase)
		if err == nil && got != digest {
			err = &DamagedError{path, fmt.Errorf("it has SHA-256 %s, but %s was expected: run \"inferdctl verify %s\"", got, digest, m.Name)}
		}
		if err != nil {
			return nil, fmt.Errorf("model %q: %w", m.Name, partError(i, len(blobs), err))
		}
		s.holdForUse(d, digest)
	}
	if len(blobs) == 1 {
		model.Digest = m.Digest()
	}
	return model, nil
}

func partError(i, n int, err error) error {
	if n == 1 {
		return err
	}
	return fmt.Errorf("part %d of %d: %w", i+1, n, err)
}

// openBlob opens a blob, or the file that the manifest refers to instead.
func (d *disk) openBlob(part Part) (*os.File, os.FileInfo, string, error) {
	if part.Refers != nil {
		f, info, err := openRegular(part.Refers.Path)
		return f, info, part.Refers.Path, err
	}
	name := blobPath(part.Blob[len(digestPrefix):])
	f, info, err := d.open(name, os.O_RDONLY)
	return f, info, d.path(name), err
}

// holdForUse takes the shared lock of a blob until the store is closed, so that other processes do not
// remove the blob. It ignores errors: an open file can be read even after its removal.
func (s *Store) holdForUse(d *disk, digest string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.useLocks[digest] != nil {
		return
	}
	lock, err := s.lockBlob(d, digest, true)
	if err != nil {
		return
	}
	if s.useLocks == nil {
		s.useLocks = make(map[string]*Lock)
	}
	s.useLocks[digest] = lock
}

// releaseUse releases the shared lock of a blob, before this store takes the exclusive one.
func (s *Store) releaseUse(digest string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if lock := s.useLocks[digest]; lock != nil {
		lock.Release()
		delete(s.useLocks, digest)
	}
}

// setWriting adds by to the number of open ingests with the name digest; see [Want.ref].
func (s *Store) setWriting(digest string, by int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writing == nil {
		s.writing = make(map[string]int)
	}
	if s.writing[digest] += by; s.writing[digest] == 0 {
		delete(s.writing, digest)
	}
}

func (s *Store) isWriting(digest string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writing[digest] > 0
}
