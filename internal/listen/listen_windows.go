package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/windows"
)

// Local sockets are named pipes, as in the reference: no client on Windows would look for a Unix
// socket. Reads, writes and deadlines are those of an os.File, which does overlapped I/O on the
// runtime's poller.

const (
	pipePrefix = `\\.\pipe\`
	pipeBuffer = 64 << 10 // bytes in each direction: a message that fits is written without waiting for its reader
)

func local(name string, opt Options) (net.Listener, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	if opt.Group != "" {
		return nil, fmt.Errorf("group %s: a pipe admits one user only", opt.Group)
	}
	ln, err := listenPipe(name)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", name, err)
	}
	return ln, nil
}

func folder(string, string) error { return nil }

// checkName returns an error unless name is that of a pipe of this machine.
func checkName(name string) error {
	if len(name) <= len(pipePrefix) || !strings.EqualFold(name[:len(pipePrefix)], pipePrefix) || strings.Contains(name[len(pipePrefix):], `\`) {
		return fmt.Errorf(`%q is not the name of a pipe: want \\.\pipe\NAME`, name)
	}
	return nil
}

// A pipeListener always has a free instance of its pipe, so that no other process can take the name
// between two clients.
type pipeListener struct {
	name   string
	access *windows.SecurityAttributes // access rights: this user only

	closing    atomic.Bool
	closeEvent windows.Handle // an event: closing was set

	mu          sync.Mutex     // guards the fields below; Accept waits with it held
	clientEvent windows.Handle // an event: free has a client
	free        windows.Handle
}

func listenPipe(name string) (_ *pipeListener, err error) {
	l := &pipeListener{name: name}
	if l.access, err = accessForUser(); err != nil {
		return nil, err
	}
	if l.closeEvent, err = windows.CreateEvent(nil, 1, 0, nil); err != nil {
		return nil, fmt.Errorf("create an event: %w", err)
	}
	if l.clientEvent, err = windows.CreateEvent(nil, 1, 0, nil); err != nil {
		_ = windows.CloseHandle(l.closeEvent)
		return nil, fmt.Errorf("create an event: %w", err)
	}
	// If another process has a pipe of this name, we must not add an instance to it.
	if l.free, err = l.instance(windows.FILE_FLAG_FIRST_PIPE_INSTANCE); err != nil {
		_ = windows.CloseHandle(l.closeEvent)
		_ = windows.CloseHandle(l.clientEvent)
		return nil, err
	}
	return l, nil
}

// accessForUser returns access rights for this user only, without inherited ones. The owner is the user,
// not a group, because clients check the owner (see [checkOwner]).
func accessForUser() (*windows.SecurityAttributes, error) {
	us, err := self()
	if err != nil {
		return nil, err
	}
	sd, err := windows.SecurityDescriptorFromString(fmt.Sprintf("O:%[1]sD:P(A;;GA;;;%[1]s)", us))
	if err != nil {
		return nil, fmt.Errorf("make a security descriptor: %w", err)
	}
	size := reflect.TypeFor[windows.SecurityAttributes]().Size()
	return &windows.SecurityAttributes{Length: uint32(size), SecurityDescriptor: sd}, nil
}

// self returns the SID of the user of this process.
func self() (*windows.SID, error) {
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return nil, fmt.Errorf("get the user of this process: %w", err)
	}
	return user.User.Sid, nil
}

func (l *pipeListener) instance(flags uint32) (windows.Handle, error) {
	name, err := windows.UTF16PtrFromString(l.name)
	if err != nil {
		return 0, err
	}
	return windows.CreateNamedPipe(name,
		windows.PIPE_ACCESS_DUPLEX|windows.FILE_FLAG_OVERLAPPED|flags,
		windows.PIPE_TYPE_BYTE|windows.PIPE_READMODE_BYTE|windows.PIPE_REJECT_REMOTE_CLIENTS,
		windows.PIPE_UNLIMITED_INSTANCES, pipeBuffer, pipeBuffer, 0, l.access)
}

// Accept waits for the next client.
func (l *pipeListener) Accept() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.await(); err != nil {
		return nil, fmt.Errorf("accept on %s: %w", l.name, err)
	}
	next, err := l.instance(0) // before l.free is handed over
	if err != nil {
		_ = windows.DisconnectNamedPipe(l.free) // its client must connect again
		return nil, fmt.Errorf("accept on %s: %w", l.name, err)
	}
	nc := newPipe(l.free, l.name)
	l.free = next
	return nc, nil
}

// await returns nil once free has a client, and [net.ErrClosed] once the listener is closed.
func (l *pipeListener) await() error {
	for !l.closing.Load() {
		if err := windows.ResetEvent(l.clientEvent); err != nil {
			return err
		}
		wait := &windows.Overlapped{HEvent: l.clientEvent}
		err := windows.ConnectNamedPipe(l.free, wait)
		if errors.Is(err, windows.ERROR_IO_PENDING) {
			which, waitErr := windows.WaitForMultipleObjects([]windows.Handle{l.clientEvent, l.closeEvent}, false, windows.INFINITE)
			if waitErr != nil || which != windows.WAIT_OBJECT_0 {
				_ = windows.CancelIoEx(l.free, wait) // fails if it has just ended
			}
			err = windows.GetOverlappedResult(l.free, wait, new(uint32), true) // until it returns, the system may write to wait
		}
		if err == nil || errors.Is(err, windows.ERROR_PIPE_CONNECTED) {
			return nil
		}
		_ = windows.DisconnectNamedPipe(l.free) // makes the instance free again, whatever the error is
		if !errors.Is(err, windows.ERROR_NO_DATA) && !l.closing.Load() {
			return err // ERROR_NO_DATA means that a client has connected and closed again
		}
	}
	return net.ErrClosed
}

// Close ends Accept. Open connections are not closed.
func (l *pipeListener) Close() error {
	if l.closing.Swap(true) {
		return fmt.Errorf("close %s: %w", l.name, net.ErrClosed)
	}
	err := windows.SetEvent(l.closeEvent)
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(err, windows.CloseHandle(l.free), windows.CloseHandle(l.clientEvent), windows.CloseHandle(l.closeEvent))
}

// Addr returns the name of the pipe.
func (l *pipeListener) Addr() net.Addr { return pipeAddr(l.name) }

type pipeAddr string

// Network returns "pipe".
func (a pipeAddr) Network() string { return "pipe" }

// String returns the name of the pipe.
func (a pipeAddr) String() string { return string(a) }

// A pipe is one end of a connection over a named pipe. It cannot be half-closed.
type pipe struct {
	*os.File
	addr pipeAddr
}

var (
	_ net.Conn     = (*pipe)(nil)
	_ syscall.Conn = (*pipe)(nil)
)

func newPipe(h windows.Handle, name string) *pipe {
	return &pipe{os.NewFile(uintptr(h), name), pipeAddr(name)}
}

// LocalAddr returns the name of the pipe.
func (p *pipe) LocalAddr() net.Addr { return p.addr }

// RemoteAddr returns the name of the pipe, because clients have no address.
func (p *pipe) RemoteAddr() net.Addr { return p.addr }

// control calls f with the pipe's handle, which stays open during the call. It fails only if
// the pipe is closed on our side.
func (p *pipe) control(f func(windows.Handle)) error {
	raw, err := p.SyscallConn()
	if err != nil {
		return net.ErrClosed
	}
	if raw.Control(func(fd uintptr) { f(windows.Handle(fd)) }) != nil {
		return net.ErrClosed // errors.Is does not recognise the error of a closed os.File
	}
	return nil
}

// dial retries a busy pipe after busyPause, for busyLimit in all: a pipe has no backlog, so clients
// that connect at the same time find it busy for a moment.
const (
	busyPause = 5 * time.Millisecond
	busyLimit = time.Second
)

func dial(ctx context.Context, name string) (net.Conn, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	for begin := time.Now(); ; {
		nc, err := open(name)
		if !errors.Is(err, windows.ERROR_PIPE_BUSY) {
			return nc, err
		}
		if time.Since(begin) > busyLimit {
			return nil, fmt.Errorf("%w: %w", err, syscall.EAGAIN) // the error of a Unix socket with a full backlog
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(busyPause):
		}
	}
}

func open(name string) (net.Conn, error) {
	failed := func(err error) error { return &os.PathError{Op: "open", Path: name, Err: err} }
	name16, err := windows.UTF16PtrFromString(name)
	if err != nil {
		return nil, failed(err)
	}
	// The listener must not be able to impersonate us.
	h, err := windows.CreateFile(name16, windows.GENERIC_READ|windows.GENERIC_WRITE, 0, nil, windows.OPEN_EXISTING,
		windows.FILE_FLAG_OVERLAPPED|windows.SECURITY_SQOS_PRESENT|windows.SECURITY_ANONYMOUS, 0)
	if err != nil {
		return nil, failed(err)
	}
	if err := checkOwner(h); err != nil {
		_ = windows.CloseHandle(h)
		return nil, failed(err)
	}
	return newPipe(h, name), nil
}

// checkOwner returns an error for a pipe of another user, who may have taken the name before our
// daemon did. Administrators are trusted: they can change our files anyway.
func checkOwner(pipe windows.Handle) error {
	us, err := self()
	if err != nil {
		return err
	}
	sd, err := windows.GetSecurityInfo(pipe, windows.SE_KERNEL_OBJECT, windows.OWNER_SECURITY_INFORMATION)
	if err != nil {
		return fmt.Errorf("get the owner of the pipe: %w", err)
	}
	owner, _, err := sd.Owner()
	if err != nil {
		return fmt.Errorf("get the owner of the pipe: %w", err)
	}
	if owner.Equals(us) || owner.IsWellKnown(windows.WinBuiltinAdministratorsSid) || owner.IsWellKnown(windows.WinLocalSystemSid) {
		return nil
	}
	return fmt.Errorf("it belongs to another user (%s): refused", owner)
}
