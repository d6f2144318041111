package bridge

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/reclaim"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// Limits for a body that is too large. Its bytes are read and dropped, so that the client reads the
// refusal before the connection is closed.
const (
	dropBytes = 128 << 20
	dropTime  = 5 * time.Second
)

var errTooLarge = infer.Errorf(infer.TooLarge, "the body has more than %d bytes", maxBody)

// readBody reads the whole body before anything else, because net/http notices a hang-up only after
// that. It reports false if the request was answered with an error, and calls abort if the client
// has hung up. The memory for the body stays reserved until release.
func (c *call) readBody() ([]byte, bool) {
	control := http.NewResponseController(c.w)
	if c.r.ContentLength > maxBody {
		c.dropBody(control)
		return nil, false
	}
	if control.SetReadDeadline(time.Now().Add(bodyTimeout)) != nil {
		abort()
	}
	if c.conn != nil && c.r.ContentLength > 0 {
		c.conn.skipProbes()
	}
	body, err := c.collect()
	if err == nil {
		err = control.SetReadDeadline(time.Time{})
	}
	if c.conn != nil && err == nil && c.r.ContentLength < 0 {
		c.conn.skipProbes()
	}
	var memory int
	if err == nil {
		memory, err = wire.Weigh(body)
	}
	if len(body) > frame.FreeBytes { // decoding and joining copy the texts
		memory += copies * len(body)
	}
	if err == nil && memory > frame.FreeBytes {
		err = c.whilePresent(func(ctx context.Context) error { return c.hold(ctx, c.capToQuota(int64(memory))) })
	}
	switch {
	case err == nil:
		return body, true
	case errors.Is(err, errTooLarge):
		c.dropBody(control)
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.w.Header()["Connection"] = []string{"close"}
		c.refuse(web.Refused(http.StatusRequestTimeout, "", "the body took longer than %s", bodyTimeout))
	case errors.Is(err, io.ErrUnexpectedEOF): // the client may have closed only its sending half
		c.w.Header()["Connection"] = []string{"close"}
		c.refuse(web.Invalid("", "the body is incomplete"))
	case c.r.Context().Err() != nil, errors.Is(err, errLeft):
		abort()
	default:
		c.refuse(err)
	}
	return nil, false
}

// abort closes the connection without an answer, or without the rest of it: the client has hung up,
// or must not take an incomplete answer for a complete one.
func abort() { panic(http.ErrAbortHandler) }

// collect reads the body. It reserves memory from the quota before it allocates.
func (c *call) collect() ([]byte, error) {
	size := int64(frame.FreeBytes)
	if n := c.r.ContentLength; n >= 0 {
		size = n
	}
	if size > frame.FreeBytes {
		if err := c.hold(c.r.Context(), size); err != nil {
			return nil, err
		}
	}
	body := make([]byte, 0, size+1)
	for {
		n, err := c.r.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case errors.Is(err, io.EOF):
			return body, nil
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, io.ErrUnexpectedEOF):
			return nil, err
		case err != nil:
			return nil, web.Invalid("", "the body cannot be read: %v", err)
		case len(body) > maxBody:
			return nil, errTooLarge
		case len(body) == cap(body):
			if err := c.hold(c.r.Context(), int64(cap(body))); err != nil {
				return nil, err
			}
			body = append(make([]byte, 0, 2*cap(body)), body...)
		}
	}
}

// dropBody refuses a body that is too large. The client gets the answer at once, and may continue
// to send for dropTime: if the connection were closed earlier, the client would see a connection
// error in place of the answer.
func (c *call) dropBody(control *http.ResponseController) {
	c.w.Header()["Connection"] = []string{"close"}
	waits := c.r.Header.Get("Expect") != ""
	if !waits {
		_ = control.EnableFullDuplex() // fails for protocols that are always full duplex
	}
	c.refuse(errTooLarge)
	if waits || control.Flush() != nil || control.SetReadDeadline(time.Now().Add(dropTime)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, c.r.Body, dropBytes) // the answer has been sent, so an error does not matter
}

// copies is the number of copies of a text that may be in memory in addition to the body: the raw
// member, the value decoded from it, and the part of the request made of that.
const copies = 3

// capToQuota limits the estimate n to the caller's quota minus the bytes that this request has
// reserved, so that the largest body is accepted if the caller has no other request.
func (c *call) capToQuota(n int64) int64 {
	if c.bridge.Memory == nil {
		return n
	}
	return max(min(n, c.bridge.Memory.PerCaller-c.held), 0)
}

// hold reserves n bytes of memory for the request. It waits until they are free, for bodyTimeout at
// most; after that the error is [infer.Busy]. If ctx ends first, it returns the cause.
func (c *call) hold(ctx context.Context, n int64) error {
	if c.bridge.Memory == nil {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, bodyTimeout, infer.Errorf(infer.Busy, "queue full: no memory for the body"))
	defer cancel()
	if err := c.bridge.Memory.Acquire(ctx, c.peer.Caller(), n, c.held); err != nil {
		return err
	}
	c.held += n
	return nil
}

// release returns the reserved memory of the request.
func (c *call) release() {
	if c.held == 0 {
		return
	}
	c.bridge.Memory.Release(c.peer.Caller(), c.held)
	reclaim.After(c.held)
	c.held = 0
}
