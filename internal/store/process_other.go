//go:build !linux

package store

// bootID is unknown: after a stop of any kind an ingest continues from its last sync.
func bootID() string { return "" }

// birth is unknown: only locks tell here whether a writer lives.
func birth(int) uint64 { return 0 }
