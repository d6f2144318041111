// Package store keeps models: it writes their bytes to disk, verifies them, and opens them. It
// returns a model as open files, so that an engine loads the verified content even if the files are
// replaced at their paths. A model is found by its name in a folder that other programs may share,
// or it is a file of the operator, or built in. Other packages fetch the bytes and load the models.
//
// A model is added like this:
//
//	lock, err := s.LockName(name)       // one writer of a name
//	defer lock.Release()
//	in, err := s.Begin(store.Want{...}) // starts or resumes; one writer of a blob
//	defer in.Close()
//	in.WriteAt(...)                     // in any order, from several goroutines; see in.Ranges
//	blob, err := in.Commit(ctx)         // checked and on disk; or a MismatchError
//	err = s.PutManifest(&store.Manifest{...}, false)
package store

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/inferd-go/inferd/internal/builtin"
	"github.com/inferd-go/inferd/internal/lease"
	"github.com/inferd-go/inferd/internal/status"
)

// A Ref names a model by one of Name, Path and Builtin.
type Ref struct {
	Name    string // name of a model in the store
	Path    string // a GGUF file; of a split model, the first part
	Builtin string // name of a model of package builtin
	// SHA256 is the expected digest of the file at Path, or of the model named Name, in lower-case
	// hex; empty means unknown. With Name and SHA256, the blob is found even without a manifest.
	SHA256 string
}

// A Model is a model with open files. They have been verified, except for a model that was opened by
// its path: of such a model only the first file is, and only if the [Ref] has a digest. The caller
// must close the model.
type Model struct {
	Name   string      // name in the store; empty for other models
	Path   string      // absolute path of the first file, for reports and errors
	Info   os.FileInfo // state of the first file when it was opened
	Digest string      // SHA-256 of the content, in hex; empty if unknown, or if the model is split
	Files  []*os.File  // the parts in order, or the only file
	// Guard watches the files, beginning before they were verified; it is nil unless the store is
	// Guarded. To keep the watch beyond Close, take the guard and set the field to nil.
	Guard *lease.Guard
}

// watch adds a file to the guard, if there is one, and returns the file's state after that.
func (m *Model) watch(ctx context.Context, f *os.File, info os.FileInfo, path string) (os.FileInfo, error) {
	if m.Guard == nil {
		return info, nil
	}
	if err := m.Guard.Add(ctx, f, path); err != nil {
		return nil, err
	}
	return f.Stat()
}

// Close closes the files, and ends the watch.
func (m *Model) Close() {
	if m.Guard != nil {
		m.Guard.Close()
	}
	for _, f := range m.Files {
		_ = f.Close() // only read
	}
}

// A Store is a folder of models that other programs and users may share. The zero value opens
// models by the paths of their files only. Its methods may be called from any goroutine.
//
// The folder has blobs, named by their digests, and manifests: each gives a name to a model, and
// lists the digests of its blobs. Every blob and manifest is whole or absent, even if a process is
// killed or the machine loses power.
type Store struct {
	// Home is the folder of models. The first write creates it. If Home is empty, no model is found
	// by name.
	Home string
	// BuiltinDir is the folder where built-in models are generated.
	BuiltinDir string
	// VerifiedFile is the file with the digests of files that were verified on this machine. If it
	// is empty, this process keeps the digests only in memory.
	VerifiedFile string
	// Paranoid means that files are hashed each time a model is opened.
	Paranoid bool
	// Guarded means that the files of an opened model are watched; see package lease.
	Guarded bool
	// Before is for tests that record changes or make them fail. It is called before each change in
	// Home, by one goroutine at a time; an error prevents the change.
	Before func(Op) error
	// Boot replaces the identity of this boot of the machine, for tests of power cuts.
	Boot string

	mu       sync.Mutex       // guards the fields below
	disk     *disk            // nil until it is needed
	ready    bool             // all folders of the layout exist
	useLocks map[string]*Lock // by digest: shared locks of the blobs of opened models
	// writing counts the open ingests of this store by name; see [Want.ref]. Each holds the lock of
	// its name.
	writing map[string]int

	digests digests

	lockFile func(f *os.File, shared bool) error // replaces file locks in tests; nil means locks of the system
}

// boot identifies this boot of the machine; it is empty if unknown.
func (s *Store) boot() string { return cmp.Or(s.Boot, bootID()) }

