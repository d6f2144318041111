//go:build unix && !linux

package proc_test

// The behaviour of this platform.
const (
	inheritsAll   = true // descriptors that a program left open in us
	dumpableAfter = "unknown"
)

func dumpable() string { return dumpableAfter }
