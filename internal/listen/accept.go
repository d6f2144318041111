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

// A Door lets connections in.
type Door struct {
	Surface string // for the log
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
			conns.Go(func() { d.admit(nc, serve) })
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

func (d *Door) admit(nc net.Conn, serve func(net.Conn, infer.Peer)) {
	defer nc.Close()
	peer := PeerOf(nc)
	if d.Conns != nil {
		if !d.Conns.Take(peer.Caller(), 1) {
			if d.Refuse != nil {
				d.Refuse(nc)
			}
			return
		}
		defer d.Conns.Give(peer.Caller(), 1)
	}
	serve(nc, peer)
}