// Ensure opens the model of ref. It returns an error if the model is missing or does not have the
// expected digest. Symbolic links are followed, because other tools store models behind them; each
// file is opened once, and checked by its descriptor. A file that is unchanged since it was
// verified (inode, size, times) is not read again. Phases are reported to phase, which may be nil.
func (s *Store) Ensure(ctx context.Context, ref Ref, phase func(status.Phase)) (*Model, error) {
	if phase == nil {
		phase = func(status.Phase) {}
	}
	if ref.Builtin != "" {
		return s.builtin(ctx, ref.Builtin, phase)
	}
	if ref.Name != "" {
		return s.named(ctx, ref, phase)
	}
	path, err := filepath.Abs(ref.Path)
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", ref.Path, err)
	}
	phase(status.CheckingLocal{Path: path})
	m, err := s.openFiles(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("model: %w", err) // err names the file
	}
	if ref.SHA256 != "" {
		if err := s.verify(ctx, m, ref.SHA256, phase); err != nil {
			m.Close()
			return nil, err
		}
	}
	return m, nil
}

// builtin generates a built-in model if its file is missing. It verifies the opened file: the user
// can write to the folder, so the file may have been replaced since it was generated.
func (s *Store) builtin(ctx context.Context, name string, phase func(status.Phase)) (*Model, error) {
	path, digest, err := s.generate(name)
	if err != nil {
		return nil, fmt.Errorf("built-in model %s: %w", name, err)
	}
	phase(status.CheckingLocal{Path: path})
	m, err := s.openFiles(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("built-in model: %w", err) // err names the file
	}
	if err := s.verify(ctx, m, digest, func(status.Phase) {}); err != nil {
		m.Close()
		return nil, fmt.Errorf("built-in model %s: %w", name, err)
	}
	return m, nil
}

func (s *Store) generate(name string) (path, digest string, err error) {
	if path, err = builtin.Ensure(s.BuiltinDir, name); err != nil {
		return "", "", err
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", "", err
	}
	digest, err = builtin.Digest(name)
	return path, digest, err
}

// newModel returns a model without files.
func (s *Store) newModel(name, path string) *Model {
	m := &Model{Name: name, Path: path}
	if s.Guarded {
		m.Guard = lease.New()
	}
	return m
}

// openFiles opens the file at path, or all parts of a split model if path is its first part.
func (s *Store) openFiles(ctx context.Context, path string) (*Model, error) {
	m := s.newModel("", path)
	parts := partsOf(path)
	if len(parts) > maxParts {
		m.Close()
		return nil, fmt.Errorf("%s has %d parts: at most %d can be loaded", path, len(parts), maxParts)
	}
	for i, part := range parts {
		f, info, err := openRegular(part)
		if err != nil {
			m.Close()
			if i > 0 {
				err = fmt.Errorf("part %d of %d: %w", i+1, len(parts), err)
			}
			return nil, err
		}
		m.Files = append(m.Files, f)
		if info, err = m.watch(ctx, f, info, part); err != nil {
			m.Close()
			return nil, err
		}
		if i == 0 {
			m.Info = info
		}
	}
	return m, nil
}

// openRegular opens a regular file. It checks the type before the open, so that no device is
// opened, and again by the descriptor: the file at the path may have been replaced in between.
func openRegular(path string) (*os.File, os.FileInfo, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := openNonblocking(path) // it may have become a named pipe
	if err != nil {
		return nil, nil, err
	}
	if info, err = f.Stat(); err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		_ = f.Close() // only read
		return nil, nil, err
	}
	return f, info, nil
}

// verify returns an error unless the first file has the digest want. It does not read a file that
// is unchanged since that digest was recorded, unless s.Paranoid is set.
func (s *Store) verify(ctx context.Context, m *Model, want string, phase func(status.Phase)) error {
	if len(m.Files) == 1 {
		m.Digest = want
	}
	got, err := s.digestOf(ctx, m.Files[0], m.Info, m.Path, want, phase)
	switch {
	case err != nil:
		return err
	case got != want:
		return fmt.Errorf("model %s has SHA-256 %s, but %s was expected", m.Path, got, want)
	}
	return nil
}

// digest returns the SHA-256 of the first size bytes of a file, in hex. It does not move the offset
// of the file.
func digest(ctx context.Context, f *os.File, size int64) (string, error) {
	h := sha256.New()
	content := io.NewSectionReader(f, 0, size)
	if _, err := io.Copy(h, readerFunc(func(p []byte) (int, error) {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		return content.Read(p)
	})); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
