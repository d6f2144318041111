package pull

import (
	"slices"

	"github.com/inferd-go/inferd/internal/modelname"
)

// Known returns the name in the store of the model that a typed name stands for: the name itself,
// or that of the manifest to which it was resolved before. It is empty unless the store has such a
// model with all of its blobs. Known sends no request and hashes no file.
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

// Has reports whether the store has a model with that name and that digest, in one file. It hashes
// no file.
func (p *Puller) Has(name, digest string) bool {
	m := (&session{Puller: p}).completeManifest(name)
	return m != nil && slices.Equal(digestsOf(m), []string{digest})
}
