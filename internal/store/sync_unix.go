//go:build unix

package store

import (
	"errors"
	"os"
	"syscall"
)

// nonblocking are the flags that open a named pipe without waiting for its other end.
const nonblocking = syscall.O_NONBLOCK | syscall.O_NOCTTY

// syncDir syncs a folder's entries, if its file system supports that.
func syncDir(root *os.Root, dir string) error {
	f, err := root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(syncRead(f), f.Close())
}

// syncRead syncs a file or folder that is open read-only, if its file system supports that.
func syncRead(f *os.File) error {
	err := f.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

// ownersMatter means that the owner and the mode bits of a file control write access to it.
const ownersMatter = true

// isReadOnly reports whether err means that the disk or the folder cannot be written to.
func isReadOnly(err error) bool {
	return errors.Is(err, syscall.EROFS) || errors.Is(err, os.ErrPermission)
}
