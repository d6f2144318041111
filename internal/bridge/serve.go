package bridge

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/inferd-go/inferd/internal/exchange"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/listen"
	"github.com/inferd-go/inferd/internal/wire"
)

// lastAnswers bounds the time that connections may take to end after the runner has stopped.
const lastAnswers = time.Second

// Serve answers the clients that connect to ln, over TCP or a Unix socket. When ctx ends, it drains
// the runner: new requests are refused, and running requests may finish within the runner's grace.
// Serve returns nil once all connections have ended. It closes ln. If ln is closed by another
// caller, the runner drains as well, and Serve returns an error.
func (b *Bridge) Serve(ctx context.Context, ln net.Listener) error {
	defer ln.Close()
	var all sync.WaitGroup
	defer all.Wait()
	serving, stop := context.WithCancel(ctx)
	defer stop()
	in := &intake{conns: make(chan net.Conn), closed: make(chan struct{}), addr: ln.Addr(), writeTimeout: b.WriteTimeout}
	server := &http.Server{
		Handler: b, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog:    slog.NewLogLogger(b.Runner.Log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, nc net.Conn) context.Context { return withPeer(ctx, nc) },
		ConnState:   onState,
	}
	all.Go(func() { _ = server.Serve(in) }) // returns when in is closed
	all.Go(func() {
		select {
		case <-serving.Done():
			b.draining.Store(true)
			server.SetKeepAlivesEnabled(false)
			b.Runner.Drain()
		case <-b.Runner.Closed():
		}
		<-b.Runner.Closed()
		_ = ln.Close()
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastAnswers)
		defer cancel()
		_ = server.Shutdown(late) // also closes in
		_ = server.Close()
	})
	acceptor := listen.Acceptor{
		Surface: "http", Conns: b.Conns, Slots: b.Slots, Log: b.Runner.Log, Identify: b.identify,
		Refuse: refuseConn, Closed: stop,
	}
	err := acceptor.Serve(serving, ln, func(nc net.Conn, peer infer.Peer) {
		if b.Runner.Journal != nil {
			record := &exchange.Connection{Peer: peer, Dialect: wire.HTTP}
			if peer.Transport == infer.TCP {
				record.Addr = nc.RemoteAddr().String()
			}
			b.Runner.Journal.Connection(record)
		}
		in.serve(nc, peer)
	})
	if ctx.Err() != nil {
		return nil // ctx has ended
	}
	return err
}

// httpProgram is the program of TCP clients without a key, because their executable is unknown.
const httpProgram = "http"

// identify returns the client of a connection, as the kernel reports it.
func (b *Bridge) identify(nc net.Conn) infer.Peer {
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		return listen.PeerOf(nc)
	}
	peer := infer.Peer{Transport: infer.TCP, Program: httpProgram}
	if b.UserOf == nil {
		return peer
	}
	if uid, err := b.UserOf(tcp); err == nil {
		peer.User = strconv.FormatUint(uint64(uid), 10)
	}
	return peer
}

// refusalBody is the body of refusal, the answer to a connection above the limit.
const refusalBody = `{"error":{"message":"too many connections","type":"api_error","param":null,"code":"server_is_overloaded"}}`

var refusal = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\nConnection: close\r\n" +
	"Content-Length: " + strconv.Itoa(len(refusalBody)) + "\r\n\r\n" + refusalBody

// Limits for sending a refusal.
const (
	refusalTime   = time.Second
	refusalLinger = 50 * time.Millisecond
	lingerBytes   = 64 << 10
)

// refuseConn sends the refusal. Then it reads and drops some bytes of the request, because closing
// a connection with unread bytes resets it, and the client might lose the answer.
func refuseConn(nc net.Conn) {
	if nc.SetWriteDeadline(time.Now().Add(refusalTime)) != nil {
		return
	}
	if _, err := io.WriteString(nc, refusal); err != nil {
		return
	}
	if half, ok := nc.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
		return
	}
	if nc.SetReadDeadline(time.Now().Add(refusalLinger)) == nil {
		_, _ = io.CopyN(io.Discard, nc, lingerBytes)
	}
}

// An intake is a listener for net/http. Its connections have been accepted, identified and counted
// already.
type intake struct {
	conns  chan net.Conn
	closed chan struct{}
	addr   net.Addr
	once   sync.Once

	writeTimeout time.Duration // time limit of a write on each connection
}

// serve passes a connection to the HTTP server. It returns when the connection is closed.
func (in *intake) serve(nc net.Conn, peer infer.Peer) {
	c := &conn{
		Conn: nc, peer: peer, local: fileDecides(peer) || loopback(nc.RemoteAddr()),
		writeTimeout: in.writeTimeout, closed: make(chan struct{}),
	}
	select {
	case in.conns <- c:
	case <-in.closed:
		return
	}
	select {
	case <-c.closed:
	case <-in.closed:
		// The HTTP server may have accepted the connection just before in was closed.
		timer := time.NewTimer(lastAnswers)
		defer timer.Stop()
		select {
		case <-c.closed:
		case <-timer.C:
		}
	}
}

// Accept returns the next connection, or [net.ErrClosed] after Close.
func (in *intake) Accept() (net.Conn, error) {
	select {
	case nc := <-in.conns:
		return nc, nil
	case <-in.closed:
		return nil, net.ErrClosed
	}
}

// Close ends the calls of Accept and serve.
func (in *intake) Close() error {
	in.once.Do(func() { close(in.closed) })
	return nil
}

// Addr returns the address of the real listener.
func (in *intake) Addr() net.Addr { return in.addr }

// A peerKey is the key of the conn in the context of a request.
type peerKey struct{}

func withPeer(ctx context.Context, nc net.Conn) context.Context {
	if c, ok := nc.(*conn); ok {
		return context.WithValue(ctx, peerKey{}, c)
	}
	return ctx
}

// connOf returns the connection of a request, or nil if it did not come through [Bridge.Serve].
func connOf(ctx context.Context) *conn {
	c, _ := ctx.Value(peerKey{}).(*conn)
	return c
}

// client returns the client of a connection. local reports whether the client is on this machine.
// If c is nil, the client is unknown.
func (c *conn) client() (peer infer.Peer, local bool) {
	if c == nil {
		return infer.Peer{}, false
	}
	return c.peer, c.local
}

func loopback(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
