package daemon

// descriptorLimit returns 0: Windows has no limit that a process could reach.
func descriptorLimit() int64 { return 0 }
