package listen

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
)

// Bounds for connections on which the key has not been received.
const (
	maxPending  = 64 // at once
	authTimeout = 10 * time.Second
	maxAuthLine = 4096     // bytes
	lingerBytes = 64 << 10 // read after a wrong key: closing with unread bytes would reset the connection
	lingerTime  = time.Second
)

// Loopback listens on a TCP address, which must be a loopback address. If key is not empty,
// Accept returns a connection only after its client has sent the key in the first line:
//
//	{"type":"auth","key":"<key>"}
//
// The line gets no answer. After any other line, or 10 s without one, the connection is closed
// without an answer, and refused, which must not be nil, is called with the peer's address. Beyond
// the bound of pendingAuth, connections are closed at once. The listener's connections are
// *net.TCPConn; no byte after the line has been read.
func Loopback(addr netip.AddrPort, key string, pendingAuth *PendingAuth, refused func(peer string)) (net.Listener, error) {
	if !addr.Addr().Unmap().IsLoopback() {
		return nil, fmt.Errorf("%s is not a loopback address", addr)
	}
	ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
	if err != nil {
		return nil, err
	}
	if key == "" {
		return ln, nil
	}
	g := &authListener{
		TCPListener: ln, key: sha256.Sum256([]byte(key)), pendingAuth: pendingAuth, refused: refused,
		accepted: make(chan acceptResult), closed: make(chan struct{}), pending: make(map[net.Conn]struct{}),
	}
	g.tasks.Go(g.run)
	return g, nil
}

// PendingAuth bounds the connections on which the key has not been received, over all listeners
// that share it. The zero value is ready for use.
type PendingAuth struct {
	Max   int64  // at once; 0 means 64
	Slots *Slots // each connection takes one; nil means no bound

	n atomic.Int64
}

// enter counts a new connection and takes a slot for it. It reports false, and does neither, if Max
// connections are counted already or no slot is free.
func (s *PendingAuth) enter() bool {
	if s.n.Add(1) > cmp.Or(s.Max, maxPending) || !s.Slots.tryTake() {
		s.n.Add(-1)
		return false
	}
	return true
}

func (s *PendingAuth) leave() {
	s.Slots.give()
	s.n.Add(-1)
}

// An authListener returns from Accept only connections on which the client has sent the key.
type authListener struct {
	*net.TCPListener
	key [sha256.Size]byte // its hash, so that the time of a comparison does not depend on the line

	pendingAuth *PendingAuth
	refused     func(peer string)

	accepted chan acceptResult
	closed   chan struct{}
	tasks    sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	closing bool
	pending map[net.Conn]struct{} // connections that have not sent the key
}

type acceptResult struct {
	nc  net.Conn
	err error
}

// Accept returns the next connection on which the client has sent the key.
func (g *authListener) Accept() (net.Conn, error) {
	select {
	case a := <-g.accepted:
		return a.nc, a.err
	case <-g.closed:
		return nil, fmt.Errorf("accept: %w", net.ErrClosed)
	}
}

// Close also closes the connections on which the key has not been received, and waits for their
// goroutines.
func (g *authListener) Close() error {
	g.mu.Lock()
	if g.closing {
		g.mu.Unlock()
		return net.ErrClosed
	}
	g.closing = true
	close(g.closed)
	for nc := range g.pending {
		_ = nc.Close()
	}
	g.mu.Unlock()
	err := g.TCPListener.Close()
	g.tasks.Wait()
	return err
}

// run accepts connections and starts their authentication, until the listener is closed. It passes
// errors to Accept.
func (g *authListener) run() {
	for {
		nc, err := g.AcceptTCP()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			select {
			case g.accepted <- acceptResult{err: err}:
			case <-g.closed:
			}
		case !g.enter(nc):
			_ = nc.Close()
		default:
			g.tasks.Go(func() { g.authenticate(nc) })
		}
	}
}

// A halfCloser is a connection that can close its sending half alone.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

func (g *authListener) enter(nc net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closing || !g.pendingAuth.enter() {
		return false
	}
	g.pending[nc] = struct{}{}
	return true
}

func (g *authListener) leave(nc net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.pending, nc)
	g.pendingAuth.leave()
}

// authenticate reads the first line of nc. If the line has the key, it passes nc to Accept; otherwise
// it calls refused and closes nc.
func (g *authListener) authenticate(nc halfCloser) {
	_ = nc.SetReadDeadline(time.Now().Add(authTimeout)) // fails if nc is closed; then readLine fails, too
	line, err := readLine(nc)
	if err == nil && g.validKey(line) && nc.SetReadDeadline(time.Time{}) == nil {
		g.leave(nc)
		select {
		case g.accepted <- acceptResult{nc: nc}:
		case <-g.closed:
			_ = nc.Close()
		}
		return
	}
	defer g.leave(nc)
	defer nc.Close()
	g.refused(nc.RemoteAddr().String())
	_ = nc.CloseWrite()
	_ = nc.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, nc, lingerBytes)
}

// validKey reports whether a line is an authentication with the right key.
func (g *authListener) validKey(line []byte) bool {
	var m struct {
		Type string `json:"type"`
		Key  string `json:"key"`
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return false
	}
	key := sha256.Sum256([]byte(m.Key))
	return subtle.ConstantTimeCompare(key[:], g.key[:]) == 1 && m.Type == "auth"
}

var errAuthLine = errors.New("the first line is too long")

// readLine reads a line, and no byte after it: the bytes after it are for the user of the
// connection. It returns the line without its line feed.
func readLine(r io.Reader) ([]byte, error) {
	var line []byte
	var b [1]byte
	for len(line) < maxAuthLine {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return nil, err
		}
		if b[0] == '\n' {
			return line, nil
		}
		line = append(line, b[0])
	}
	return nil, errAuthLine
}
