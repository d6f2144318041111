package store

import (
	"os"
	"syscall"
)

func inode(info os.FileInfo) (dev, ino uint64, ctime int64) {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return stat.Dev, stat.Ino, stat.Ctim.Nano()
	}
	return 0, 0, 0
}
