package launch

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// inherited returns the path under which an engine opens the file behind its descriptor fd.
func inherited(_ *os.File, fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// fileOf returns a file in memory that has no path, holds content and is sealed against every change.
func fileOf(content []byte) (*os.File, error) {
	const name, flags = "inferd-launch", unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(name, flags|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // a kernel before 6.3
		fd, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.Write(content); err != nil {
		f.Close()
		return nil, err
	}
	const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		f.Close()
		return nil, os.NewSyscallError("fcntl", err)
	}
	return f, nil
}
