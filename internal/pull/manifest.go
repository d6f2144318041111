package pull

import (
	"context"
	"errors"
	"log/slog"
	"slices"

	"github.com/inferd-go/inferd/internal/modelname"
	"github.com/inferd-go/inferd/internal/store"
)

// completeManifest returns the manifest of a name if all of its blobs are in the store, otherwise nil. It
// hashes no file.
func (s *session) completeManifest(name string) *store.Manifest {
	m, err := s.Store.Manifest(name)
	if err != nil || !s.Store.Present(m) {
		return nil
	}
	return m
}

// known returns the manifest of the model that ref stands for if the store has all of its blobs,
// otherwise nil: the model of that name, or a model to which ref was resolved before. If as is set,
// the model must also have that name. known sends no request.
func (s *session) known(ref modelname.Ref, as string) *store.Manifest {
	asked := askedOf(ref)
	if as != "" {
		if m := s.completeManifest(as); m != nil && slices.Contains(m.Asked, asked) {
			return m
		}
		return nil
	}
	if ref.Kind == modelname.Plain {
		return s.completeManifest(ref.Name)
	}
	listing, err := s.Store.List()
	if err != nil {
		return nil // get will return the reason
	}
	for i := range listing.Models {
		m := &listing.Models[i].Manifest
		if slices.Contains(m.Asked, asked) && s.Store.Present(m) {
			return m
		}
	}
	return nil
}

// presentResult returns the result for a model that is in the store, fetched by this session or before.
func (s *session) presentResult(m *store.Manifest) Result {
	r := Result{Name: m.Name, Digest: m.Digest(), Size: m.TotalSize(), Parts: len(m.Blobs()), Path: s.Store.BlobPath(m.Digest()), Fetched: s.fetched, Already: s.fetched == 0}
	if first := m.Blobs()[0]; first.Refers != nil {
		r.Path = first.Refers.Path
	}
	return r
}

// takeable returns the manifest of the plan's name if no file has to be fetched, otherwise nil. If
// the name belongs to another model, it returns an error. locked means that the caller holds the
// lock of the name.
func (s *session) takeable(ctx context.Context, model *plan, o Options, locked bool) (*store.Manifest, error) {
	m, err := s.Store.Manifest(model.name)
	if damaged, ok := errors.AsType[*store.DamagedError](err); ok {
		s.Log.LogAttrs(ctx, slog.LevelWarn, "a damaged manifest will be replaced", slog.String("path", damaged.Path))
		return nil, nil // counts as absent
	}
	if err != nil {
		return nil, nil //nolint:nilerr // no manifest; an unusable store fails later, with the reason
	}
	asks := model.asked == "" || slices.Contains(m.Asked, model.asked)
	same, present := model.matches(m), s.Store.Present(m)
	switch {
	case same && present:
		return s.note(m, model, locked)
	case same, model.asked == "", asks && o.Update:
		return nil, nil // the model of that name is replaced
	case asks && present:
		return m, nil // resolved before, and no update was asked for
	case asks:
		return nil, nil // its blobs are missing
	}
	return nil, &store.TakenError{Name: m.Name, Digest: m.Digest()}
}

// note adds the asked name of a plan to the manifest. It does so under the lock of the model's
// name, since other processes also add names. If the lock is busy, it does not add the name: the
// next pull of that name asks the source again. It returns nil if the manifest is no longer that of
// the plan's model.
func (s *session) note(m *store.Manifest, model *plan, locked bool) (*store.Manifest, error) {
	if model.asked == "" || slices.Contains(m.Asked, model.asked) {
		return m, nil
	}
	if !locked {
		lock, err := s.Store.LockName(m.Name)
		if err != nil {
			return m, nil // the name only saves a request
		}
		defer lock.Release()
		now, err := s.Store.Manifest(m.Name)
		if err != nil || !model.matches(now) {
			return nil, nil // get continues once it has the lock
		}
		if m = now; slices.Contains(m.Asked, model.asked) {
			return m, nil
		}
	}
	m.Asked = append(m.Asked, model.asked)
	return m, s.Store.PutManifest(m, false)
}

// publish writes the manifest of a plan. Its parts must have been committed.
func (s *session) publish(ctx context.Context, model *plan, parts []part, o Options) (*store.Manifest, error) {
	m := &store.Manifest{
		Name: model.name, Format: "gguf", Blob: "sha256:" + parts[0].blob.Digest, Size: parts[0].blob.Size,
		Source: model.source, ProducedBy: s.Agent,
	}
	if model.license != "" {
		m.License = &model.license
	}
	if len(parts) > 1 {
		for _, p := range parts {
			m.Parts = append(m.Parts, store.Part{Blob: "sha256:" + p.blob.Digest, Size: p.blob.Size})
		}
	}
	if model.asked != "" {
		m.Asked = []string{model.asked}
	}
	replace := model.asked == "" && model.files[0].sha256 != "" // the digest is fixed: replace the manifest of another model
	old, err := s.Store.Manifest(model.name)
	if err == nil {
		replace = replace || (o.Update || !s.Store.Present(old)) && slices.Contains(old.Asked, model.asked)
		same := slices.Equal(digestsOf(old), digestsOf(m))
		if !same && replace {
			s.Log.LogAttrs(ctx, slog.LevelWarn, "a manifest of another model is replaced", slog.String("name", m.Name), slog.String("old", old.Digest()), slog.String("new", m.Digest()))
		}
		if same {
			for _, a := range old.Asked {
				if !slices.Contains(m.Asked, a) {
					m.Asked = append(m.Asked, a)
				}
			}
		}
	}
	if warning := s.Store.Describe(m); warning != "" {
		s.Log.LogAttrs(ctx, slog.LevelWarn, "the model is in the store, but may not be usable", slog.String("name", m.Name), slog.String("reason", warning))
	}
	return m, s.Store.PutManifest(m, replace)
}
