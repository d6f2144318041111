// Package broadcast tells everybody on the admin socket what is on the board: first
// the backlog, then each event as it comes. It never listens to what a client says,
// never waits for a slow one, and does not know what the events mean or how they look
// on the wire.
package broadcast

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/listen"
	"github.com/inferd-go/inferd/internal/quota"
	"github.com/inferd-go/inferd/internal/status"
	"github.com/inferd-go/inferd/internal/wire/admin"
)

const (
	// writeTimeout is how long a client may take for one frame. A client that never
	// reads would else be held for ever: by the time it has lagged out of its
	// subscription its connection is stuck in a write.
	writeTimeout = time.Minute
	// lastWords is how long all clients together have, once ctx has ended, to take
	// what was published before.
	lastWords = time.Second
)

var errLagged = errors.New("too many events behind")

// Serve tells everybody who connects to ln what is on the board, until ctx ends.
// What was published by then is still written to everybody who takes it within a
// second; then all connections end, and Serve returns once they have. It closes ln.
// It fails only if ln is closed by somebody else. A connection beyond conns, which may
// be nil, is closed without a word; slots, which may be nil, bound the descriptors.
func Serve(ctx context.Context, ln net.Listener, board *status.Board, conns *quota.Quota, slots *listen.Slots, log *slog.Logger) error {
	soft := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer soft()

	// Everything ends when hard does.
	hard, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(lastWords, cancel) })
	defer stop()

	door := listen.Door{Surface: "admin", Conns: conns, Slots: slots, Log: log}
	err := door.Each(ctx, ln, func(nc net.Conn, _ infer.Peer) {
		sub := board.Subscribe()
		defer sub.Close()
		end := context.AfterFunc(hard, func() { _ = nc.Close() })
		defer end()
		if err := tell(ctx, nc, sub); err != nil {
			log.LogAttrs(ctx, slog.LevelDebug, "admin connection ended", slog.Any("err", err))
		}
	})
	if ctx.Err() != nil {
		return nil // closed because it is over
	}
	return err
}

// tell writes what sub yields until the client has gone, lags, or ctx has ended and
// there is no more. It closes nc.
func tell(ctx context.Context, nc net.Conn, sub *status.Subscription) error {
	ctx, hungUp := context.WithCancel(ctx)
	var listener sync.WaitGroup
	defer listener.Wait()
	defer hungUp()
	defer nc.Close()
	listener.Go(func() {
		if ignore(ctx, nc) == nil {
			hungUp()
		}
	})

	w := frame.Lines.NewWriter(nc)
	write := func(ev status.Event) error {
		if err := nc.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		if err := w.WriteFrame(admin.Encode(ev)); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		return nil
	}
	for _, ev := range sub.Backlog {
		if err := write(ev); err != nil {
			return err
		}
	}
	for {
		select {
		case ev, ok := <-sub.Events():
			if !ok {
				return errLagged
			}
			if err := write(ev); err != nil {
				return err
			}
		case <-ctx.Done():
			sub.Close() // what is left in it comes first
			for ev := range sub.Events() {
				if err := write(ev); err != nil {
					return err
				}
			}
			return nil
		}
	}
}

// ignore reads what the client says and forgets it. It returns nil once the client
// has gone for good; one that has only closed its sending half is still told.
func ignore(ctx context.Context, nc net.Conn) error {
	if _, err := io.Copy(io.Discard, nc); err != nil {
		return nil //nolint:nilerr // the connection broke, or was closed on our side: gone is gone
	}
	return listen.AwaitHangUp(ctx, nc)
}
