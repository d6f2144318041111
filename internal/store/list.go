package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

// A State is the state of a model's files, as far as it is known without reading their content.
type State string

// The states of a model.
const (
	OK         State = "ok"         // no file has changed since it was hashed
	Unverified State = "unverified" // all files are there; one was not hashed on this machine, or was changed since
	Missing    State = "missing"    // a file is not there, or cannot be opened
	Damaged    State = "damaged"    // a file has another size or digest, or cannot be read
)

// An Entry is a model of the store.
type Entry struct {
	Manifest
	State State
	Why   string // reason for a state other than OK
	// PIDs are the IDs of processes that use its blobs, at most one per blob; 0 stands for an unknown
	// process.
	PIDs []int
	File string // path of the blob, of the first part, or of the file that the manifest refers to
}

// A Problem is a file of the store that cannot be used, or that an operator should look at.
type Problem struct {
	Path, What string
}

// A Listing is the content of a store.
type Listing struct {
	Models     []Entry // sorted by name
	Unfinished []Unfinished
	Torn       []Problem // manifests that cannot be used
	Problems   []Problem // all problems, including Torn; the rest of the store is listed in spite of them
}

// List returns the content of the store, without reading blobs. If the store does not exist, the
// listing is empty.
func (s *Store) List() (Listing, error) {
	d, err := s.open(false)
	if errors.Is(err, fs.ErrNotExist) {
		return Listing{}, nil
	}
	if err != nil {
		return Listing{}, err
	}
	manifests, problems, err := d.manifests()
	if err != nil {
		return Listing{}, err
	}
	l := Listing{Torn: problems, Problems: slices.Clone(problems)}
	for _, name := range slices.Sorted(maps.Keys(manifests)) {
		l.Models = append(l.Models, s.entry(d, manifests[name]))
	}
	if l.Unfinished, problems, err = d.ingests(""); err != nil {
		l.Problems = append(l.Problems, Problem{d.path(blobsDir), err.Error()})
	}
	l.Problems = append(l.Problems, problems...)
	if records, err := d.records(); err != nil {
		l.Problems = append(l.Problems, Problem{d.path(quarantineDir), err.Error()})
	} else {
		for _, base := range slices.Sorted(maps.Keys(records)) {
			q := records[base]
			l.Problems = append(l.Problems, Problem{d.path(base + ".json"), q.what()})
		}
	}
	for _, dir := range []string{".", manifestsDir, blobsDir} {
		if err := d.checkMode(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			l.Problems = append(l.Problems, Problem{d.path(dir), err.Error()})
		}
	}
	return l, nil
}

func (q *Quarantined) what() string {
	model := ""
	if q.Name != "" {
		model = " of " + q.Name
	}
	if q.URL == "" {
		return fmt.Sprintf("content%s was damaged: SHA-256 %s instead of %s", model, q.Actual, q.Expected)
	}
	return fmt.Sprintf("content%s came %d times with SHA-256 %s instead of %s, from %s", model, q.Times, q.Actual, q.Expected, q.URL)
}

// manifests reads all manifests, and returns them by name. A manifest that cannot be used becomes a
// problem.
func (d *disk) manifests() (map[string]*Manifest, []Problem, error) {
	entries, err := d.readDir(manifestsDir)
	if err != nil {
		return nil, nil, err
	}
	all := make(map[string]*Manifest)
	var problems []Problem
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), manifestExt)
		if !ok || strings.HasPrefix(name, ".") { // a temporary file, or not a manifest
			continue
		}
		if err := CheckName(name); err != nil {
			problems = append(problems, Problem{d.path(path.Join(manifestsDir, e.Name())), err.Error()})
			continue
		}
		m, err := d.manifest(name)
		switch damaged, ok := errors.AsType[*DamagedError](err); {
		case err == nil:
			all[name] = m
		case ok:
			problems = append(problems, Problem{damaged.Path, damaged.Err.Error()})
		case !errors.Is(err, fs.ErrNotExist): // else it was removed meanwhile
			problems = append(problems, Problem{d.path(manifestPath(name)), err.Error()})
		}
	}
	return all, problems, nil
}

// entry returns a model with its state.
func (s *Store) entry(d *disk, m *Manifest) Entry {
	e := Entry{Manifest: *m, State: OK, File: d.path(blobPath(m.Digest()))}
	if first := m.Blobs()[0]; first.Refers != nil {
		e.File = first.Refers.Path
	}
	for _, part := range m.files() {
		state, why := s.stateOf(d, part)
		e.worsen(state, why)
		if pid, used := d.inUse(part.Blob[len(digestPrefix):]); used && !slices.Contains(e.PIDs, pid) {
			e.PIDs = append(e.PIDs, pid)
		}
	}
	return e
}

