package pull

import (
	"slices"

	"github.com/inferd-go/inferd/internal/modelname"
)

// Known returns the name in the store of the model that a typed name stands for: the name itself, or
// that of the manifest that it was resolved to before. It is empty if there is no such model with all
// of its blobs. Known neither dials nor hashes.
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

// Has reports whether the store has a model of that name that is one file with that digest. It
// hashes nothing.
func (p *Puller) Has(name, digest string) bool {
	m := (&session{Puller: p}).whole(name)
	return m != nil && slices.Equal(digestsOf(m), []string{digest})
}
