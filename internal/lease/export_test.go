package lease

import "time"

// NewGuard returns a guard with its own times: compare is the time between two comparisons, and writer
// is the longest time that Add waits for a writer to close the file.
func NewGuard(compare, writer time.Duration) *Guard {
	return newGuard(times{compare, writer, writer / 10})
}
