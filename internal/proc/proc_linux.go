package proc

import (
	"math"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// attributes returns the attributes that put the child into a process group of its own, and that
// make the kernel kill the child when the thread that started it ends, and thus when this process
// ends.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

func forbidDumps() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	return noCoreFiles()
}

// keepDescriptors prevents children from inheriting descriptors other than the connection and
// [Command.Files]: the parent of this process may have left some open. Kernels before 5.11 do not
// support this flag, so there the descriptors are inherited.
func keepDescriptors() { _ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) }
