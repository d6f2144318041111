package listen

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/quota"
)

// acceptPause is the time between a failure of Accept and the next attempt.
const acceptPause = 50 * time.Millisecond

// Slots bound the accepted connections of several acceptors, so that descriptors remain for other
// purposes. Refused connections count, too, because each needs a descriptor until its error is sent.
// Use [NewSlots]; a nil *Slots sets no bound.
type Slots struct {
	free     chan struct{} // its capacity is the number of slots; each element is a taken slot
	identify chan struct{} // a lock: identifying a peer needs one more descriptor
}

// NewSlots returns n slots.
func NewSlots(n int) *Slots {
	return &Slots{free: make(chan struct{}, n), identify: make(chan struct{}, 1)}
}

// take waits for a slot. It reports false if ctx ends first. If a slot is free, take succeeds even
// after the end of ctx, so that clients that connect during a drain get an error message.
func (s *Slots) take(ctx context.Context) bool {
	if s.tryTake() {
		return true
	}
	select {
	case s.free <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// tryTake takes a slot if one is free, and reports whether it did.
func (s *Slots) tryTake() bool {
	if s == nil {
		return true
	}
	select {
	case s.free <- struct{}{}:
		return true
	default:
		return false
	}
}

func (s *Slots) give() {
	if s != nil {
		<-s.free
	}
}

// peerOf calls identify, or [PeerOf] if identify is nil. Calls with the same slots run one after the
// other.
func (s *Slots) peerOf(nc net.Conn, identify func(net.Conn) infer.Peer) infer.Peer {
	if s != nil {
		s.identify <- struct{}{}
		defer func() { <-s.identify }()
	}
	if identify == nil {
		identify = PeerOf
	}
	return identify(nc)
}

// An Acceptor accepts the connections of a listener within limits.
type Acceptor struct {
	Surface string // for the log
	// Slots bound the descriptors of all acceptors that share them. While none is free, an Acceptor
	// accepts one more connection, which waits for a slot. Nil means no bound.
	Slots *Slots
	// Conns bounds the connections of all acceptors that share it; nil means no bound.
	Conns *quota.Quota
	// Identify identifies the peer of a connection; nil means [PeerOf].
	Identify func(net.Conn) infer.Peer
	// Refuse answers a connection over the bound of Conns. It must not block for long. Nil
	// closes the connection without an answer.
	Refuse func(net.Conn)
	// Closed is called once the listener is closed, before the wait for the open connections.
	// It may be nil.
	Closed func()
	Log    *slog.Logger
}

// Serve calls serve for every connection that ln accepts, with the connection and its peer, each in
// a goroutine of its own, and closes the connection afterwards. Once ln is closed, it waits for all
// calls of serve and returns [net.ErrClosed]. After any other failure of Accept, such as a shortage
// of descriptors or a client that has gone, it continues; it logs the first of consecutive
// failures.
func (a *Acceptor) Serve(ctx context.Context, ln net.Listener, serve func(net.Conn, infer.Peer)) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	for failing := false; ; {
		nc, err := ln.Accept()
		switch {
		case err == nil:
			failing = false
			if !a.Slots.take(ctx) {
				_ = nc.Close()
				continue
			}
			conns.Go(func() {
				defer a.Slots.give()
				a.admit(nc, serve)
			})
		case errors.Is(err, net.ErrClosed):
			if a.Closed != nil {
				a.Closed()
			}
			return fmt.Errorf("accept on %s: %w", a.Surface, err)
		default:
			if !failing {
				a.Log.LogAttrs(ctx, slog.LevelWarn, "accept, retrying", slog.String("surface", a.Surface), slog.Any("err", err))
			}
			failing = true
			time.Sleep(acceptPause)
		}
	}
}

// writeBuffer is the send buffer of a Unix socket, in bytes. The kernel doubles it and charges
// 768 bytes for each short message, so it holds some 80 of them: enough for a client that is
// busy for a moment, and soon full if a client does not read.
const writeBuffer = 32 << 10

func (a *Acceptor) admit(nc net.Conn, serve func(net.Conn, infer.Peer)) {
	defer nc.Close()
	if local, ok := nc.(*net.UnixConn); ok {
		_ = local.SetWriteBuffer(writeBuffer) // if it fails, the buffer is larger
	}
	peer := a.Slots.peerOf(nc, a.Identify)
	if a.Conns != nil {
		if !a.Conns.TryAcquire(peer.Caller(), 1) {
			if a.Refuse != nil {
				a.Refuse(nc)
			}
			return
		}
		defer a.Conns.Release(peer.Caller(), 1)
	}
	serve(nc, peer)
}
