//go:build unix

package bridge

import (
	"io/fs"
	"os"
	"syscall"
)

// private reports whether the daemon's user owns a file, and no other user can read or change it.
func private(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Getuid() && info.Mode().Perm()&0o077 == 0
}
