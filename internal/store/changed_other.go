//go:build !linux

package store

import (
	"os"
	"time"
)

// changeTime is the same for all files: the modification time has to do here.
func changeTime(os.FileInfo) time.Time { return time.Time{} }
