package store

import (
	"os"

	"golang.org/x/sys/windows"
)

// freeSpace is the room that this user has on a folder's disk.
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

// allocated is the number of bytes that a file has on disk: at least so many.
func allocated(info os.FileInfo) int64 { return info.Size() }
