// Package frame reads and writes messages on a byte stream: [Lines] for NDJSON, [Prefixed] for
// length-prefixed frames. It does not interpret messages, and never buffers more of a message than
// a given limit.
package frame

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// Limit is the maximum size of a message on every socket of the daemon: 64 MiB, without the
// newline or the head.
const Limit = 64 << 20

// Kind is the type byte of a prefixed message. A line is always JSON.
type Kind byte

// Kinds.
const (
	JSON Kind = 1
	Blob Kind = 2
)

// A TooLongError is returned for a message over the limit. The stream is then
// unusable: the start of the next message cannot be found.
type TooLongError struct{ Limit int }

func (e *TooLongError) Error() string {
	return fmt.Sprintf("frame exceeds %d byte cap", e.Limit)
}

// A MalformedError describes bytes that are not a message.
type MalformedError struct{ What string }

func (e *MalformedError) Error() string { return "malformed frame: " + e.What }

// A Reader returns one message at a time. The slice is valid until the next call of ReadFrame; if
// Detach is called before that, it stays valid. At the end of the stream between two messages, the
// error is io.EOF. A message over the limit is a [TooLongError]; other bytes that are not a message
// are a [MalformedError]. Errors of the stream and of Reserve are returned unchanged.
type Reader interface {
	ReadFrame() (Kind, []byte, error)
	// Detach passes the ownership of the last message to the caller: its memory is not reused.
	Detach()
	// Reserve must be called before n bytes are allocated for values decoded from the last message.
	// It calls the stream's own Reserve if the stream is a [Limiter], and does nothing otherwise.
	Reserve(n int) error
}

// A Limiter is a stream that limits the time of a message and the memory of all messages. A Reader
// of the stream calls these methods.
type Limiter interface {
	// FrameActive is called with true when the first byte of a message has arrived, and with false
	// when the message is complete or has failed.
	FrameActive(active bool)
	// Reserve is called before n more bytes are allocated for a message beyond its first FreeBytes,
	// or for values decoded from it. It may block. If it fails, reading the message fails.
	Reserve(n int) error
}

// FreeBytes is the number of bytes of a message for which Reserve is not called.
const FreeBytes = keep

// limiterOf returns r if it is a Limiter, or else a Limiter without limits.
func limiterOf(r io.Reader) Limiter {
	if l, ok := r.(Limiter); ok {
		return l
	}
	return unlimited{}
}

type unlimited struct{}

func (unlimited) FrameActive(bool)  {}
func (unlimited) Reserve(int) error { return nil }

// A Writer sends JSON messages.
type Writer interface {
	// WriteFrame sends the held messages and this one in one Write.
	WriteFrame(msg []byte) error
	// HoldFrame holds a message until the next call of WriteFrame. It sends the held messages
	// once they have maxHeld bytes.
	HoldFrame(msg []byte) error
}

// A BlobWriter is a Writer that can also send blobs. The Writer of Prefixed is one.
type BlobWriter interface {
	Writer
	WriteBlob(data []byte) error
}

// A Framing is a way to delimit messages in a stream: Lines or Prefixed.
type Framing interface {
	NewReader(r io.Reader, limit int) Reader
	NewWriter(w io.Writer) Writer
}

// Lines ends each message with a newline. The last message of a stream may lack it.
var Lines Framing = lines{}

// Prefixed puts a length and a kind before each message.
var Prefixed Framing = prefixed{}

// keep is the maximum size, in bytes, of the buffer that a reader or writer retains between
// messages. A larger one would occupy memory for the life of its connection.
const keep = 64 << 10

// ahead is the size of a reader's read-ahead buffer, in bytes. It is small, because each connection
// has one, and most connections are idle.
const ahead = 2 << 10

func reuse(buf []byte) []byte {
	if cap(buf) > keep {
		return nil
	}
	return buf[:0]
}

type lines struct{}

func (lines) NewReader(r io.Reader, limit int) Reader {
	return &lineReader{br: bufio.NewReaderSize(r, ahead), limit: limit, limiter: limiterOf(r)}
}

func (lines) NewWriter(w io.Writer) Writer { return &lineWriter{output{w: w}} }

type lineReader struct {
	br      *bufio.Reader
	buf     []byte
	limit   int
	limiter Limiter
}

func (r *lineReader) Detach() { r.buf = nil }

func (r *lineReader) Reserve(n int) error { return r.limiter.Reserve(n) }

func (r *lineReader) ReadFrame() (Kind, []byte, error) {
	r.buf = reuse(r.buf)
	if _, err := r.br.Peek(1); err != nil {
		return 0, nil, err
	}
	r.limiter.FrameActive(true)
	defer r.limiter.FrameActive(false)
	for {
		if _, err := r.br.Peek(1); err != nil { // waits for one byte, not for a full buffer
			if errors.Is(err, io.EOF) && len(r.buf) > 0 { // the stream ended without a final newline
				return JSON, r.buf, nil
			}
			return 0, nil, err
		}
		part, _ := r.br.Peek(r.br.Buffered()) // cannot fail for buffered bytes
		line, _, ended := bytes.Cut(part, newline)
		if len(r.buf)+len(line) > r.limit {
			return 0, nil, &TooLongError{r.limit}
		}
		if err := r.grow(len(line)); err != nil {
			return 0, nil, err
		}
		r.buf = append(r.buf, line...)
		taken := len(line)
		if ended {
			taken++
		}
		_, _ = r.br.Discard(taken) // cannot fail for buffered bytes
		if ended {
			return JSON, r.buf, nil
		}
	}
}

// grow makes room for n more bytes. The length of a line is unknown before its end, so the buffer
// grows in steps. It at least doubles; beyond a quarter of the limit it grows to the limit. A
// message of 64 MiB then leaves 32 MiB of garbage; append would leave 256 MiB.
func (r *lineReader) grow(n int) error {
	need := len(r.buf) + n
	if need <= cap(r.buf) {
		return nil
	}
	room := 2 * need
	switch {
	case need <= keep:
		room = min(room, keep)
	case room > r.limit/2:
		room = r.limit
	}
	if room > keep {
		if err := r.limiter.Reserve(room - max(cap(r.buf), keep)); err != nil {
			return err
		}
	}
	r.buf = append(make([]byte, 0, room), r.buf...)
	return nil
}

var newline = []byte{'\n'}

// maxHeld is the number of held bytes at which a Writer sends its messages.
const maxHeld = 16 << 10

// An output collects framed messages and sends them in one write.
type output struct {
	w   io.Writer
	buf []byte // the held messages
}

func (o *output) flush() error {
	buf := o.buf
	o.buf = reuse(buf)
	_, err := o.w.Write(buf)
	return err
}

func (o *output) hold() error {
	if len(o.buf) < maxHeld {
		return nil
	}
	return o.flush()
}

type lineWriter struct{ output }

func (w *lineWriter) WriteFrame(msg []byte) error {
	w.buf = append(append(w.buf, msg...), '\n')
	return w.flush()
}

func (w *lineWriter) HoldFrame(msg []byte) error {
	w.buf = append(append(w.buf, msg...), '\n')
	return w.hold()
}
