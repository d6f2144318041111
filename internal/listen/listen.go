// Package listen opens the daemon's sockets (on Windows named pipes) and its loopback TCP
// addresses, connects to sockets, identifies clients and notices their hang-ups. It checks folders,
// modes, groups and the key of TCP clients. It depends neither on the dialect of a connection nor
// on the default names of sockets (see package paths).
package listen

import (
	"context"
	"io/fs"
	"net"
)

// Options are the access rights of a socket. The zero value admits this user only. A pipe always
// admits only this user: Mode is ignored, and Group is an error.
type Options struct {
	Mode  fs.FileMode // of the socket; 0 means 0600
	Group string      // name of the group of the socket and of its folder, if that is created; empty: unchanged
}

// Local listens on the socket at path. The new socket appears in one step: with its final mode
// and group, and already accepting. The listener's connections are *net.UnixConn. Closing the
// listener removes the socket, unless the path holds another one by then.
//
// A file at the path is replaced; a symbolic link or a folder is an error. The caller must hold
// a lock which ensures that no other daemon listens on an old socket at the path. The folder is
// made as by [Folder].
//
// On Windows path is the name of a pipe, \\.\pipe\NAME. A pipe ends with the last of its
// connections, so none is left to replace; a name in use is an error.
func Local(path string, opt Options) (net.Listener, error) {
	if opt.Mode == 0 {
		opt.Mode = 0o600
	}
	return local(path, opt)
}

// Folder makes a folder for sockets, and its missing parents, with mode 0700 or, if group is not
// empty, with that group and mode 0750. It leaves an existing folder as it is, and returns an error
// if a user other than this one and root can change it. On Windows, where pipes have no folder, it
// does nothing.
func Folder(dir, group string) error { return folder(dir, group) }

// Dial connects to the socket at path; the connection is a *net.UnixConn. If the folder of the
// socket is called inferd-UID, like the default one below /tmp, it must belong to this user.
//
// On Windows path is the name of a pipe, which must belong to this user or to an
// administrator. Dial retries a busy pipe for a second, then returns [syscall.EAGAIN], as for
// a socket with a full backlog.
func Dial(ctx context.Context, path string) (net.Conn, error) { return dial(ctx, path) }

// AwaitHangUp returns nil once the peer has closed nc in both directions, even if it did so before
// the call or some of its bytes are still unread. A peer that has closed only its sending half
// still waits for its answer and has not hung up. If ctx ends first, AwaitHangUp returns its cause.
// If nc is closed on this side, the error is [net.ErrClosed].
//
// During the call no other goroutine may read nc or set its read deadline; writing is allowed.
// AwaitHangUp consumes no byte, and leaves nc without a read deadline.
//
// Over TCP the two kinds of closing look the same until a write to the peer is refused. AwaitHangUp
// returns [errors.ErrUnsupported] at once where it cannot distinguish them: on other kinds of
// connection, and on systems other than Linux and, for pipes, Windows. A pipe cannot be
// half-closed, and is polled every 25 ms.
func AwaitHangUp(ctx context.Context, nc net.Conn) error { return awaitHangUp(ctx, nc) }

// SendingEnded reports whether the peer has closed nc, or at least its sending half, even if some
// of its bytes are still unread. It consumes nothing, and other goroutines may read nc meanwhile.
// It returns [errors.ErrUnsupported] on systems other than Linux.
func SendingEnded(nc net.Conn) (bool, error) { return sendingEnded(nc) }
