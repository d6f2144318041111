//go:build unix

package store

import (
	"os"
	"syscall"
)

// openNonblocking opens a file for reading. A named pipe without a writer opens, too, where a
// plain open would wait for one.
func openNonblocking(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
}
