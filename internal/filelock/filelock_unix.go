//go:build unix

package filelock

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func lock(file *os.File, shared bool) error {
	how := unix.LOCK_EX
	if shared {
		how = unix.LOCK_SH
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	if ctlErr := raw.Control(func(fd uintptr) {
		err = unix.Flock(int(fd), how|unix.LOCK_NB)
	}); ctlErr != nil {
		return ctlErr
	}
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		return ErrHeld
	case errors.Is(err, unix.ENOLCK), errors.Is(err, unix.EBADF): // on NFS; EBADF if the file is open only for reading
		return fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	return err
}
