// Package sockdiag queries the kernel for the user at the other end of a TCP connection within this
// machine, or of a listening socket. It is implemented only for Linux. The package decides nothing
// about users, and does not find out which program is at the other end.
package sockdiag

import (
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
)

// ErrUnknown means that the kernel reports no open socket at the other end: the client is on
// another machine, has closed its socket, or belongs to a user without a uid in this user
// namespace.
var ErrUnknown = errors.New("the user of the other end is unknown")

// A Resolver looks up users. It may be used by several goroutines at once. Use [Open].
type Resolver struct {
	unknown atomic.Int64
	kernel
}

// Open returns a Resolver for connections in the present network namespace. On systems other than
// Linux the error is [errors.ErrUnsupported].
func Open() (*Resolver, error) { return open() }

// Close closes the Resolver's socket. Later lookups fail.
func (r *Resolver) Close() error { return r.close() }

// UserOf returns the uid of the user that created the socket at the other end of nc. It takes at
// most 100 ms. After any error the user is unknown.
func (r *Resolver) UserOf(nc *net.TCPConn) (uid uint32, err error) {
	remote, ok := addrOf(nc.RemoteAddr())
	local, ok2 := addrOf(nc.LocalAddr())
	if !ok || !ok2 {
		r.unknown.Add(1)
		return 0, ErrUnknown
	}
	uid, err = r.lookup(remote, local)
	if err != nil {
		r.unknown.Add(1)
	}
	return uid, err
}

// ListenerOf returns the uid of the user that created the listening socket for an address of this
// machine. ErrUnknown means that there is no such socket, or that its user has no uid in this user
// namespace.
func (r *Resolver) ListenerOf(addr netip.AddrPort) (uid uint32, err error) {
	return r.lookupListener(netip.AddrPortFrom(addr.Addr().Unmap().WithZone(""), addr.Port()))
}

// Unknown returns the number of failed calls of UserOf.
func (r *Resolver) Unknown() int64 { return r.unknown.Load() }

// addrOf returns a TCP address in a form that can be compared: without a zone, and as IPv4 if it is
// IPv4 mapped to IPv6. It reports false for other addresses.
func addrOf(a net.Addr) (netip.AddrPort, bool) {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, false
	}
	at := tcp.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap().WithZone(""), at.Port()), at.IsValid()
}
