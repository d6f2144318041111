//go:build unix

package filelock

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// O_NONBLOCK: if a named pipe has just replaced the file, open must not block.
const noFollow = unix.O_NOFOLLOW | unix.O_NONBLOCK

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
