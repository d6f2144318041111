package infer

import "strconv"

// A Peer is the process at the other end of a connection, as the kernel reports it; only Key and
// Relayed come from the client's headers. It is used for fair shares, limits and the log. Over
// HTTP, access depends on it, too.
type Peer struct {
	Transport Transport
	User      string // decimal uid, or SID; empty if unknown
	Group     string // decimal gid; empty if unknown
	PID       int    // 0 if unknown
	Exe       string // path of its executable; empty if unknown
	Program   string // the executable, by device and inode, or a name in its place, such as "http"; empty if unknown
	Key       string // name of the configured key that the client has sent; empty if none
	// Relayed reports that the peer passes on the request of an unknown client. The request counts
	// against the peer's share and is recorded under the peer, but it must not use the peer's
	// retained KV.
	Relayed bool
}

// Transport is a kind of connection. The set is closed.
type Transport string

// Transports.
const (
	Unix Transport = "unix"
	Pipe Transport = "pipe"
	TCP  Transport = "tcp"
)

// A Caller is the unit of shares and limits: a program of a user. All connections of a caller have
// one share.
type Caller struct{ User, Program string }

// Caller returns the unit of shares and limits that p belongs to.
func (p Peer) Caller() Caller { return Caller{User: p.User, Program: p.Program} }

// Owner returns the user that owns the retained KV of p's requests, or an empty string if p relays
// requests or its user is unknown.
func (p Peer) Owner() string {
	if p.Relayed {
		return ""
	}
	return p.User
}

// Is reports whether p is a program of the user uid, relays no requests of others, and has sent no
// key.
func (p Peer) Is(uid int) bool { return p.Key == "" && p.Owner() == strconv.Itoa(uid) }

// Owns reports whether KV of p's requests may be retained for its later requests: the owner is
// known, or p has sent a key.
func (p Peer) Owns() bool { return p.Owner() != "" || p.Key != "" }
