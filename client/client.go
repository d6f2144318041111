// Package client talks to inferd, the local inference daemon, over its Unix sockets: it
// generates, embeds, reranks, watches what the daemon is doing, and tells it what to do.
// The zero [Client] is ready to use:
//
//	var c client.Client
//	for ev, err := range c.Generate(ctx, client.Ask("Why is the sky blue?")) {
//		if err != nil {
//			return err
//		}
//		fmt.Print(ev.Text)
//	}
//
// Contexts cancel at any time: the connection is closed, which is how the daemon is told.
// What the daemon refuses is an [*Error] with the code of the wire; that nobody listens is
// a [*DialError]. The package knows the wire, and nothing of what stands behind it.
package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/listen"
	"github.com/inferd-go/inferd/internal/paths"
)

// A Client knows where a daemon is. It holds no connection, and may be used by several
// goroutines at once.
type Client struct {
	// Dir is the folder of the daemon's sockets; empty is where the daemon of this user
	// has them. On Windows it is what the names of its pipes begin with: \\.\pipe\inferd.
	Dir string
	// Sockets are those that lie elsewhere, or are called otherwise.
	Sockets map[Surface]string
	// Wait is how long to wait for a daemon that is not there or not ready yet; 0 is not
	// at all, and less than 0 is for as long as the context lasts.
	Wait time.Duration
	// Trace, if not nil, is called with every message of the daemon as it came. The slice
	// is valid until it returns.
	Trace func(message []byte)
}

// A Surface is one of the daemon's sockets.
type Surface string

// Surfaces.
const (
	V1      Surface = "v1"      // generation, text
	V2      Surface = "v2"      // generation, typed blocks, lines of JSON
	LP      Surface = "lp"      // generation, typed blocks, length-prefixed
	Embed   Surface = "embed"   // embeddings
	Rerank  Surface = "rerank"  // reranking
	Admin   Surface = "admin"   // what the daemon is doing
	Control Surface = "control" // requests of an operator
)

var leaves = map[Surface]string{
	V1: paths.V1Leaf, V2: paths.V2Leaf, LP: paths.LPLeaf, Embed: paths.EmbedLeaf, Rerank: paths.RerankLeaf,
	Admin: paths.AdminLeaf, Control: paths.ControlLeaf,
}

// Path returns where a surface's socket is, or is looked for.
func (c *Client) Path(s Surface) string {
	if path := c.Sockets[s]; path != "" {
		return path
	}
	return paths.Default().Socket(c.Dir, leaves[s])
}

// A DialError says that a socket could not be reached.
type DialError struct {
	Path string
	Err  error // what the system said
	// Status is what the daemon was doing at the time, such as "loading_model mmap gen";
	// empty if it did not say.
	Status string
	Waited time.Duration // before giving up; 0 if there was no wait
}

func (e *DialError) Error() string {
	var text string
	switch {
	case errors.Is(e.Err, fs.ErrPermission):
		text = fmt.Sprintf("connect: %v: the daemon runs as another user, who can let a group in with --group", e.Err)
	case !e.Transient():
		text = fmt.Sprintf("connect: %v", e.Err) // names the path
	case e.Status == ready:
		text = fmt.Sprintf("the daemon is ready, but nobody answers at %s: is this surface switched off, or is there no model for it?", e.Path)
	case e.Status != "":
		text = fmt.Sprintf("the daemon is not ready: %s", e.Status)
	default:
		text = fmt.Sprintf("no daemon at %s: is inferd running?", e.Path)
	}
	if e.Waited > 0 {
		text += fmt.Sprintf(" (waited %s)", e.Waited)
	}
	return text
}

// Unwrap returns what the system said.
func (e *DialError) Unwrap() error { return e.Err }

// Transient reports whether it may be otherwise soon: nobody listens, or has no time. That
// is how a daemon looks that is starting.
func (e *DialError) Transient() bool {
	for _, passing := range []error{fs.ErrNotExist, syscall.ECONNREFUSED, syscall.EAGAIN} {
		if errors.Is(e.Err, passing) {
			return true
		}
	}
	return false
}

// How often somebody who waits looks again.
const (
	firstPause = 20 * time.Millisecond
	lastPause  = time.Second
)

// boundWithin is how long after ready a socket may be missing: other daemons bind it late.
const boundWithin = time.Second

// Dial connects to a surface. A connection serves many requests, one after the other;
// those of several connections are answered at once.
func (c *Client) Dial(ctx context.Context, s Surface) (*Conn, error) {
	path := c.Path(s)
	begin := time.Now()
	var sinceReady time.Time
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		nc, err := listen.Dial(ctx, path)
		if err == nil {
			return c.newConn(ctx, nc, s), nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		failed := &DialError{Path: path, Err: err}
		if !failed.Transient() {
			return nil, failed
		}
		if s != Admin && s != Control {
			failed.Status = c.peek(ctx)
		}
		if failed.Status != ready {
			sinceReady = time.Time{}
		} else if sinceReady.IsZero() {
			sinceReady = time.Now()
		}
		over := c.Wait >= 0 && time.Since(begin) >= c.Wait
		if failed.Status == ready { // it will not come any more, or at once
			over = time.Since(sinceReady) >= boundWithin
		}
		if over {
			if c.Wait > 0 {
				failed.Waited = c.Wait
			}
			return nil, failed
		}
		if c.Wait > 0 {
			pause = min(pause, max(c.Wait-time.Since(begin), time.Millisecond))
		}
		if !sleep(ctx, pause/2+rand.N(pause/2+1)) { //nolint:gosec // it keeps clients apart, and hides nothing
			return nil, context.Cause(ctx)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// toldWithin is how long a daemon may take to say what it is doing.
const toldWithin = 2 * time.Second

// peek returns what the daemon is doing, in words, or nothing.
func (c *Client) peek(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, toldWithin)
	defer cancel()
	quiet := &Client{Dir: c.Dir, Sockets: c.Sockets}
	for s, err := range quiet.Watch(ctx) {
		if err != nil {
			break
		}
		if s.Lifecycle() {
			return s.String()
		}
	}
	return ""
}

// framing is how messages are cut on a surface.
func (s Surface) framing() frame.Framing {
	if s == LP {
		return frame.Prefixed
	}
	return frame.Lines
}

// traced shows each message before it is read.
type traced struct {
	frame.Reader
	show func([]byte)
}

// ReadFrame reads and shows the next message.
func (t traced) ReadFrame() (frame.Kind, []byte, error) {
	kind, msg, err := t.Reader.ReadFrame()
	if err == nil {
		t.show(msg)
	}
	return kind, msg, err
}
