package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// A Conn is a connection to one surface. It is used by one goroutine at a time. It ends
// with the context that it was dialled with, and with one that a request on it was given.
type Conn struct {
	surface Surface
	nc      net.Conn
	r       frame.Reader
	w       frame.Writer
	release func() bool
	close   func() error
}

func (c *Client) newConn(ctx context.Context, nc net.Conn, s Surface) *Conn {
	conn := &Conn{surface: s, nc: nc, close: sync.OnceValue(nc.Close)}
	stream := &stream{Conn: nc}
	conn.r = s.framing().NewReader(stream, frame.Limit)
	conn.w = s.framing().NewWriter(stream)
	if c.Trace != nil {
		conn.r = traced{conn.r, c.Trace}
	}
	conn.release = context.AfterFunc(ctx, func() { _ = conn.close() })
	return conn
}

// A stream is a connection whose other end may have closed it before it has read all that
// we send: a daemon that refuses does. Why it did can still be read, so a write that fails
// is told only when there is nothing more.
type stream struct {
	net.Conn
	failed error // of a write
}

// Write sends p, or forgets it if the other end takes nothing any more.
func (s *stream) Write(p []byte) (int, error) {
	if s.failed == nil {
		_, s.failed = s.Conn.Write(p)
	}
	return len(p), nil
}

// Read reads what the other end has sent.
func (s *stream) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	if err != nil && s.failed != nil {
		err = s.failed
	}
	return n, err
}

// Close hangs up. An answer that is under way ends in the daemon as well.
func (c *Conn) Close() error {
	c.release()
	return c.close()
}

// during runs one exchange. When ctx ends the connection is closed, and the cause of ctx
// is the error.
func (c *Conn) during(ctx context.Context, exchange func() error) error {
	stop := context.AfterFunc(ctx, func() { _ = c.close() })
	err := exchange()
	if !stop() {
		return context.Cause(ctx)
	}
	return c.told(err)
}

// An Error is what the daemon says when it refuses or fails. Clients act on the code;
// messages may change.
type Error struct {
	Code    Code
	Message string
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s", e.Code, e.Message) }

// Code is a class of failure.
type Code string

// Codes.
const (
	InvalidRequest        Code = "invalid_request"     // sending it again is no use
	FrameTooLarge         Code = "frame_too_large"     // over a limit
	QueueFull             Code = "queue_full"          // no room now; try again later
	BackendUnavailable    Code = "backend_unavailable" // nobody can take it now
	Internal              Code = "internal"            // a fault of the daemon
	AttachmentUnsupported Code = "attachment_unsupported"
	ToolCallMalformed     Code = "tool_call_malformed"
	EmbedUnsupported      Code = "embed_unsupported"
	RerankUnsupported     Code = "rerank_unsupported"
)

// unsupported is what a surface calls that the backend cannot do it.
var unsupported = map[Surface]Code{
	V2: AttachmentUnsupported, LP: AttachmentUnsupported, Embed: EmbedUnsupported, Rerank: RerankUnsupported,
}

// told turns a failure that the daemon told into an Error.
func (c *Conn) told(err error) error {
	e, ok := errors.AsType[*infer.Error](err)
	if !ok {
		return err
	}
	code, text := wire.Common.Encode(e)
	switch e.Code {
	case infer.Unsupported:
		if special, ok := unsupported[c.surface]; ok {
			code = string(special)
		}
	case infer.Malformed:
		code = string(ToolCallMalformed)
	default:
	}
	return &Error{Code: Code(code), Message: text}
}

// wrong is what a request gets on a connection to another surface.
func (c *Conn) wrong(what string) error {
	return fmt.Errorf("a connection to %s does not %s", c.surface, what)
}
