package store

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// reserve allocates blocks for a file without changing its size. On file systems without support it
// does nothing.
func reserve(f *os.File, size int64) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	if ctlErr := raw.Control(func(fd uintptr) {
		for {
			if err = unix.Fallocate(int(fd), unix.FALLOC_FL_KEEP_SIZE, 0, size); !errors.Is(err, unix.EINTR) {
				return
			}
		}
	}); ctlErr != nil {
		return ctlErr
	}
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return err
}
