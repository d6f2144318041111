//go:build unix

package daemon

import "syscall"

// descriptorLimit returns the maximum number of descriptors of the process; 0 means that it is
// unknown. The Go runtime has raised the soft limit to the hard one.
func descriptorLimit() int64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return int64(min(limit.Cur, 1<<31)) // RLIM_INFINITY exceeds an int64
}
