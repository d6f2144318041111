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

// A BusyError means that the lock of a model's name, of a blob or of an ingest is held, as a rule by
// a writer in another process.
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

// A Lock is a lock on the name of a model or on a blob. The kernel releases it when the process
// ends. On a file system without locks it has no effect.
type Lock struct{ file *os.File }

// Release releases the lock. The lock file remains.
func (l *Lock) Release() { _ = l.file.Close() } // nothing was written

// LockName takes the lock that a writer of the model's manifest must hold. It does not wait: if
// another process holds the lock, the error is a [BusyError].
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

// lockBlob locks a blob or an ingest: exclusively to write or remove it, or shared to use it.
func (s *Store) lockBlob(d *disk, digest string, shared bool) (*Lock, error) {
	// No model name begins with a dot, so these files never collide with the locks of names.
	return s.lock(d, ".blob-"+digest+".lock", "blob sha256:"+digest, shared)
}

// maxLockTries bounds how often lock tries again because the lock file was removed after it was
// opened, and how often check tries again because the blob was replaced.
const maxLockTries = 10

// lock takes the lock of the file leaf. It opens that file read-only, because it may belong to
// another user of the store.
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
		err = d.flock(f, shared)
		switch {
		case errors.Is(err, errors.ErrUnsupported): // locks only save work: the store is correct without them
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
	return nil, fmt.Errorf("lock %s: other processes keep removing this lock file", d.path(name))
}

// A lock counts as held only after probeTries failed attempts, with probePause between them:
// listing a store takes each lock for a moment, to see whether it is held.
const (
	probeTries = 6
	probePause = 10 * time.Millisecond
)

// flock locks a file. While another process holds the lock, it makes up to probeTries attempts.
func (d *disk) flock(f *os.File, shared bool) error {
	for try := 1; ; try++ {
		err := d.lockFile(f, shared)
		if try == probeTries || !errors.Is(err, filelock.ErrHeld) {
			return err
		}
		time.Sleep(probePause)
	}
}

// isAt reports whether the open file f is the one at the path name.
func (d *disk) isAt(f *os.File, name string) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := d.root.Lstat(name)
	return err == nil && os.SameFile(open, there)
}

// isHeld reports whether a process holds the exclusive lock of a blob or an ingest.
func (d *disk) isHeld(ref string) bool {
	f, _, err := d.open(path.Join(locksDir, ".blob-"+ref+".lock"), os.O_RDONLY)
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(d.flock(f, true), filelock.ErrHeld)
}

// removeLock removes the lock file of a blob that was removed. The caller holds the lock. A process
// that has opened the file checks, once it has the lock, whether the file is still at its path.
func (d *disk) removeLock(ref string) {
	_ = d.remove(path.Join(locksDir, ".blob-"+ref+".lock")) // an empty file may stay: Windows cannot remove an open one
}

// inUse reports whether a process holds the shared lock of a blob, as its users do; a writer does not
// count. pid is the ID of one such process, which may be this one; it is 0 if unknown.
func (d *disk) inUse(ref string) (pid int, used bool) {
	f, _, err := d.open(path.Join(locksDir, ".blob-"+ref+".lock"), os.O_RDONLY)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	pid = filelock.Holder(f) // must come before the lock attempts of this process
	if !errors.Is(d.flock(f, false), filelock.ErrHeld) {
		return 0, false
	}
	if errors.Is(d.flock(f, true), filelock.ErrHeld) {
		return 0, false // a writer
	}
	return pid, true
}
