package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/listen"
	"github.com/inferd-go/inferd/internal/paths"
	"github.com/inferd-go/inferd/internal/wire/admin"
)

// sockets are the places where the daemon listens.
type sockets struct{ v1, admin, control string }

// locate says where the daemon listens. As with the daemon's own --uds, sockets that are
// not named lie beside the main one, and a main one of the length-prefixed wire has v1
// beside it.
func (c *command) locate() sockets {
	v1 := c.addr
	if filepath.Base(c.addr) == paths.LPLeaf {
		v1 = ""
	}
	at := func(given, leaf string) string {
		switch {
		case given != "":
			return given
		case c.addr != "":
			return filepath.Join(filepath.Dir(c.addr), leaf)
		default:
			return paths.Default().Socket(leaf)
		}
	}
	return sockets{
		v1:      at(v1, paths.V1Leaf),
		admin:   at(c.adminAddr, paths.AdminLeaf),
		control: at(c.controlAddr, paths.ControlLeaf),
	}
}

// An absentError says that nobody listens at a socket. That may change.
type absentError struct{ path string }

func (e *absentError) Error() string {
	return fmt.Sprintf("no daemon at %s: is inferd running?", e.path)
}

// A conn is a connection to the daemon. It ends with the context that it was dialled
// with.
type conn struct {
	net.Conn
	frame.Reader
	release func() bool
}

// Close ends the connection.
func (c *conn) Close() error {
	c.release()
	return c.Conn.Close()
}

// dial connects to a socket. It fails with an absentError if nobody listens there.
func dial(ctx context.Context, path string) (*conn, error) {
	nc, err := listen.Dial(ctx, path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, &absentError{path}
	case err != nil:
		return nil, fmt.Errorf("connect: %w", err) // names the path
	}
	release := context.AfterFunc(ctx, func() { _ = nc.Close() })
	return &conn{nc, frame.Lines.NewReader(nc, frame.Limit), release}, nil
}

// nextFrame reads from an admin connection.
func (c *conn) nextFrame() (admin.Frame, error) {
	_, line, err := c.ReadFrame()
	if err != nil {
		return admin.Frame{}, err
	}
	return admin.Decode(line)
}

// wait is the flag --wait[=DURATION]: be patient with a daemon that is not ready.
type wait struct {
	on    bool
	limit time.Duration // 0 is none
	end   time.Time     // zero is never
}

// String is what package flag takes for the default.
func (w *wait) String() string { return strconv.FormatBool(w.on) }

// IsBoolFlag makes the value optional.
func (w *wait) IsBoolFlag() bool { return true }

// Set takes a duration, which begins now, or what a boolean flag takes.
func (w *wait) Set(s string) error {
	if on, err := strconv.ParseBool(s); err == nil {
		*w = wait{on: on}
		return nil
	}
	limit, err := time.ParseDuration(s)
	if err != nil || limit <= 0 {
		return errors.New("want a duration such as 30s")
	}
	*w = wait{on: true, limit: limit, end: time.Now().Add(limit)}
	return nil
}

// retryEvery is how often somebody who waits looks whether the daemon is there.
const retryEvery = 50 * time.Millisecond

// dial connects as the function dial does, but if the flag is set it waits for somebody
// to listen.
func (w *wait) dial(ctx context.Context, path string) (*conn, error) {
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	for {
		nc, err := dial(ctx, path)
		if _, absent := errors.AsType[*absentError](err); !absent || !w.on {
			return nc, err
		}
		if !w.end.IsZero() && time.Now().After(w.end) {
			return nil, fmt.Errorf("%w (waited %s)", err, w.limit)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
