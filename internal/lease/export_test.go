package lease

import "time"

// NewGuard returns a guard with other times than the usual ones: between two comparisons, and for
// which it waits for the end of a writer.
func NewGuard(compare, writer time.Duration) *Guard {
	return newGuard(times{compare, writer, writer / 10})
}
