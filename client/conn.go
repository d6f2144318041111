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

// A Conn is a connection to one surface. It is not safe for concurrent use. It is closed when the
// context of Dial or of a request on it ends.
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

// A stream delays write errors until no byte is left to read. A daemon that refuses a request may
// close the connection before it has read the whole request; then writes fail, but the reason can
// still be read.
type stream struct {
	net.Conn
	writeErr error
}

// Write writes p. After a failed write it drops p and reports success.
func (s *stream) Write(p []byte) (int, error) {
	if s.writeErr == nil {
		_, s.writeErr = s.Conn.Write(p)
	}
	return len(p), nil
}

// Read reads from the connection. If that fails after a write has failed, it returns the error of
// the write.
func (s *stream) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	if err != nil && s.writeErr != nil {
		err = s.writeErr
	}
	return n, err
}

// Close closes the connection. The daemon then stops a request that is running on it.
func (c *Conn) Close() error {
	c.release()
	return c.close()
}

// during calls exchange. If ctx ends meanwhile, it closes the connection, and returns the cause of
// ctx. It returns an error of the daemon as an [*Error].
func (c *Conn) during(ctx context.Context, exchange func() error) error {
	stop := context.AfterFunc(ctx, func() { _ = c.close() })
	err := exchange()
	if !stop() {
		return context.Cause(ctx)
	}
	return c.publicError(err)
}

// An Error is the daemon's answer to a request that is refused or fails. Programs should act on the
// code; messages may change.
type Error struct {
	Code    Code
	Message string
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s", e.Code, e.Message) }

// Code is the kind of an [Error].
type Code string

// The codes.
const (
	InvalidRequest        Code = "invalid_request"     // do not retry
	FrameTooLarge         Code = "frame_too_large"     // the message exceeds a limit
	QueueFull             Code = "queue_full"          // retry later
	BackendUnavailable    Code = "backend_unavailable" // no backend is available now
	Internal              Code = "internal"            // a fault of the daemon
	AttachmentUnsupported Code = "attachment_unsupported"
	ToolCallMalformed     Code = "tool_call_malformed"
	EmbedUnsupported      Code = "embed_unsupported"
	RerankUnsupported     Code = "rerank_unsupported"
)

// unsupported maps surfaces to their codes for a request that the backend does not support. The
// others use the common code.
var unsupported = map[Surface]Code{
	V2: AttachmentUnsupported, LP: AttachmentUnsupported, Embed: EmbedUnsupported, Rerank: RerankUnsupported,
}

// publicError converts an error of the daemon to an [*Error]. It returns any other error unchanged.
func (c *Conn) publicError(err error) error {
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

// wrongSurface returns the error for a request on a connection to another surface. The parameter
// what names the request by a verb, such as "embed".
func (c *Conn) wrongSurface(what string) error {
	return fmt.Errorf("a connection to %s does not %s", c.surface, what)
}
