//go:build !linux

package store

// bootID returns an empty text: on this platform an ingest continues from its last sync after any
// kind of stop.
func bootID() string { return "" }

// birth returns 0: on this platform only a lock shows that a writer is alive.
func birth(int) uint64 { return 0 }
