package proc

import (
	"math"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// attributes puts the child into a group of its own and binds it to our life.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

func forbidDumps() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	return noCoreFiles()
}

// keepDescriptors makes a child inherit none of our descriptors but those that it is given:
// our own parent may have left some open in us. A kernel before 5.11 cannot do it.
func keepDescriptors() { _ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) }
