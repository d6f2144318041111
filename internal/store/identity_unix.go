//go:build unix

package store

import (
	"io/fs"
	"os"
	"syscall"
)

// links returns the number of names that a file has.
func links(info os.FileInfo) uint64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(stat.Nlink) //nolint:unconvert // its type differs between platforms
	}
	return 1
}

// isShared reports whether a folder is for a group of users: the group may write, or new entries
// belong to it. This holds even if the group is the primary group of this process.
func isShared(info os.FileInfo) bool {
	return info.Mode()&0o020 != 0 || info.Mode()&fs.ModeSetgid != 0
}

// isOwn reports whether a file belongs to the user of this process.
func isOwn(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}
