//go:build unix

package filelock

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

func lock(file *os.File) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	if ctlErr := raw.Control(func(fd uintptr) {
		err = unix.Flock(int(fd), unix.LOCK_EX|unix.LOCK_NB)
	}); ctlErr != nil {
		return ctlErr
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		return errHeld
	}
	return err
}
