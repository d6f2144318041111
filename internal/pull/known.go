package pull

import (
	"slices"

	"github.com/inferd-go/inferd/internal/modelname"
)

// Known returns the name in the store of the model that a typed name stands for: of a manifest of
// that name, or of one that was resolved from it. It is empty if there is none with all of its blobs.
// It neither dials nor hashes.
func (p *Puller) Known(typed string) (name string, err error) {
	ref, err := modelname.Parse(typed)
	if err != nil {
		return "", err
	}
	if m := (&session{Puller: p}).known(ref, ""); m != nil {
		return m.Name, nil
	}
	return "", nil
}

// Has reports whether the store has a model of that name, of one file with that digest. Nothing
// is hashed.
func (p *Puller) Has(name, digest string) bool {
	m := (&session{Puller: p}).whole(name)
	return m != nil && slices.Equal(digestsOf(m), []string{digest})
}
