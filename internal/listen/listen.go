// Package listen opens the local sockets that clients connect to (on Windows named pipes),
// and loopback addresses with a key before them, connects to sockets, and tells when a client
// has hung up. It knows folders, modes, groups and who has the key; it does not know what is
// spoken on a connection then, nor which socket is whose default (see package paths).
package listen

import (
	"context"
	"io/fs"
	"net"
)

// Options say who may connect to a socket. The zero value admits this user alone, as every
// pipe does: there a mode is ignored, and a group refused.
type Options struct {
	Mode  fs.FileMode // of the socket; 0 means 0600
	Group string      // name of the group of the socket and of a folder made for it; empty leaves it
}

// Local listens on the socket at path. The path holds either what was there before or a
// socket with its final mode and group that accepts already, nothing in between. The
// listener's connections are *net.UnixConn. Closing it removes the socket, unless
// somebody else has put another one there by then.
//
// What was at the path is replaced; only a symbolic link and a folder are refused.
// Whether a daemon still listens on an old socket must be known before, by a lock. The
// folder is made as by [Folder].
//
// On Windows path is the name of a pipe, \\.\pipe\NAME. It ends with the last of its
// connections, so nothing is left of an old one; a pipe that is somebody's is refused.
func Local(path string, opt Options) (net.Listener, error) {
	if opt.Mode == 0 {
		opt.Mode = 0o600
	}
	return local(path, opt)
}

// Folder makes a folder for sockets, and what is missing above it: 0700, or 0750 and
// that group if one is named. One that exists is left as it is, and refused if it
// belongs to somebody who is neither this user nor root. On Windows, where pipes have
// no folder, it does nothing.
func Folder(dir, group string) error { return folder(dir, group) }

// Dial connects to the socket at path; the connection is a *net.UnixConn. A folder that
// carries our uid in its name, as the default one below /tmp does, must be ours.
//
// On Windows path is the name of a pipe, which must belong to this user or to an
// administrator. One that is busy is tried for a second; then the error is
// [syscall.EAGAIN], as that of a socket with a full backlog.
func Dial(ctx context.Context, path string) (net.Conn, error) { return dial(ctx, path) }

// AwaitHangUp waits until the peer has closed nc, both ways, and returns nil then, also
// if it was so from the start and no matter what of its bytes is still unread. A peer
// that has only closed its sending half is still there: it waits for its answer. If ctx
// ends first, AwaitHangUp returns the cause; if nc is closed on our side, [net.ErrClosed].
//
// Nothing else may read nc or set its read deadline meanwhile; writing is free. No byte
// is consumed, and when AwaitHangUp has returned, nc can be read as before and has no
// read deadline.
//
// Over TCP the two kinds of closing look the same at first: a peer that is gone shows when
// it refuses what is written to it. Where they cannot be told apart at all AwaitHangUp
// returns [errors.ErrUnsupported] at once: on other connections, and on other systems than
// Linux and, for pipes, Windows. A pipe cannot be half-closed, and is asked every 25 ms.
func AwaitHangUp(ctx context.Context, nc net.Conn) error { return awaitHangUp(ctx, nc) }
