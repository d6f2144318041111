package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func awaitHangUp(ctx context.Context, nc net.Conn) error {
	switch nc.(type) {
	case *net.UnixConn, *net.TCPConn:
	default:
		return errors.ErrUnsupported
	}
	conn, ok := nc.(syscall.Conn)
	if !ok {
		return errors.ErrUnsupported
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("await hang-up: %w", err)
	}
	w := &watch{conn: nc, interrupted: make(chan struct{})}
	if err := w.conn.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("await hang-up: %w", err)
	}
	stop := context.AfterFunc(ctx, w.interrupt)
	err = raw.Read(w.look) // sleeps in the runtime's poller, so no thread is held
	if !stop() {
		<-w.interrupted                         // else the deadline could come after it has been cleared
		_ = w.conn.SetReadDeadline(time.Time{}) // fails if closed, which then shows below
	}
	switch {
	case err == nil:
		err = w.err
	case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil:
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("await hang-up: %w", err)
	}
	return nil
}

// A watch is one call of AwaitHangUp.
type watch struct {
	conn        net.Conn
	interrupted chan struct{} // closed once interrupt has set the deadline
	fds         [1]unix.PollFd
	err         error // of poll
}

// interrupt ends the wait.
func (w *watch) interrupt() {
	_ = w.conn.SetReadDeadline(time.Unix(1, 0)) // fails if closed, which ends the wait too
	close(w.interrupted)
}

// look reports whether there is nothing more to wait for. It is called at first and
// whenever anything arrives or changes, and asks for the state, not for what changed:
// bytes that stay unread and a half-close before hide nothing from it.
func (w *watch) look(fd uintptr) bool {
	for {
		w.fds[0] = unix.PollFd{Fd: int32(fd)} // hang-up and errors are told unasked
		_, err := unix.Poll(w.fds[:], 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		w.err = err
		return err != nil || w.fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	}
}
