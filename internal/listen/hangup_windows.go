package listen

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/windows"
)

// lookEvery is how often a pipe is asked. Nothing wakes us when the other end is closed
// unless we read, and reading would consume what the client sends ahead.
const lookEvery = 25 * time.Millisecond

// awaitHangUp knows pipes alone. They cannot be half-closed: an end that is closed is gone.
func awaitHangUp(ctx context.Context, nc net.Conn) error {
	p, ok := nc.(*pipe)
	if !ok {
		return errors.ErrUnsupported
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		there, lookErr := false, error(nil)
		if err := p.control(func(h windows.Handle) { there, lookErr = connected(h) }); err != nil {
			return fmt.Errorf("await hang-up: %w", err)
		}
		switch {
		case lookErr != nil:
			return fmt.Errorf("await hang-up: %w", lookErr)
		case !there:
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// FSCTL_PIPE_PEEK and the beginning of its answer, which PeekNamedPipe leaves out: the state
// says that the other end is closed also while there is something left to read.
const (
	fsctlPipePeek  = 0x0011400C
	peekHeader     = 16 // bytes
	stateConnected = 3
)

// connected reports whether the other end of a pipe is open.
func connected(pipe windows.Handle) (bool, error) {
	var answer [peekHeader]byte
	err := windows.DeviceIoControl(pipe, fsctlPipePeek, nil, 0, &answer[0], peekHeader, new(uint32), nil)
	switch {
	case errors.Is(err, windows.ERROR_BROKEN_PIPE), errors.Is(err, windows.ERROR_PIPE_NOT_CONNECTED):
		return false, nil
	case err != nil && !errors.Is(err, windows.ERROR_MORE_DATA): // of which there is no room for any
		return false, err
	}
	return binary.LittleEndian.Uint32(answer[:]) == stateConnected, nil
}
