package store

import (
	"errors"
	"os"
)

// nonblocking has no flags: on Windows a path of the file system is never a named pipe.
const nonblocking = 0

// ownersMatter is false: on Windows access lists control write access, and mode bits mean nothing.
const ownersMatter = false

// syncDir does nothing: Windows has no such call, and NTFS keeps the order of its changes.
func syncDir(*os.Root, string) error { return nil }

// syncRead does nothing: Windows syncs only files that are open for writing.
func syncRead(*os.File) error { return nil }

// isReadOnly reports whether err means that the user lacks the permission for a change.
func isReadOnly(err error) bool { return errors.Is(err, os.ErrPermission) }
