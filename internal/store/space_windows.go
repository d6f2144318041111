package store

import (
	"os"

	"golang.org/x/sys/windows"
)

// freeSpace returns the number of bytes that this user may still use on the disk of a folder.
func freeSpace(dir string) (bytes int64, known bool) {
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, false
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(name, &free, nil, nil); err != nil {
		return 0, false
	}
	return int64(free), true
}

// allocated returns the size of a file: on this platform the blocks on disk are not known.
func allocated(info os.FileInfo) int64 { return info.Size() }
