package store

import (
	"os"
	"syscall"
	"time"
)

// changeTime is when the file's content or inode changed last. Unlike the modification time
// it cannot be set.
func changeTime(info os.FileInfo) time.Time {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return time.Unix(stat.Ctim.Unix())
	}
	return time.Time{}
}
