package store

import "os"

// Describe fills in the GGUF member of a manifest from the header of its first blob, which must have
// been committed. It returns a warning if the model cannot be loaded as it is; other programs may
// still be able to use it.
func (s *Store) Describe(m *Manifest) (warning string) {
	d, err := s.open(false)
	if err != nil {
		return err.Error()
	}
	f, _, err := d.open(blobPath(m.Digest()), os.O_RDONLY)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	m.GGUF, warning = headerOf(f, len(m.Blobs()))
	return warning
}
