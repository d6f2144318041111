package store

import "os"

// Describe sets what the header of a manifest's first blob says of the model. The blob has been
// committed. The warning is not empty if the model cannot be loaded as it is: other programs
// may know it.
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
