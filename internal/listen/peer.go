package listen

import (
	"net"

	"github.com/inferd-go/inferd/internal/infer"
)

// PeerOf says who is at the other end of a connection that was accepted, as the kernel
// tells. What cannot be known stays empty:
//
//   - Linux: user, group, pid, and the executable, if it may be looked at.
//   - macOS: user, group and pid.
//   - Windows: user, pid and executable, as far as they may be looked at.
//   - elsewhere: the transport.
//   - of a TCP connection: the transport; whoever comes that way is one caller.
//
// The executable is that of the process that connected, even if its pid is another's by
// now: then it is empty.
func PeerOf(nc net.Conn) infer.Peer {
	switch nc := nc.(type) {
	case *net.UnixConn:
		peer := infer.Peer{Transport: infer.Unix}
		if raw, err := nc.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { identify(int(fd), &peer) }) // fails if closed, and nobody is there
		}
		return peer
	case interface{ peer() infer.Peer }: // a pipe
		return nc.peer()
	case *net.TCPConn:
		return infer.Peer{Transport: infer.TCP, Program: "tcp"}
	}
	return infer.Peer{}
}
