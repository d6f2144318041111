// Package shortdir makes temporary folders with short names for tests, on disk or in memory. The
// path of a socket is limited to about a hundred bytes. The names of [testing.T.TempDir] can exceed
// that, because they contain the name of the test. The package does not depend on the content of
// the folder.
package shortdir

import (
	"os"
	"testing"
)

// New returns a new folder, which is removed with its content when the test ends.
func New(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "i")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// InMemory returns a new folder like [New], but in memory at /dev/shm, where changes and syncs cost little. If
// that file system is missing, it returns New(tb).
func InMemory(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "i")
	if err != nil {
		return New(tb)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
