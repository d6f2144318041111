//go:build unix

package store

import (
	"errors"
	"os"
	"syscall"
)

// nonblocking has a named pipe opened without waiting for its other end.
const nonblocking = syscall.O_NONBLOCK | syscall.O_NOCTTY

// syncDir writes a folder's entries to disk, if its file system can do so.
func syncDir(root *os.Root, dir string) error {
	f, err := root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(syncRead(f), f.Close())
}

// syncRead writes a folder or a file that is open for reading to disk, if its file system can
// do so.
func syncRead(f *os.File) error {
	err := f.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

// ownersMatter says that mode bits decide on the right to change a file.
const ownersMatter = true

// isReadOnly reports whether a change failed for lack of the right to write.
func isReadOnly(err error) bool {
	return errors.Is(err, syscall.EROFS) || errors.Is(err, os.ErrPermission)
}
