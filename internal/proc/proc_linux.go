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

// keepDescriptors keeps the descriptors of this process out of its children, except for
// [Command.Files]: our own parent may have left some open. Kernels before 5.11 cannot do it.
func keepDescriptors() { _ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) }
