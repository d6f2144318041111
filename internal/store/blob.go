package store

import (
	"fmt"
	"path/filepath"
)

// BlobPath is where the blob of a digest is, or would be. It is empty for an unknown digest.
func (s *Store) BlobPath(digest string) string {
	if !isDigest(digest) {
		return ""
	}
	return filepath.Join(s.Home, filepath.FromSlash(blobPath(digest)))
}

// Blob returns a blob that is there, without reading it: [Store.Have] checks its digest. If there
// is none the error wraps [fs.ErrNotExist].
func (s *Store) Blob(digest string) (Blob, error) {
	digest, err := ParseDigest(digest)
	if err != nil {
		return Blob{}, fmt.Errorf("digest %w", err)
	}
	d, err := s.open(false)
	if err != nil {
		return Blob{}, err
	}
	info, err := d.root.Lstat(blobPath(digest))
	if err != nil {
		return Blob{}, err
	}
	if !info.Mode().IsRegular() {
		return Blob{}, fmt.Errorf("%s is not a regular file", d.path(blobPath(digest)))
	}
	return Blob{digest, info.Size(), s.BlobPath(digest)}, nil
}

// Hold keeps other processes from removing a blob until the lock is released, also while no
// manifest names it. If there is no such blob the error wraps [fs.ErrNotExist]; if another process
// has it for itself at present, it is a [BusyError].
func (s *Store) Hold(digest string) (Blob, *Lock, error) {
	if _, err := s.Blob(digest); err != nil {
		return Blob{}, nil, err
	}
	d, err := s.open(false)
	if err != nil {
		return Blob{}, nil, err
	}
	lock, err := s.lockBlob(d, digest, true)
	if err != nil {
		return Blob{}, nil, err
	}
	blob, err := s.Blob(digest) // it may have been removed before the lock was there
	if err != nil {
		lock.Release()
		return Blob{}, nil, err
	}
	return blob, lock, nil
}

// Present reports whether all parts of a model are there, as far as it is known without reading
// them. Companions do not count.
func (s *Store) Present(m *Manifest) bool {
	d, err := s.open(false)
	if err != nil {
		return false
	}
	for _, part := range m.Blobs() {
		if state, _ := s.stateOf(d, part); state != OK && state != Unverified {
			return false
		}
	}
	return true
}
