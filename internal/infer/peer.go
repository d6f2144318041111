package infer

import "strconv"

// A Peer is the process at the other end of a connection, as the kernel reports it: no
// field but Key comes from the client. It serves fairness and the log; it grants nothing.
type Peer struct {
	Transport Transport
	User      string // decimal uid, or SID; empty is unknown
	Group     string // decimal gid; empty is unknown
	PID       int    // 0 is unknown
	Exe       string // path of its executable; empty is unknown
	Program   string // the executable, by device and inode; empty is unknown
	Key       string // name of the configured key that the client has shown; empty is none
	// Relayed says that the peer passes on the request of an unknown client. Shares and records
	// are the peer's, but its cached prompts are not the client's.
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

// A Caller is the unit of shares and limits: a program of a user. All connections of a
// caller have one share together.
type Caller struct{ User, Program string }

// Caller returns the unit of shares and limits that p belongs to.
func (p Peer) Caller() Caller { return Caller{User: p.User, Program: p.Program} }

// Owner is the user that cached prompts belong to; empty is unknown.
func (p Peer) Owner() string {
	if p.Relayed {
		return ""
	}
	return p.User
}

// Is reports whether p acts for the user uid, as a program of this user that relays no requests of
// others and has shown no key.
func (p Peer) Is(uid int) bool { return p.Key == "" && p.Owner() == strconv.Itoa(uid) }

// Owns reports whether prompts of p may be cached for its later requests: its owner is known, or
// it has a key.
func (p Peer) Owns() bool { return p.Owner() != "" || p.Key != "" }