// files returns the parts, then the companions in the order of their purposes.
func (m *Manifest) files() []Part {
	all := slices.Clone(m.Blobs())
	for _, purpose := range slices.Sorted(maps.Keys(m.Companions)) {
		all = append(all, m.Companions[purpose])
	}
	return all
}

// worsen records the state of one file: the state of a model is the worst of its files.
func (e *Entry) worsen(state State, why string) {
	order := []State{OK, Unverified, Missing, Damaged}
	if slices.Index(order, state) > slices.Index(order, e.State) {
		e.State, e.Why = state, why
	}
}

// stateOf returns the state of one file and the reason for it, without reading the content.
func (s *Store) stateOf(d *disk, part Part) (State, string) {
	digest := part.Blob[len(digestPrefix):]
	file := d.path(blobPath(digest))
	var info os.FileInfo
	var err error
	if part.Refers != nil {
		file = part.Refers.Path
		info, err = os.Stat(file)
	} else {
		info, err = d.root.Lstat(blobPath(digest))
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Missing, file + " is missing"
	case err != nil:
		return Missing, err.Error()
	case !info.Mode().IsRegular():
		return Damaged, file + " is not a regular file"
	case info.Size() != part.Size:
		return Damaged, fmt.Sprintf("%s has %d bytes, not %d", file, info.Size(), part.Size)
	}
	got, known := s.knownDigest(keyOf(identityOf(info), file))
	switch {
	case known && got == digest:
		return OK, ""
	case known:
		return Damaged, fmt.Sprintf("%s has SHA-256 %s, not %s", file, got, digest)
	}
	return Unverified, file + " was never hashed, or has changed since"
}

// Show returns one model of the store.
func (s *Store) Show(name string) (Entry, error) {
	m, err := s.Manifest(name)
	if err != nil {
		return Entry{}, err
	}
	d, err := s.open(false)
	if err != nil {
		return Entry{}, err
	}
	return s.entry(d, m), nil
}

// Verify reads all files of the named models, or of all models if names is empty, and compares
// their digests. It changes nothing in the store. A model that fails is an entry with the state
// Missing or Damaged; a manifest that cannot be read is a problem; a name without a manifest is an
// error. Each file is reported to phase before it is read; phase may be nil.
func (s *Store) Verify(ctx context.Context, names []string, phase func(Phase)) (Listing, error) {
	l, err := s.List()
	if err != nil {
		return Listing{}, err
	}
	if len(names) > 0 {
		models := l.Models
		l = Listing{}
		for _, name := range names {
			n := slices.IndexFunc(models, func(e Entry) bool { return e.Name == name })
			if n < 0 {
				_, err := s.Manifest(name)
				damaged, ok := errors.AsType[*DamagedError](err)
				if !ok {
					return Listing{}, err
				}
				l.Torn = append(l.Torn, Problem{damaged.Path, damaged.Err.Error()})
				l.Problems = l.Torn
				continue
			}
			l.Models = append(l.Models, models[n])
		}
	}
	if len(l.Models) == 0 {
		return l, nil
	}
	d, err := s.open(false)
	if err != nil {
		return Listing{}, err
	}
	for n := range l.Models {
		if err := s.verifyEntry(ctx, d, &l.Models[n], phase); err != nil {
			return Listing{}, err
		}
	}
	return l, nil
}

func (s *Store) verifyEntry(ctx context.Context, d *disk, e *Entry, phase func(Phase)) error {
	e.State, e.Why = OK, ""
	for _, part := range e.files() {
		want := part.Blob[len(digestPrefix):]
		f, info, file, err := d.openBlob(part)
		if err != nil {
			e.worsen(Missing, err.Error())
			continue
		}
		got, err := s.hashFile(ctx, f, info, file, phase)
		if err := errors.Join(err, f.Close()); err != nil {
			if ctx.Err() != nil {
				return err
			}
			e.worsen(Damaged, err.Error())
			continue
		}
		if got != want || info.Size() != part.Size {
			e.worsen(Damaged, fmt.Sprintf("%s has %d bytes and SHA-256 %s, not %d and %s", file, info.Size(), got, part.Size, want))
		}
	}
	return nil
}
