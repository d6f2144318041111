package proc_test

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// The behaviour of this platform: dumpableAfter is what dumpable returns after ForbidDumps.
const (
	inheritsAll   = false // children inherit descriptors that another program left open in the parent
	dumpableAfter = "0"
)

func dumpable() string {
	n, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(n)
}
