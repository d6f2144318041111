// Package filelock locks files: [Acquire] locks a path for one process at a time, and [File] an open
// file, exclusively or shared. The kernel releases a lock when the process ends, however it ends. The
// file itself stays, and its content has no meaning.
package filelock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/inferd-go/inferd/internal/trust"
)

// ErrHeld is the error of [File] if another open file has the lock.
var ErrHeld = errors.New("held by another process")

// A Lock is held until it is released or the process ends.
type Lock struct{ file *os.File }

// Acquire takes the lock at path without waiting. It creates the file and its folders if
// necessary, with access for the user only, and leaves the content of the file alone. It
// refuses symbolic links, files that are not regular, and a file or a folder that other users
// can change (package trust).
//
// Child processes do not inherit the lock: the file is closed when they start.
func Acquire(path string) (*Lock, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("create the folder of the lock: %w", err)
	}
	if err := trust.Folder(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("folder of the lock: %w", err)
	}
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("stat the lock: %w", err)
	case info.Mode()&fs.ModeSymlink != 0:
		return nil, fmt.Errorf("lock path is a symlink (refused): %s", path)
	case !info.Mode().IsRegular():
		return nil, notRegular(path)
	}
	// The file may have been replaced since Lstat: the open file is checked again.
	file, err := trust.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock: %w", err)
	}
	if err := take(file); err != nil {
		defer file.Close()
		if !errors.Is(err, ErrHeld) {
			return nil, err
		}
		by := ""
		if pid := holder(file); pid > 0 {
			by = fmt.Sprintf(" (pid %d)", pid)
		}
		return nil, fmt.Errorf("another inferd-daemon%s already holds the lock at %s", by, path)
	}
	return &Lock{file: file}, nil
}

// File locks an open file without waiting: shared with other shared locks, or exclusively. The lock
// ends when the file is closed. It returns ErrHeld if the lock is taken, and
// [errors.ErrUnsupported] if the file system has no locks. The owner and mode of the file and its
// folder are not checked.
func File(f *os.File, shared bool) error { return lock(f, shared) }

// Holder returns the pid of a process with a lock on the file; 0 means that it is unknown.
func Holder(f *os.File) int { return holder(f) }

func take(file *os.File) error {
	if err := lock(file, false); err != nil {
		return fmt.Errorf("lock %s: %w", file.Name(), err)
	}
	return nil
}

func notRegular(path string) error { return fmt.Errorf("lock path is not a regular file: %s", path) }

// Release releases the lock. The file stays: if it were removed, a process that has the old
// file open and a process that creates a new one could both hold the lock.
func (l *Lock) Release() { l.file.Close() }
