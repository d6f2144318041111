package listen

import (
	"net"

	"github.com/inferd-go/inferd/internal/infer"
)

// PeerOf identifies the client of an accepted connection, as reported by the kernel. Unknown
// fields stay empty. Known are:
//
//   - Linux: user, group, pid, and the executable, if it is readable.
//   - macOS: user, group and pid.
//   - Windows: user, pid and executable, if they are readable.
//   - other systems: the transport.
//   - over TCP: the transport; all TCP clients are one caller.
//
// The executable is empty if the process that connected has ended, because a new process may have
// its pid.
func PeerOf(nc net.Conn) infer.Peer {
	switch nc := nc.(type) {
	case *net.UnixConn:
		peer := infer.Peer{Transport: infer.Unix}
		if raw, err := nc.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { identify(int(fd), &peer) }) // fails if nc is closed
		}
		return peer
	case interface{ peer() infer.Peer }: // a pipe
		return nc.peer()
	case *net.TCPConn:
		return infer.Peer{Transport: infer.TCP, Program: "tcp"}
	}
	return infer.Peer{}
}
