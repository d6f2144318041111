package libraries

import (
	"io/fs"
	"syscall"
	"time"
)

// changeTime is the time of the last change of the inode. No program can set it.
func changeTime(info fs.FileInfo) time.Time {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return time.Unix(stat.Ctim.Unix())
	}
	return time.Time{}
}
