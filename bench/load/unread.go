package load

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Unread is an order for connections that send a request and never read.
type Unread struct {
	Target  Target // v1 or v2
	Request Request
	First   int // uid of the first user; -1 means that all users are the user of the process
	Users   int
	Each    int // number of connections of each user
}

// An UnreadState is the state of the connections of an [Unread].
type UnreadState struct {
	Asked int // number of requests so far
}

// NeverRead reads an [Unread] from in, and opens its connections. It writes their state to out
// once all have sent their requests, and again when in ends. If the server closes a connection,
// it opens another.
//
// One process acts as all users: the kernel takes the uid of a Unix socket's peer from the thread
// that connects, and root may change the uid of a thread.
func NeverRead(in io.Reader, out io.Writer) error {
	dec := json.NewDecoder(in)
	var u Unread
	if err := dec.Decode(&u); err != nil {
		return err
	}
	over := make(chan struct{})
	go func() { // runs until the input ends
		defer close(over)
		_, _ = io.Copy(io.Discard, in)
	}()
	conns := make([]unix.PollFd, u.Users*u.Each)
	asked := 0
	open := func(i int) error {
		fd, err := u.open(i / u.Each)
		if err != nil {
			return err
		}
		conns[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLRDHUP}
		asked++
		return nil
	}
	for i := range conns {
		if err := open(i); err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
	}
	enc := json.NewEncoder(out)
	if err := enc.Encode(UnreadState{asked}); err != nil {
		return err
	}
	for {
		select {
		case <-over:
			return enc.Encode(UnreadState{asked})
		case <-time.After(100 * time.Millisecond):
		}
		if _, err := unix.Poll(conns, 0); err != nil {
			continue // a signal interrupted the call
		}
		for i := range conns {
			if conns[i].Revents == 0 {
				continue
			}
			if conns[i].Fd >= 0 {
				_ = unix.Close(int(conns[i].Fd))
			}
			if err := open(i); err != nil {
				conns[i] = unix.PollFd{Fd: -1} // the server refuses connections or has ended; poll skips this one
			}
		}
	}
}

// open connects as a user and sends the request.
func (u *Unread) open(user int) (int, error) {
	question, err := newQuestion(u.Target.Dialect, "unread", &u.Request)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	err = u.asUser(user, func() error { return unix.Connect(fd, &unix.SockaddrUnix{Name: u.Target.Path}) })
	if err == nil {
		_, err = unix.Write(fd, append(question, '\n'))
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// asUser calls do with the effective uid of a user.
func (u *Unread) asUser(user int, do func() error) error {
	if u.First < 0 {
		return do()
	}
	runtime.LockOSThread()
	if err := setThreadUID(u.First + user); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	err := do()
	if err := setThreadUID(0); err != nil {
		return err // the thread stays locked, so that no other goroutine gets it
	}
	runtime.UnlockOSThread()
	return err
}

// setThreadUID sets the effective uid of this thread only. [unix.Setresuid] would set the uid of
// all threads.
func setThreadUID(uid int) error {
	const unchanged = ^uintptr(0)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, unchanged, uintptr(uid), unchanged); errno != 0 {
		return fmt.Errorf("become user %d: %w", uid, errno)
	}
	return nil
}
