package infer

// A Peer is the process at the other end of a connection, as the kernel tells: nothing
// in it is the client's own word. It serves fairness and the record; it grants nothing.
type Peer struct {
	Transport Transport
	User      string // decimal uid, or SID; empty is unknown
	Group     string // decimal gid; empty is unknown
	PID       int    // 0 is unknown
	Exe       string // path of its executable; empty is unknown
	Program   string // the executable, by device and inode; empty is unknown
}

// Transport is how a peer came in. The set is closed.
type Transport string

// Transports.
const (
	Unix Transport = "unix"
	Pipe Transport = "pipe"
	TCP  Transport = "tcp"
)

// A Caller is who shares are given to: a program of a user. Connections of one caller
// never add up.
type Caller struct{ User, Program string }

// Caller returns who p is when it comes to shares and limits.
func (p Peer) Caller() Caller { return Caller{User: p.User, Program: p.Program} }
