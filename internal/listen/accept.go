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

// acceptPause is how long a Door waits before it tries again.
const acceptPause = 50 * time.Millisecond

// Slots bound the accepted connections of several doors, refused ones included, so that
// the process keeps descriptors for other purposes: a refused client holds one until it has
// been told. Use [NewSlots].
type Slots struct {
	free     chan struct{} // has room for the connections
	identify chan struct{} // has room for one: identifying a peer takes another descriptor
}

// NewSlots returns n slots.
func NewSlots(n int) *Slots {
	return &Slots{free: make(chan struct{}, n), identify: make(chan struct{}, 1)}
}

// take waits for a slot. It reports false if ctx ends first; a slot that is free is taken
// even then, for clients that connect during a drain are told of it. A nil Slots has no bound.
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

// tryTake takes a slot if one is free.
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

// peerOf identifies one peer at a time.
func (s *Slots) peerOf(nc net.Conn) infer.Peer {
	if s != nil {
		s.identify <- struct{}{}
		defer func() { <-s.identify }()
	}
	return PeerOf(nc)
}

// A Door lets connections in.
type Door struct {
	Surface string // for the log
	// Slots bound the descriptors of all doors that share them. While none is free, a door
	// accepts nothing more than the connection that waits for one. Nil is no bound.
	Slots *Slots
	// Conns bounds the connections of all doors that share it; nil bounds none.
	Conns *quota.Quota
	// Refuse takes a connection for which there is no room, and must not block for
	// long. Nil closes it without a word.
	Refuse func(net.Conn)
	// Closed is called once the listener has been closed, before the connections are
	// waited for. May be nil.
	Closed func()
	Log    *slog.Logger
}

// Each calls serve for every connection that ln accepts, each in a goroutine of its own,
// with who is at the other end, and closes the connection afterwards. It goes on until
// ln is closed, and returns, once every call has, an error that is [net.ErrClosed].
// Other failures pass: no file descriptor is left, or a client has gone again. The first
// in a row is logged.
func (d *Door) Each(ctx context.Context, ln net.Listener, serve func(net.Conn, infer.Peer)) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	for tired := false; ; {
		nc, err := ln.Accept()
		switch {
		case err == nil:
			tired = false
			if !d.Slots.take(ctx) {
				_ = nc.Close()
				continue
			}
			conns.Go(func() {
				defer d.Slots.give()
				d.admit(nc, serve)
			})
		case errors.Is(err, net.ErrClosed):
			if d.Closed != nil {
				d.Closed()
			}
			return fmt.Errorf("accept on %s: %w", d.Surface, err)
		default:
			if !tired {
				d.Log.LogAttrs(ctx, slog.LevelWarn, "accept, trying on", slog.String("surface", d.Surface), slog.Any("err", err))
			}
			tired = true
			time.Sleep(acceptPause)
		}
	}
}

// writeBuffer is the send buffer of a Unix socket, in bytes. The kernel doubles it and counts
// three quarters of a KiB for each short message, so it takes some 80 of those: enough for a
// client that is busy for a moment, and soon full for one that does not read.
const writeBuffer = 32 << 10

func (d *Door) admit(nc net.Conn, serve func(net.Conn, infer.Peer)) {
	defer nc.Close()
	if local, ok := nc.(*net.UnixConn); ok {
		_ = local.SetWriteBuffer(writeBuffer) // without it the buffer is only larger
	}
	peer := d.Slots.peerOf(nc)
	if d.Conns != nil {
		if !d.Conns.TryAcquire(peer.Caller(), 1) {
			if d.Refuse != nil {
				d.Refuse(nc)
			}
			return
		}
		defer d.Conns.Release(peer.Caller(), 1)
	}
	serve(nc, peer)
}
