package sockdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// kernel is a netlink socket to the kernel's socket diagnostics.
type kernel struct {
	overflow uint32 // the uid that stands for users without a uid in our user namespace

	mu  sync.Mutex // guards the fields below, and serialises queries
	fd  int        // -1 once closed
	seq uint32     // of the last request
	buf [4096]byte
}

// timeout bounds a lookup, which takes some 3 µs.
const timeout = 100 * time.Millisecond

// nobody is the usual uid for users without a uid in our user namespace.
const nobody = 65534

func open() (*Resolver, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("socket diagnostics: %w", err)
	}
	limit := unix.NsecToTimeval(int64(timeout))
	for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &limit); err != nil {
			_ = unix.Close(fd)
			return nil, fmt.Errorf("socket diagnostics: %w", err)
		}
	}
	r := new(Resolver)
	r.fd, r.overflow = fd, overflowUID()
	return r, nil
}

// overflowUID returns the uid that the kernel reports for users without a uid in our user
// namespace.
func overflowUID() uint32 {
	text, err := os.ReadFile("/proc/sys/kernel/overflowuid")
	if err != nil {
		return nobody
	}
	uid, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
	if err != nil {
		return nobody
	}
	return uint32(uid)
}

func (k *kernel) close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	fd := k.fd
	k.fd = -1
	return unix.Close(fd)
}

// Sizes of the kernel's structs, in bytes.
const (
	sizeofHeader  = 16 // struct nlmsghdr
	sizeofID      = 48 // struct inet_diag_sockid
	sizeofRequest = 8 + sizeofID
	sizeofReply   = 4 + sizeofID + 20 // struct inet_diag_msg
)

// lookup returns the user of the socket that has the address from and is connected to the address to.
func (k *kernel) lookup(from, to netip.AddrPort) (uint32, error) {
	return k.query(from, to, func(r reply) bool {
		// The kernel may return a listener if no socket is connected.
		return openStates&(1<<r.state) != 0 && r.from == from && r.to == to
	})
}

// lookupListener returns the user of the socket that listens at an address. The kernel chooses the
// socket as for a connection to the address: it may listen at this address or at every address.
func (k *kernel) lookupListener(at netip.AddrPort) (uint32, error) {
	return k.query(at, netip.AddrPort{}, func(r reply) bool { return r.state == listening && r.from.Port() == at.Port() })
}

// query looks up the socket with the address from that is connected to the address to, and returns
// its user. It returns ErrUnknown if there is no such socket, or if matches reports false for the
// socket that the kernel returns.
func (k *kernel) query(from, to netip.AddrPort, matches func(reply) bool) (uint32, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fd < 0 {
		return 0, unix.EBADF
	}
	k.seq++
	if err := unix.Sendto(k.fd, requestMessage(k.seq, from, to), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, fmt.Errorf("query a socket: %w", err)
	}
	for deadline := time.Now().Add(timeout); time.Now().Before(deadline); {
		n, sender, err := unix.Recvfrom(k.fd, k.buf[:], 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, fmt.Errorf("query a socket: %w", err)
		}
		if netlink, ok := sender.(*unix.SockaddrNetlink); !ok || netlink.Pid != 0 {
			continue // not from the kernel
		}
		msgs, err := syscall.ParseNetlinkMessage(k.buf[:n])
		if err != nil {
			return 0, fmt.Errorf("query a socket: %w", err)
		}
		for _, m := range msgs {
			if m.Header.Seq == k.seq { // otherwise it answers a request that timed out
				return k.userIn(m, matches)
			}
		}
	}
	return 0, os.ErrDeadlineExceeded
}

// requestMessage returns the message that asks for one socket. If to is the zero value, the socket need
// not be connected.
func requestMessage(seq uint32, from, to netip.AddrPort) []byte {
	msg := make([]byte, sizeofHeader+sizeofRequest)
	native, body := binary.NativeEndian, msg[sizeofHeader:]
	native.PutUint32(msg[0:], uint32(len(msg)))
	native.PutUint16(msg[4:], unix.SOCK_DIAG_BY_FAMILY)
	native.PutUint16(msg[6:], unix.NLM_F_REQUEST)
	native.PutUint32(msg[8:], seq)
	body[0] = family(from.Addr())
	body[1] = unix.IPPROTO_TCP
	native.PutUint32(body[4:], openStates)
	putID(body[8:], from, to)
	return msg
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// putID writes the struct inet_diag_sockid of a socket with the address from that is connected to the
// address to, for any network interface and any cookie.
func putID(id []byte, from, to netip.AddrPort) {
	binary.BigEndian.PutUint16(id[0:], from.Port())
	binary.BigEndian.PutUint16(id[2:], to.Port())
	copy(id[4:20], from.Addr().AsSlice())
	copy(id[20:36], to.Addr().AsSlice())
	for i := 40; i < sizeofID; i++ {
		id[i] = 0xff // no cookie
	}
}

// States of TCP, as the kernel numbers them. openStates are those in which the other end may still
// send or read.
const (
	established = 1
	finWait1    = 4
	finWait2    = 5
	closeWait   = 8
	listening   = 10

	openStates = 1<<established | 1<<finWait1 | 1<<finWait2 | 1<<closeWait
)

// A reply describes a socket, as the kernel reports it.
type reply struct {
	state      byte
	from, to   netip.AddrPort
	uid, inode uint32
}

// userIn returns the user in the kernel's answer about a socket, under the rules of query.
func (k *kernel) userIn(m syscall.NetlinkMessage, matches func(reply) bool) (uint32, error) {
	native := binary.NativeEndian
	switch {
	case m.Header.Type == unix.NLMSG_ERROR && len(m.Data) >= 4:
		errno := syscall.Errno(-int32(native.Uint32(m.Data)))
		if errno == unix.ENOENT {
			return 0, ErrUnknown
		}
		return 0, fmt.Errorf("query a socket: %w", errno)
	case m.Header.Type != unix.SOCK_DIAG_BY_FAMILY || len(m.Data) < sizeofReply:
		return 0, errors.New("query a socket: the kernel's answer has an unexpected format")
	}
	id, rest := m.Data[4:4+sizeofID], m.Data[4+sizeofID:]
	r := reply{
		state: m.Data[1], from: addrIn(m.Data[0], id[0:], id[4:]), to: addrIn(m.Data[0], id[2:], id[20:]),
		uid: native.Uint32(rest[12:]), inode: native.Uint32(rest[16:]),
	}
	switch {
	case !matches(r):
		return 0, ErrUnknown
	case r.inode == 0: // the socket was closed: the kernel then reports the uid 0
		return 0, ErrUnknown
	case r.uid == k.overflow || r.uid == nobody:
		return 0, ErrUnknown
	}
	return r.uid, nil
}

// addrIn returns the address that a struct inet_diag_sockid holds in the bytes port and addr.
func addrIn(family byte, port, addr []byte) netip.AddrPort {
	size := 16
	if family == unix.AF_INET {
		size = 4
	}
	a, _ := netip.AddrFromSlice(addr[:size])
	return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(port))
}
