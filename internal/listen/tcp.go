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

// What somebody may do who has not shown the key yet.
const (
	maxStrangers = 64 // at once; the next is closed without a word
	greetWithin  = 10 * time.Second
	greetBytes   = 4096
	lingerBytes  = 64 << 10 // that are read from one who is refused, so that the end is a clean one
	lingerTime   = time.Second
)

// Loopback listens on a TCP address, which must be a loopback one. If key is not empty a
// connection is accepted only after its client has sent a first line that has it:
//
//	{"type":"auth","key":"<key>"}
//
// Nothing is answered to that. Whoever sends something else, or takes too long, is closed
// without a word, and refused, which is not nil, is told the address. While there are too
// many strangers the next is closed at once.
// The listener's connections are *net.TCPConn; nothing behind that line has been read.
func Loopback(addr netip.AddrPort, key string, strangers *Strangers, refused func(peer string)) (net.Listener, error) {
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
	g := &guard{
		TCPListener: ln, key: sha256.Sum256([]byte(key)), strangers: strangers, refused: refused,
		in: make(chan accepted), closed: make(chan struct{}), greeting: make(map[net.Conn]struct{}),
	}
	g.all.Go(g.run)
	return g, nil
}

// Strangers counts the connections that have not shown the key yet, over all listeners that
// share it.
type Strangers struct {
	Max   int64  // at once; 0 means 64
	Slots *Slots // of which each takes one; nil is no bound

	n atomic.Int64
}

// enter reports whether there is room for one more.
func (s *Strangers) enter() bool {
	if s.n.Add(1) > cmp.Or(s.Max, maxStrangers) || !s.Slots.tryTake() {
		s.n.Add(-1)
		return false
	}
	return true
}

func (s *Strangers) leave() {
	s.Slots.give()
	s.n.Add(-1)
}

// A guard lets those in who have the key.
type guard struct {
	*net.TCPListener
	key [sha256.Size]byte // its hash: comparing takes as long whatever is sent

	strangers *Strangers
	refused   func(peer string)

	in     chan accepted
	closed chan struct{}
	all    sync.WaitGroup

	mu       sync.Mutex // guards the fields below
	over     bool
	greeting map[net.Conn]struct{} // who has not shown the key yet
}

type accepted struct {
	nc  net.Conn
	err error
}

// Accept returns the next connection whose client has the key.
func (g *guard) Accept() (net.Conn, error) {
	select {
	case a := <-g.in:
		return a.nc, a.err
	case <-g.closed:
		return nil, fmt.Errorf("accept: %w", net.ErrClosed)
	}
}

// Close also closes those who have not shown the key yet.
func (g *guard) Close() error {
	g.mu.Lock()
	if g.over {
		g.mu.Unlock()
		return net.ErrClosed
	}
	g.over = true
	close(g.closed)
	for nc := range g.greeting {
		_ = nc.Close()
	}
	g.mu.Unlock()
	err := g.TCPListener.Close()
	g.all.Wait()
	return err
}

// run accepts until the listener is closed.
func (g *guard) run() {
	for {
		nc, err := g.AcceptTCP()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			select {
			case g.in <- accepted{err: err}:
			case <-g.closed:
			}
		case !g.enter(nc):
			_ = nc.Close()
		default:
			g.all.Go(func() { g.greet(nc) })
		}
	}
}

// A halfCloser is a connection whose sending half can be closed alone.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

func (g *guard) enter(nc net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.over || !g.strangers.enter() {
		return false
	}
	g.greeting[nc] = struct{}{}
	return true
}

func (g *guard) leave(nc net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.greeting, nc)
	g.strangers.leave()
}

// greet reads the first line, and passes the connection on if it has the key.
func (g *guard) greet(nc halfCloser) {
	_ = nc.SetReadDeadline(time.Now().Add(greetWithin)) // fails if closed, which then shows below
	line, err := readLine(nc)
	if err == nil && g.opens(line) && nc.SetReadDeadline(time.Time{}) == nil {
		g.leave(nc)
		select {
		case g.in <- accepted{nc: nc}:
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

// opens reports whether a line shows the key.
func (g *guard) opens(line []byte) bool {
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

var errGreeting = errors.New("the first line is too long")

// readLine reads a line and not a byte more: what follows is for somebody else.
func readLine(r io.Reader) ([]byte, error) {
	var line []byte
	var b [1]byte
	for len(line) < greetBytes {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return nil, err
		}
		if b[0] == '\n' {
			return line, nil
		}
		line = append(line, b[0])
	}
	return nil, errGreeting
}
