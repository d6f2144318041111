package store

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
)

// An InUseError means that a model cannot be removed because a process uses it.
type InUseError struct {
	Name string
	PID  int // 0 if unknown
}

func (e *InUseError) Error() string {
	by := "another process"
	if e.PID > 0 {
		by = fmt.Sprintf("process %d", e.PID)
	}
	return fmt.Sprintf("model %q is in use by %s: stop it first, or use --force", e.Name, by)
}

// Remove removes a model: its manifest, the blobs that no other manifest names, and the unfinished
// and quarantined files with its name or its digests. If another manifest cannot be read, the blobs
// stay. Files outside of the store that the manifest refers to are not touched. If a process uses the
// model, the error is an [InUseError], unless force is set; then the process can still read its open
// files. If the store has no file of that name, the error wraps [fs.ErrNotExist].
func (s *Store) Remove(name string, force bool) (removed []Removed, err error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	d, err := s.open(false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("model %q is not in the model store: %w", name, fs.ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	gone := fmt.Errorf("model %q is not in the model store: %w", name, fs.ErrNotExist)
	if known, err := d.knows(name); err != nil || !known {
		return nil, cmp.Or(err, gone)
	}
	if d, err = s.open(true); err != nil {
		return nil, err
	}
	lock, err := s.LockName(name)
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	r := &removal{store: s, disk: d, name: name, force: force}
	if err := r.run(); err != nil {
		return r.removed, s.unwritable(err)
	}
	if len(r.removed) == 0 {
		return nil, gone // another process has removed it
	}
	return r.removed, nil
}

// knows reports whether the store has a manifest, an ingest or a quarantined file of the name.
func (d *disk) knows(name string) (bool, error) {
	_, err := d.root.Lstat(manifestPath(name))
	if !errors.Is(err, fs.ErrNotExist) {
		return err == nil, err
	}
	all, _, err := d.ingests("")
	if err != nil || slices.ContainsFunc(all, func(u Unfinished) bool { return u.Name == name }) {
		return err == nil, err
	}
	records, err := d.records()
	for _, q := range records {
		if q.Name == name {
			return true, nil
		}
	}
	return false, err
}

// A removal is one run of Remove.
type removal struct {
	store   *Store
	disk    *disk
	name    string
	force   bool
	removed []Removed
}

func (r *removal) run() error {
	m, err := r.disk.manifest(r.name)
	_, damaged := errors.AsType[*DamagedError](err)
	switch {
	case err == nil, damaged:
	case errors.Is(err, fs.ErrNotExist):
		return r.removeRemnants(nil)
	default:
		return err
	}
	var parts []Part
	if m != nil {
		parts = m.files()
	}
	if !r.force {
		for _, p := range parts {
			if pid, used := r.disk.inUse(p.Blob[len(digestPrefix):]); used {
				return &InUseError{r.name, pid}
			}
		}
	}
	if err := errors.Join(r.disk.remove(manifestPath(r.name)), r.disk.syncDir(manifestsDir)); err != nil {
		return err
	}
	r.note(manifestPath(r.name), "manifest", 0)
	var failed []error // the manifest is gone: a failure must not keep the other files from being removed
	for _, p := range parts {
		failed = append(failed, r.removeBlob(p.Blob[len(digestPrefix):]))
	}
	return errors.Join(append(failed, r.removeRemnants(parts))...)
}

func (r *removal) note(name, what string, size int64) {
	r.removed = append(r.removed, Removed{r.disk.path(name), what, size})
}

// removeBlob removes a blob of the model, unless another manifest names it or cannot be read.
func (r *removal) removeBlob(digest string) error {
	info, err := r.disk.root.Lstat(blobPath(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	lock, err := r.store.lockBlob(r.disk, digest, false)
	if _, busy := errors.AsType[*BusyError](err); busy && r.force {
		err = nil
	}
	if err != nil {
		return err
	}
	if lock != nil {
		defer lock.Release()
	}
	if _, problems, err := r.disk.manifests(); err != nil || len(problems) > 0 {
		return err // a manifest that cannot be read may name the blob: keep it
	}
	if names, err := r.disk.namesOf(digest); err != nil || len(names) > 0 {
		return err
	}
	if err := r.disk.removeBlob(digest); err != nil {
		return err
	}
	if lock != nil {
		r.disk.removeLock(digest)
	}
	r.note(blobPath(digest), "blob", info.Size())
	return nil
}

// removeRemnants removes the unfinished and quarantined files that belong to the model by their name or by a
// digest of parts. The error names each file that could not be removed.
func (r *removal) removeRemnants(parts []Part) error {
	ours := func(name, digest string) bool {
		return name == r.name || digest != "" && slices.ContainsFunc(parts, func(p Part) bool { return p.Blob == digestPrefix+digest })
	}
	var failed []error
	all, _, err := r.disk.ingests("")
	failed = append(failed, err)
	for _, u := range all {
		if ours(u.Name, u.Digest) {
			failed = append(failed, r.removeIngest(u))
		}
	}
	records, err := r.disk.records()
	failed = append(failed, err)
	for base, q := range records {
		if !ours(q.Name, q.Expected) {
			continue
		}
		if err := errors.Join(r.disk.remove(base+".bin"), r.disk.remove(base+".json")); err != nil {
			failed = append(failed, err)
			continue
		}
		r.note(base+".bin", "quarantined content", q.Size)
	}
	return errors.Join(failed...)
}

// removeIngest removes an unfinished ingest. If a process writes it, the error is a [BusyError].
func (r *removal) removeIngest(u Unfinished) error {
	lock, err := r.store.lockBlob(r.disk, path.Base(u.dir)[len(partialPrefix):], false)
	if err != nil {
		return err
	}
	defer lock.Release()
	if err := r.disk.removeDir(u.dir); err != nil {
		return err
	}
	r.note(u.dir, "unfinished ingest", u.allocated)
	return nil
}
