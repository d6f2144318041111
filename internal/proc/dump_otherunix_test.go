//go:build unix && !linux

package proc_test

// The behaviour of this platform: dumpableAfter is what dumpable returns after ForbidDumps.
const (
	inheritsAll   = true // children inherit descriptors that another program left open in the parent
	dumpableAfter = "unknown"
)

func dumpable() string { return dumpableAfter }
