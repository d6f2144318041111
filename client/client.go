// Package client talks to inferd, the local inference daemon, over its Unix sockets: it generates,
// embeds, reranks, watches the daemon's state, and sends operators' requests. The zero [Client] is
// ready to use:
//
//	var c client.Client
//	for ev, err := range c.Generate(ctx, client.Ask("Why is the sky blue?")) {
//		if err != nil {
//			return err
//		}
//		fmt.Print(ev.Text)
//	}
//
// When the context of a call ends, the connection is closed, and the daemon stops the request. If
// the daemon refuses a request or fails, the error is an [*Error] with the code of the wire; if it
// cannot be reached, the error is a [*DialError]. Nothing here depends on how the daemon computes
// answers.
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

// A Client holds the addresses of a daemon's sockets, but no connection. It is safe for concurrent
// use.
type Client struct {
	// Dir is the folder of the daemon's sockets; empty means the folder of this user's daemon. On
	// Windows it is the prefix of the pipe names, by default \\.\pipe\inferd.
	Dir string
	// Sockets has the paths of sockets that are not at their usual places in Dir.
	Sockets map[Surface]string
	// Wait is the longest wait for a daemon that does not run or is not ready. 0 means no wait. If
	// it is negative, only the context limits the wait.
	Wait time.Duration
	// Trace, if not nil, is called with every message of the daemon, unchanged. The slice is valid
	// until Trace returns.
	Trace func(message []byte)
}

// A Surface is one of the daemon's sockets.
type Surface string

// The surfaces.
const (
	V1      Surface = "v1"      // generation, text
	V2      Surface = "v2"      // generation, typed blocks, lines of JSON
	LP      Surface = "lp"      // generation, typed blocks, length-prefixed
	Embed   Surface = "embed"   // embeddings
	Rerank  Surface = "rerank"  // reranking
	Admin   Surface = "admin"   // the daemon's state
	Control Surface = "control" // operators' requests
)

var leaves = map[Surface]string{
	V1: paths.V1Leaf, V2: paths.V2Leaf, LP: paths.LPLeaf, Embed: paths.EmbedLeaf, Rerank: paths.RerankLeaf,
	Admin: paths.AdminLeaf, Control: paths.ControlLeaf,
}

// Path returns the path of a surface's socket.
func (c *Client) Path(s Surface) string {
	if path := c.Sockets[s]; path != "" {
		return path
	}
	return paths.Default().Socket(c.Dir, leaves[s])
}

// A DialError means that a socket could not be reached.
type DialError struct {
	Path string
	Err  error // error of the system
	// Status is the state of the daemon, such as "loading_model mmap gen"; it is empty if unknown.
	Status string
	Waited time.Duration // time spent in Dial, but not more than Client.Wait, unless that is negative
}

func (e *DialError) Error() string {
	var text string
	switch {
	case errors.Is(e.Err, fs.ErrPermission):
		text = fmt.Sprintf("connect: %v: the daemon runs as another user: start it with --group to admit a group", e.Err)
	case !e.Transient():
		text = fmt.Sprintf("connect: %v", e.Err) // includes the path
	case e.Status == ready:
		text = fmt.Sprintf("the daemon is ready, but nothing listens at %s: is this surface switched off, or is there no model for it?", e.Path)
	case e.Status != "":
		text = fmt.Sprintf("the daemon is not ready: %s", e.Status)
	default:
		text = fmt.Sprintf("no daemon at %s: is inferd running?", e.Path)
	}
	if e.Waited > 0 {
		text += fmt.Sprintf(" (waited %s)", e.Waited.Round(time.Millisecond))
	}
	return text
}

// Unwrap returns the error of the system.
func (e *DialError) Unwrap() error { return e.Err }

// Transient reports whether a later attempt may succeed: the socket is missing, or does not
// accept connections. A daemon that is starting causes such errors.
func (e *DialError) Transient() bool {
	for _, transient := range []error{fs.ErrNotExist, syscall.ECONNREFUSED, syscall.EAGAIN} {
		if errors.Is(e.Err, transient) {
			return true
		}
	}
	return false
}

// The pauses between attempts to connect grow from minPause to maxPause.
const (
	minPause = 20 * time.Millisecond
	maxPause = time.Second
)

// bindGrace is how long a socket may still be missing after the daemon is ready: some
// implementations of the daemon bind sockets late.
const bindGrace = time.Second

// Dial connects to a surface. A connection serves many requests, one after the other; requests on
// several connections run concurrently. Dial waits for the daemon as Client.Wait allows, and up to
// a second for a socket that is missing although the daemon is ready. If it fails, the error is a
// [*DialError] or the cause of ctx.
func (c *Client) Dial(ctx context.Context, s Surface) (*Conn, error) {
	path := c.Path(s)
	begin := time.Now()
	var sinceReady time.Time
	for pause := minPause; ; pause = min(2*pause, maxPause) {
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
			failed.Status = c.status(ctx)
		}
		if failed.Status != ready {
			sinceReady = time.Time{}
		} else if sinceReady.IsZero() {
			sinceReady = time.Now()
		}
		over := c.Wait >= 0 && time.Since(begin) >= c.Wait
		if failed.Status == ready { // the socket appears within bindGrace or not at all
			over = time.Since(sinceReady) >= bindGrace
		}
		if over {
			if failed.Waited = time.Since(begin); c.Wait >= 0 {
				failed.Waited = min(failed.Waited, c.Wait)
			}
			return nil, failed
		}
		if c.Wait > 0 {
			pause = min(pause, max(c.Wait-time.Since(begin), time.Millisecond))
		}
		if !sleep(ctx, pause/2+rand.N(pause/2+1)) { //nolint:gosec // spreads the attempts of clients, not a secret
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

// statusTimeout bounds the wait for the daemon's status.
const statusTimeout = 2 * time.Second

// status returns the daemon's lifecycle state, phase and entry as text, or an empty text if they
// are unknown.
func (c *Client) status(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
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

// framing returns the framing of a surface.
func (s Surface) framing() frame.Framing {
	if s == LP {
		return frame.Prefixed
	}
	return frame.Lines
}

// A traced reader passes each message to show before it is decoded.
type traced struct {
	frame.Reader
	show func([]byte)
}

// ReadFrame passes the next message to show, and returns it.
func (t traced) ReadFrame() (frame.Kind, []byte, error) {
	kind, msg, err := t.Reader.ReadFrame()
	if err == nil {
		t.show(msg)
	}
	return kind, msg, err
}
