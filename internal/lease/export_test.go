package lease

import "time"

// NewGuard returns a guard that compares files every compare, and whose Add waits up to writer for a
// writer to close the file.
func NewGuard(compare, writer time.Duration) *Guard {
	return newGuard(times{compare, writer, writer / 10})
}
