package store

import (
	"errors"
	"os"
)

// nonblocking is nothing: Windows has no named pipes among its files.
const nonblocking = 0

// ownersMatter is false: access lists decide here, and the mode bits are invented.
const ownersMatter = false

// syncDir does nothing: Windows has no call for it, and NTFS keeps the order of its changes.
func syncDir(*os.Root, string) error { return nil }

// syncRead does nothing: Windows syncs only files that are open for writing.
func syncRead(*os.File) error { return nil }

// isReadOnly reports whether a change failed for lack of the right to write.
func isReadOnly(err error) bool { return errors.Is(err, os.ErrPermission) }
