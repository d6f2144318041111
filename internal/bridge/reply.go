package bridge

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/inferd-go/inferd/internal/exchange"
	"github.com/inferd-go/inferd/internal/infer"
)

// Time limits of a reply.
const (
	// silence is the longest time for which an answer that has begun sends no byte. A stream that
	// has not begun sends its headers after this time, and with them the status.
	silence = 10 * time.Second
	// patience is the longest time before an answer in one piece sends its headers. Many proxies
	// give up after 50 or 60 s without a byte.
	patience = 45 * time.Second
)

// fullBuffer bounds the bytes of a stream that are held back for events that follow immediately.
const fullBuffer = 32 << 10

// A reply sends the answer of an exchange. The first piece of the answer, or an earlier error,
// determines the status:
//
//	waiting ──piece, or silence──▶ begun ──Done or Fail──▶ over
//	   └───────────────Fail: a real status─────────────────▲
//
// Silence does not lead to a status while all entries for the task are loading, for at most
// ReadyTimeout: the request may be waiting for an engine that is being replaced, with or without a
// slot.
type reply struct {
	call    *call
	collect collector // makes an answer in one piece
	stream  streamer  // makes a stream; nil for an answer in one piece
	task    infer.Task

	silenceTimer        // its mutex guards the fields below
	begun        bool   // the headers have been sent
	buf          []byte // bytes that are not yet written
}

var (
	_ exchange.Client  = (*reply)(nil)
	_ exchange.Watcher = (*reply)(nil)
)

// AwaitHangUp watches the connection. The exchange calls it when the request has to wait. It also
// starts the timer for silence: for a short answer, which never waits, the timer would cost a
// noticeable part of the time.
func (r *reply) AwaitHangUp(ctx context.Context) error {
	r.listen(r.limit(), r.ping)
	if r.call.conn == nil {
		return errors.ErrUnsupported
	}
	return r.call.conn.awaitHangUp(ctx)
}

func (r *reply) limit() time.Duration {
	if r.stream == nil {
		return patience
	}
	return silence
}

// ping sends a keep-alive after silence, and before it the headers, unless they were sent. It
// returns the time to the next call. mu must be held.
func (r *reply) ping() (wait time.Duration) {
	b := r.call.bridge
	if !r.begun && time.Since(r.latest) < b.readyTimeout() && b.loading(r.task) {
		return silence // not yet 200: the engine may be given up
	}
	if r.stream != nil {
		r.buf = r.stream.KeepAlive(r.buf)
		_ = r.flushLocked() // a hang-up ends the context of the request
		return silence
	}
	r.beginLocked("application/json")
	r.latest = time.Now()
	_, _ = r.call.w.Write(blank) // a hang-up ends the context of the request
	_ = http.NewResponseController(r.call.w).Flush()
	return silence
}

// blank keeps an answer in one piece alive: JSON may begin with white space.
var blank = []byte("\n")

// Write sends an event, or collects it for an answer in one piece.
func (r *reply) Write(ev infer.Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stream == nil {
		body, err := r.collect.Collect(ev)
		if err != nil || body == nil {
			return err
		}
		r.buf, r.over = body, true // no keep-alive may follow
		return r.flushLocked()
	}
	if _, done := ev.(*infer.Done); done {
		r.over = true // no keep-alive may follow the end of the stream
	}
	before := len(r.buf)
	buf, err := r.stream.Stream(r.buf, ev)
	if r.buf = buf; err != nil {
		r.buf = buf[:before]
		return err
	}
	if text, ok := ev.(*infer.Text); ok && text.More && len(r.buf) < fullBuffer || len(r.buf) == 0 {
		return nil
	}
	return r.flushLocked()
}

// flushLocked sends the headers, unless they were sent, and the buffer.
func (r *reply) flushLocked() error {
	switch {
	case r.stream != nil:
		r.beginLocked(r.call.at.dialect.stream)
	case !r.begun:
		r.call.header(lengthPlace, "Content-Length", strconv.Itoa(len(r.buf)))
		r.beginLocked("application/json")
	}
	r.latest = time.Now()
	_, err := r.call.w.Write(r.buf)
	r.buf = r.buf[:0]
	if err != nil {
		return err
	}
	if r.stream == nil {
		return nil
	}
	return http.NewResponseController(r.call.w).Flush()
}

// beginLocked sends the headers with the status 200, unless they were sent.
func (r *reply) beginLocked(contentType string) {
	if r.begun {
		return
	}
	r.begun = true
	r.call.header(typePlace, "Content-Type", contentType)
	if r.stream != nil {
		r.call.w.Header()["Cache-Control"] = noCache
	}
	r.call.w.WriteHeader(http.StatusOK)
}

// errAborted is returned for an answer in one piece that fails after its headers, and can no longer
// report its failure.
var errAborted = errors.New("the answer has failed after its headers")

// Fail ends the answer with an error: as a status if the headers were not sent, otherwise in the
// stream. It returns errAborted if neither is possible.
func (r *reply) Fail(cause error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case !r.begun:
		r.begun, r.buf = true, nil
		if r.call.bridge.Runner.Draining() {
			r.call.w.Header()["Connection"] = []string{"close"}
		}
		r.call.fail(cause)
		return nil
	case r.stream == nil:
		return errAborted
	}
	r.over = true
	r.buf = r.stream.Fail(r.buf, cause)
	return r.flushLocked()
}
