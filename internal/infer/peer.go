package infer

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

// Owns reports whether prompts of p may be cached for its later requests: p is a known user, or
// has a key.
func (p Peer) Owns() bool { return p.User != "" || p.Key != "" }
