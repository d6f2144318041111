package store

import (
	"fmt"
	"path/filepath"
)

// BlobPath returns the path of a blob, whether it exists or not. It is empty if digest is not a
// SHA-256 in lower-case hex.
func (s *Store) BlobPath(digest string) string {
	if !isDigest(digest) {
		return ""
	}
	return filepath.Join(s.Home, filepath.FromSlash(blobPath(digest)))
}

// Blob returns a blob of the store without reading it; [Store.Have] also checks its digest. If
// there is none, the error wraps [fs.ErrNotExist].
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

// Hold keeps other processes from removing a blob until the lock is released, even if no manifest
// names it. The error wraps [fs.ErrNotExist] if the store has no such blob, and is a [BusyError]
// while another process writes or removes it.
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
	blob, err := s.Blob(digest) // again: it may have been removed before the lock was taken
	if err != nil {
		lock.Release()
		return Blob{}, nil, err
	}
	return blob, lock, nil
}

// Present reports whether all parts of a model exist and are not known to be damaged. It reads no
// content, and does not check companions.
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
