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

// pollInterval is the time between two queries of a pipe. A pending read would return at once when
// the other end is closed, but it would consume bytes that the client sends ahead.
const pollInterval = 25 * time.Millisecond

// awaitHangUp supports pipes only. They cannot be half-closed: a closed end is a hang-up.
func awaitHangUp(ctx context.Context, nc net.Conn) error {
	p, ok := nc.(*pipe)
	if !ok {
		return errors.ErrUnsupported
	}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		open, queryErr := false, error(nil)
		if err := p.control(func(h windows.Handle) { open, queryErr = connected(h) }); err != nil {
			return fmt.Errorf("await hang-up: %w", err)
		}
		switch {
		case queryErr != nil:
			return fmt.Errorf("await hang-up: %w", queryErr)
		case !open:
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// FSCTL_PIPE_PEEK, and the header of its answer. The header has the state of the pipe, which shows
// that the other end is closed even while unread bytes are left. PeekNamedPipe does not return the
// state.
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
	case err != nil && !errors.Is(err, windows.ERROR_MORE_DATA): // the buffer has no room for data
		return false, err
	}
	return binary.LittleEndian.Uint32(answer[:]) == stateConnected, nil
}

func sendingEnded(net.Conn) (bool, error) { return false, errors.ErrUnsupported }
