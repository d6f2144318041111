//go:build unix

package store

import (
	"os"
	"syscall"
)

// openNonblocking opens a file for reading. It does not wait for the writer of a named pipe, as a
// plain open does.
func openNonblocking(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
}
