package status

// Snapshot returns the latest lifecycle event.
func (b *Board) Snapshot() Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.snapshot
}
