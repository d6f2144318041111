package listen

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"
)

// acceptPause is how long Each waits before it tries again.
const acceptPause = 50 * time.Millisecond

// Each hands every connection that ln accepts to serve, which must not block, until ln is
// closed; it returns an error that is [net.ErrClosed] then. Other failures pass: no file
// descriptor is left, or a client has gone again. The first in a row is logged, under the
// surface's name.
func Each(ctx context.Context, ln net.Listener, surface string, log *slog.Logger, serve func(net.Conn)) error {
	for tired := false; ; {
		nc, err := ln.Accept()
		switch {
		case err == nil:
			tired = false
			serve(nc)
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept on %s: %w", surface, err)
		default:
			if !tired {
				log.LogAttrs(ctx, slog.LevelWarn, "accept, trying on", slog.String("surface", surface), slog.Any("err", err))
			}
			tired = true
			time.Sleep(acceptPause)
		}
	}
}
