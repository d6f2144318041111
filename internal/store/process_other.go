//go:build !linux

package store

// bootID is unknown: after a stop of any kind an ingest continues from its last sync.
func bootID() string { return "" }

// birth is unknown: on this platform only locks show that a writer is alive.
func birth(int) uint64 { return 0 }
