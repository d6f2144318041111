//go:build unix

package bridge

import (
	"io/fs"
	"os"
	"syscall"
)

// private reports whether only the daemon's user can read a file.
func private(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Getuid() && info.Mode().Perm()&0o077 == 0
}
