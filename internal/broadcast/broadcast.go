// Package broadcast serves the admin socket: it sends every client the backlog of the board, and
// then each event as it is published. It discards all input and never waits for a slow client.
// Package status defines the events, and package admin their wire form.
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
	// writeTimeout bounds the write of one frame. Without it the connection of a client that never
	// reads would stay open for ever, blocked in a write, even after its subscription was ended
	// because it lagged.
	writeTimeout = time.Minute
	// flushTimeout bounds the time after the end of ctx in which the last events are sent to all
	// clients.
	flushTimeout = time.Second
)

var errLagged = errors.New("the client lags too many events behind")

// Serve sends the events of the board to all clients of ln until ctx ends. Clients then have
// flushTimeout to read the remaining events; after that Serve closes all connections, waits for
// their goroutines, and returns. It closes ln, and fails only if ln was closed elsewhere.
// Connections above the limits of conns are closed without a message; slots limits descriptors.
// Both may be nil.
func Serve(ctx context.Context, ln net.Listener, board *status.Board, conns *quota.Quota, slots *listen.Slots, log *slog.Logger) error {
	soft := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer soft()

	// All connections are closed when hard ends.
	hard, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(flushTimeout, cancel) })
	defer stop()

	acceptor := listen.Acceptor{Surface: "admin", Conns: conns, Slots: slots, Log: log}
	err := acceptor.Serve(ctx, ln, func(nc net.Conn, _ infer.Peer) {
		sub := board.Subscribe()
		defer sub.Close()
		end := context.AfterFunc(hard, func() { _ = nc.Close() })
		defer end()
		if err := send(ctx, nc, sub); err != nil {
			log.LogAttrs(ctx, slog.LevelDebug, "admin connection ended", slog.Any("err", err))
		}
	})
	if ctx.Err() != nil {
		return nil // Serve itself has closed ln
	}
	return err
}

// send writes the events of sub until the client hangs up or lags, or ctx has ended and no
// event is left. It closes nc.
func send(ctx context.Context, nc net.Conn, sub *status.Subscription) error {
	ctx, hungUp := context.WithCancel(ctx)
	var reader sync.WaitGroup
	defer reader.Wait()
	defer hungUp()
	defer nc.Close()
	reader.Go(func() {
		if discard(ctx, nc) == nil {
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
			sub.Close() // the events that it still has are sent below
			for ev := range sub.Events() {
				if err := write(ev); err != nil {
					return err
				}
			}
			return nil
		}
	}
}

// discard reads and drops the client's input. It returns nil once the client has hung up; a
// client that has only closed its sending half still gets events.
func discard(ctx context.Context, nc net.Conn) error {
	if _, err := io.Copy(io.Discard, nc); err != nil {
		return nil //nolint:nilerr // the connection broke, or was closed on our side: both end it
	}
	return listen.AwaitHangUp(ctx, nc)
}
