package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/inferd-go/inferd/internal/filelock"
)

// errNoHome is the error of [Store.open] if no folder of models is configured.
var errNoHome = errors.New("no folder of models is configured")

// open returns the store's folder, which it opens on the first call. If write is set, it creates
// the folder and its subfolders; otherwise a missing folder is an error that wraps
// [fs.ErrNotExist].
func (s *Store) open(write bool) (*disk, error) {
	if s.Home == "" {
		return nil, errNoHome
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.disk == nil {
		home, err := filepath.Abs(s.Home)
		if err != nil {
			return nil, fmt.Errorf("model store: %w", err)
		}
		if write {
			if err := makeHome(home); err != nil {
				return nil, s.unwritable(err)
			}
		}
		root, err := os.OpenRoot(home)
		if err != nil {
			return nil, fmt.Errorf("model store: %w", err)
		}
		info, err := root.Stat(".")
		if err != nil {
			return nil, errors.Join(fmt.Errorf("model store: %w", err), root.Close())
		}
		s.disk = &disk{root: root, before: s.Before, shared: isShared(info), lockFile: filelock.File}
		if s.lockFile != nil {
			s.disk.lockFile = s.lockFile
		}
	}
	if write && !s.ready {
		for _, dir := range []string{".", manifestsDir, blobsDir, locksDir, quarantineDir} {
			if err := s.disk.mkdirAll(dir); err != nil {
				return nil, s.unwritable(err)
			}
			if err := s.disk.checkMode(dir); err != nil {
				return nil, err
			}
		}
		s.ready = true
	}
	return s.disk, nil
}

// makeHome creates the folder of a store and its missing parents, readable for all users: models
// are not secret, and may be shared. It syncs the parent of each new folder, and always that of
// the store's folder: an earlier process may have created it and been killed before its sync.
func makeHome(home string) error {
	made := []string{home}
	for dir := filepath.Dir(home); ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		made = append(made, dir)
	}
	if err := os.MkdirAll(home, dirMode); err != nil {
		return err
	}
	for _, dir := range made {
		if err := syncFolder(filepath.Dir(dir)); err != nil && !errors.Is(err, fs.ErrPermission) { // the user may have no access to a parent
			return err
		}
	}
	return nil
}

// syncFolder syncs the entries of a folder that is not part of an open store.
func syncFolder(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	return errors.Join(syncDir(root, "."), root.Close())
}

// Close closes the folder and releases the locks on models that Ensure returned. The next call of
// a method opens the store again.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.useLocks {
		l.Release()
	}
	s.useLocks = nil
	if s.disk == nil {
		return nil
	}
	err := s.disk.root.Close()
	s.disk, s.ready = nil, false
	return err
}

// checkMode returns an error if every user can replace files in a folder of the store. The digest of a
// model comes from its manifest, so write access to manifests is write access to models.
func (d *disk) checkMode(dir string) error {
	info, err := d.root.Stat(dir)
	if err != nil {
		return err
	}
	if info.Mode()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0 && ownersMatter {
		return fmt.Errorf("model store: every user can change the folder %s (mode %04o): refused; run \"chmod o-w %[1]s\"", d.path(dir), info.Mode().Perm())
	}
	return nil
}

// unwritable adds the folder of the store to the error of a change. If the store is read-only, or has
// a link that leads out of it, it also adds advice for the operator.
func (s *Store) unwritable(err error) error {
	switch {
	case isReadOnly(err):
		return fmt.Errorf("the model store %s cannot be written to (models in it can be used all the same): choose another with models_home or MODELS_HOME: %w", s.Home, err)
	case isEscape(err):
		return fmt.Errorf("the model store %s has a symbolic link to a place outside of it: put the whole store there, and set models_home or MODELS_HOME to that place: %w", s.Home, err)
	}
	return fmt.Errorf("model store %s: %w", s.Home, err)
}

// isEscape reports whether os.Root refused a link that leads out of the folder. The os package
// exports no error value for that, so the text is compared.
func isEscape(err error) bool {
	path, ok := errors.AsType[*fs.PathError](err)
	return ok && path.Err != nil && path.Err.Error() == "path escapes from parent"
}
