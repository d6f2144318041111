package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"time"

	"github.com/inferd-go/inferd/internal/filelock"
)

// A BusyError means that another process writes the model or the blob.
type BusyError struct {
	What string // "model \"x\"", or "blob sha256:…"
	PID  int    // 0 if unknown
}

func (e *BusyError) Error() string {
	by := ""
	if e.PID > 0 {
		by = fmt.Sprintf(" (pid %d)", e.PID)
	}
	return e.What + " is being written by another process" + by
}

// A Lock is a lock on a model's name or on a blob. The kernel holds it: it ends with the
// process. On a file system without locks it is only the file.
type Lock struct{ file *os.File }

// Release gives the lock up. Its file stays.
func (l *Lock) Release() { _ = l.file.Close() } // nothing was written

// LockName locks a model's name against other writers of its manifest, without waiting. If
// another process has it, the error is a [BusyError].
func (s *Store) LockName(name string) (*Lock, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	d, err := s.open(true)
	if err != nil {
		return nil, err
	}
	return s.lock(d, name+".lock", fmt.Sprintf("model %q", name), false)
}

// lockBlob locks a digest: for its writer alone, or shared for its users.
func (s *Store) lockBlob(d *disk, digest string, shared bool) (*Lock, error) {
	// The dot keeps it apart from the locks of names.
	return s.lock(d, ".blob-"+digest+".lock", "blob sha256:"+digest, shared)
}

// maxLockTries is how often a lock's file may be removed between its open and its lock.
const maxLockTries = 10

// lock opens the lock file for reading, so that it may belong to another user of the store.
func (s *Store) lock(d *disk, leaf, what string, shared bool) (*Lock, error) {
	name := path.Join(locksDir, leaf)
	for range maxLockTries {
		f, _, err := d.open(name, os.O_RDONLY)
		if errors.Is(err, fs.ErrNotExist) {
			if f, err = d.create(name, sharedFileMode); errors.Is(err, fs.ErrExist) {
				f, _, err = d.open(name, os.O_RDONLY)
			}
		}
		if err != nil {
			return nil, s.unwritable(err)
		}
		err = flock(f, shared)
		switch {
		case errors.Is(err, errors.ErrUnsupported): // locks only spare work: correctness does not rest on them
			return &Lock{f}, nil
		case errors.Is(err, filelock.ErrHeld):
			return nil, errors.Join(&BusyError{what, filelock.Holder(f)}, f.Close())
		case err != nil:
			return nil, errors.Join(fmt.Errorf("lock %s: %w", d.path(name), err), f.Close())
		case d.isAt(f, name):
			return &Lock{f}, nil
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("lock %s: others keep removing it", d.path(name))
}

// A listing of the store takes locks for a moment, to see whether they are held: a lock that is
// held longer than probeTries times probePause is in use.
const (
	probeTries = 6
	probePause = 10 * time.Millisecond
)

// flock locks a file, unless another process has it for longer than a moment.
func flock(f *os.File, shared bool) error {
	for try := 1; ; try++ {
		err := filelock.File(f, shared)
		if try == probeTries || !errors.Is(err, filelock.ErrHeld) {
			return err
		}
		time.Sleep(probePause)
	}
}

// isAt reports whether an open file is the one of that name.
func (d *disk) isAt(f *os.File, name string) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := d.root.Lstat(name)
	return err == nil && os.SameFile(open, there)
}

// isHeld reports whether a process has the lock of a blob or an ingest for itself.
func (d *disk) isHeld(ref string) bool {
	f, _, err := d.open(path.Join(locksDir, ".blob-"+ref+".lock"), os.O_RDONLY)
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(flock(f, true), filelock.ErrHeld)
}

// removeLock removes the lock file of a blob that is gone. The caller has the lock; a process
// that has opened the file sees after its lock that the file is not there any longer.
func (d *disk) removeLock(ref string) {
	_ = d.remove(path.Join(locksDir, ".blob-"+ref+".lock")) // it is empty, and Windows keeps open files
}

// user returns a process that uses a blob, which may be this one; 0 if it is unknown.
func (d *disk) user(ref string) (pid int, used bool) {
	f, _, err := d.open(path.Join(locksDir, ".blob-"+ref+".lock"), os.O_RDONLY)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	pid = filelock.Holder(f) // before this process takes the lock itself
	if !errors.Is(flock(f, false), filelock.ErrHeld) {
		return 0, false
	}
	if errors.Is(flock(f, true), filelock.ErrHeld) {
		return 0, false // a writer
	}
	return pid, true
}
