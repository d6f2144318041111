package lease

import (
	"errors"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// notify returns a channel that receives a signal when the system breaks a lease of this process.
func notify() (breaks <-chan os.Signal, stop func()) {
	signals := make(chan os.Signal, 1) // one is enough: the receiver checks every lease
	signal.Notify(signals, unix.SIGIO)
	return signals, func() { signal.Stop(signals) }
}

// duplicate returns a second descriptor of the same open file description. A lease belongs to that
// description, so both descriptors share it.
func duplicate(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// take takes a read lease. It returns errWriter if the file is open for writing; it also fails if this
// process does not own the file.
func take(f *os.File) error {
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	if errors.Is(err, unix.EAGAIN) {
		return errWriter
	}
	return err
}

// held reports whether the lease is intact, that is, not being broken.
func held(f *os.File) bool {
	kind, err := unix.FcntlInt(f.Fd(), unix.F_GETLEASE, 0)
	return err == nil && kind == unix.F_RDLCK
}

// giveUp gives up the lease. Closing the descriptor would not suffice: another process may have
// inherited the open file.
func giveUp(f *os.File) {
	_, _ = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK) // fails if there is no lease
}
