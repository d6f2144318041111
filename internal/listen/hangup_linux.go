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
	err = raw.Read(w.poll) // sleeps in the runtime's poller, so it occupies no thread
	if !stop() {
		<-w.interrupted                         // else interrupt could set the deadline after the next line
		_ = w.conn.SetReadDeadline(time.Time{}) // fails only if nc is closed; raw.Read has failed then, too
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

// poll reports whether the peer has hung up or poll(2) has failed. The runtime calls it once before it
// waits, and after each event. It queries the present state, so unread bytes and an earlier half-close
// do not hide a hang-up.
func (w *watch) poll(fd uintptr) bool {
	for {
		w.fds[0] = unix.PollFd{Fd: int32(fd)} // hang-ups and errors are always reported
		_, err := unix.Poll(w.fds[:], 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		w.err = err
		return err != nil || w.fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	}
}

func sendingEnded(nc net.Conn) (ended bool, err error) {
	conn, ok := nc.(syscall.Conn)
	if !ok {
		return false, errors.ErrUnsupported
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return false, fmt.Errorf("look for a hang-up: %w", err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		for {
			if _, failed = unix.Poll(fds, 0); !errors.Is(failed, unix.EINTR) {
				break
			}
		}
		ended = fds[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
	})
	if err = errors.Join(err, failed); err != nil {
		return false, fmt.Errorf("look for a hang-up: %w", err)
	}
	return ended, nil
}
