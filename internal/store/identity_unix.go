//go:build unix

package store

import (
	"io/fs"
	"os"
	"syscall"
)

// links is the number of names that a file has.
func links(info os.FileInfo) uint64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(stat.Nlink) //nolint:unconvert // its type differs between platforms
	}
	return 1
}

// isShared reports whether a folder is for a group of users: its group is not the one of this
// process, and it may write or hands itself on.
func isShared(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Gid) != os.Getegid() && (info.Mode()&0o020 != 0 || info.Mode()&fs.ModeSetgid != 0)
}
