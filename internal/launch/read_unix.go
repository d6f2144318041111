//go:build unix

package launch

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// inheritedContract reads the contract. It neither moves the descriptor's offset nor closes it, so the
// contract can be read again after an execve.
func inheritedContract() ([]byte, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("%w: descriptor %d is not a file with the contract", errOtherBuild, fd)
	}
	if stat.Size > maxSize {
		return nil, fmt.Errorf("it has %d bytes, at most %d are read", stat.Size, maxSize)
	}
	content := make([]byte, stat.Size)
	for at := 0; at < len(content); {
		n, err := unix.Pread(fd, content[at:], int64(at))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, err
		case n == 0:
			return nil, io.ErrUnexpectedEOF
		}
		at += max(n, 0)
	}
	return content, nil
}
