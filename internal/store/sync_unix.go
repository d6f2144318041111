//go:build unix

package store

import (
	"errors"
	"os"
	"syscall"
)

// nonblocking has a named pipe opened without waiting for its other end.
const nonblocking = syscall.O_NONBLOCK | syscall.O_NOCTTY

// syncDir writes a folder's entries to disk.
func syncDir(root *os.Root, dir string) error {
	f, err := root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// ownersMatter says that mode bits decide on the right to change a file.
const ownersMatter = true

// isReadOnly reports whether a change failed for lack of the right to write.
func isReadOnly(err error) bool {
	return errors.Is(err, syscall.EROFS) || errors.Is(err, os.ErrPermission)
}
