package lease

import (
	"errors"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// notify returns a channel that has something after the system has broken a lease of this process.
func notify() (breaks <-chan os.Signal, stop func()) {
	signals := make(chan os.Signal, 1) // one stands for all: every lease is looked at
	signal.Notify(signals, unix.SIGIO)
	return signals, func() { signal.Stop(signals) }
}

// duplicate returns another descriptor of an open file. A lease belongs to the open file, which both share.
func duplicate(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// take takes a read lease. The file's owner may; a file that is open for writing gets none.
func take(f *os.File) error {
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	if errors.Is(err, unix.EAGAIN) {
		return errWriter
	}
	return err
}

// held reports whether a lease is not being broken.
func held(f *os.File) bool {
	kind, err := unix.FcntlInt(f.Fd(), unix.F_GETLEASE, 0)
	return err == nil && kind == unix.F_RDLCK
}

// giveUp gives up a lease, also if another process has inherited the file.
func giveUp(f *os.File) {
	_, _ = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK) // there may be none
}
