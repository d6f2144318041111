//go:build unix && !linux

package proc_test

// What is so on this platform.
const (
	inheritsAll   = true // descriptors that a program left open in us
	dumpableAfter = "unknown"
)

func dumpable() string { return dumpableAfter }
