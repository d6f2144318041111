// Package frame reads and writes messages on a byte stream: [Lines] for NDJSON, [Prefixed] for
// length-prefixed frames. It does not know the meaning of a message, and never buffers more of
// a message than a given limit.
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

// A Reader returns one message at a time. The slice is valid until the next call, or without
// limit if Keep is called first. At the end of the stream between two messages, the error is
// io.EOF.
type Reader interface {
	ReadFrame() (Kind, []byte, error)
	// Keep passes the ownership of the last message to the caller: its memory is not reused.
	Keep()
	// Hold must be called before n bytes are allocated for values decoded from the last
	// message. It passes the call on to the stream if that is a Watcher.
	Hold(n int) error
}

// A Watcher is a stream that is told when a message is under way, so that it can put
// limits to how long one may take and how much memory all of them have. A Reader
// tells the stream that it reads from, if that is one.
type Watcher interface {
	// InFrame is told true once the first byte of a message is there, and false once
	// the message is whole or has failed.
	InFrame(under bool)
	// Hold is called before n more bytes are allocated for a message, beyond its first Small
	// bytes, or for values decoded from it. It may wait; if it fails, so does the message.
	Hold(n int) error
}

// Small is how many bytes a message may have before a Watcher is asked for room.
const Small = keep

// watch returns r if it is a Watcher, else a Watcher without limits.
func watch(r io.Reader) Watcher {
	if w, ok := r.(Watcher); ok {
		return w
	}
	return unwatched{}
}

type unwatched struct{}

func (unwatched) InFrame(bool)   {}
func (unwatched) Hold(int) error { return nil }

// A Writer sends JSON messages.
type Writer interface {
	// WriteFrame sends the held messages and this one in one Write.
	WriteFrame(msg []byte) error
	// HoldFrame holds a message until the next call of WriteFrame. It sends the held messages
	// once they have maxHeld bytes.
	HoldFrame(msg []byte) error
}

// A BlobWriter is a Writer that can send blobs as well: that of Prefixed.
type BlobWriter interface {
	Writer
	WriteBlob(data []byte) error
}

// A Framing is a way to cut a stream: Lines or Prefixed.
type Framing interface {
	NewReader(r io.Reader, limit int) Reader
	NewWriter(w io.Writer) Writer
}

// Lines ends each message with a newline. The last message of a stream may lack it.
var Lines Framing = lines{}

// Prefixed puts a length and a kind before each message.
var Prefixed Framing = prefixed{}

// keep is the largest buffer that a reader or writer retains between messages, in bytes, so
// that a huge message does not stay in memory for the life of its connection.
const keep = 64 << 10

// ahead is the size of a reader's read-ahead buffer, in bytes. Each connection has one, and
// most connections are idle.
const ahead = 2 << 10

func reuse(buf []byte) []byte {
	if cap(buf) > keep {
		return nil
	}
	return buf[:0]
}

type lines struct{}

func (lines) NewReader(r io.Reader, limit int) Reader {
	return &lineReader{br: bufio.NewReaderSize(r, ahead), limit: limit, watcher: watch(r)}
}

func (lines) NewWriter(w io.Writer) Writer { return &lineWriter{output{w: w}} }

type lineReader struct {
	br      *bufio.Reader
	buf     []byte
	limit   int
	watcher Watcher
}

func (r *lineReader) Keep() { r.buf = nil }

func (r *lineReader) Hold(n int) error { return r.watcher.Hold(n) }

func (r *lineReader) ReadFrame() (Kind, []byte, error) {
	r.buf = reuse(r.buf)
	if _, err := r.br.Peek(1); err != nil {
		return 0, nil, err
	}
	r.watcher.InFrame(true)
	defer r.watcher.InFrame(false)
	for {
		if _, err := r.br.Peek(1); err != nil { // waits for one byte, not for a full buffer
			if errors.Is(err, io.EOF) && len(r.buf) > 0 { // half-closed without a newline
				return JSON, r.buf, nil
			}
			return 0, nil, err
		}
		part, _ := r.br.Peek(r.br.Buffered()) // buffered bytes cannot fail
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
		_, _ = r.br.Discard(taken) // buffered, so it cannot fail
		if ended {
			return JSON, r.buf, nil
		}
	}
}

// grow makes room for n more bytes. The length of a line is unknown before its end, so the
// buffer grows in steps: it at least doubles, and beyond a quarter of the limit it grows to the
// limit. A message of 64 MiB then leaves 32 MiB of garbage; append would leave 256 MiB.
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
		if err := r.watcher.Hold(room - max(cap(r.buf), keep)); err != nil {
			return err
		}
	}
	r.buf = append(make([]byte, 0, room), r.buf...)
	return nil
}

var newline = []byte{'\n'}

// maxHeld bounds the bytes that a Writer holds, apart from its last message.
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
