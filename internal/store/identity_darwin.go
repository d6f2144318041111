package store

import (
	"os"
	"syscall"
)

func inode(info os.FileInfo) (dev, ino uint64, ctime int64) {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(stat.Dev), stat.Ino, stat.Ctimespec.Nano()
	}
	return 0, 0, 0
}
