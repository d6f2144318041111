package frame

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A prefixed message is
//
//	uvarint(len) kind:u8 payload[len]
//
// where len is the length of the payload, as an unsigned LEB128 of at most five bytes.
type prefixed struct{}

// maxLenBytes is the maximum number of bytes of an encoded length.
const maxLenBytes = 5

// AppendHead appends the head of a payload of n bytes in the Prefixed framing.
func AppendHead(dst []byte, kind Kind, n int) []byte {
	return append(binary.AppendUvarint(dst, uint64(n)), byte(kind))
}

func (prefixed) NewReader(r io.Reader, limit int) Reader {
	return &prefixReader{r: bufio.NewReaderSize(r, ahead), limit: limit, limiter: limiterOf(r)}
}

func (prefixed) NewWriter(w io.Writer) Writer { return &prefixWriter{output{w: w}} }

type prefixReader struct {
	r       *bufio.Reader
	buf     []byte
	limit   int
	limiter Limiter
}

func (r *prefixReader) Detach() { r.buf = nil }

func (r *prefixReader) Reserve(n int) error { return r.limiter.Reserve(n) }

func (r *prefixReader) ReadFrame() (Kind, []byte, error) {
	if _, err := r.r.Peek(1); err != nil {
		return 0, nil, err
	}
	r.limiter.FrameActive(true)
	defer r.limiter.FrameActive(false)
	n, err := r.readLen()
	if err != nil {
		return 0, nil, err
	}
	if n > uint64(r.limit) { // before any part of the payload is read or allocated
		return 0, nil, &TooLongError{r.limit}
	}
	b, err := r.r.ReadByte()
	if err != nil {
		return 0, nil, torn(err, "mid-frame reading the type byte")
	}
	kind := Kind(b)
	if kind != JSON && kind != Blob {
		return 0, nil, &MalformedError{fmt.Sprintf("unknown frame-type byte 0x%02x", b)}
	}
	if err := r.readPayload(int(n)); err != nil {
		return 0, nil, err
	}
	return kind, r.buf, nil
}

// readPayload reads n bytes into r.buf. A head alone must not cause an allocation of 64 MiB, so the
// buffer for the whole payload is allocated only once 1/32 of it has arrived. Little is copied,
// since the part before that is small.
func (r *prefixReader) readPayload(n int) error {
	r.buf = reuse(r.buf)
	if n > keep {
		if err := r.limiter.Reserve(n - keep); err != nil {
			return err
		}
	}
	for len(r.buf) < n {
		have, end := len(r.buf), n
		if n > keep && have < n/32 {
			end = min(n, max(keep, min(16*have, n/32+1)))
		}
		if end > cap(r.buf) {
			r.buf = append(make([]byte, 0, end), r.buf...)
		}
		r.buf = r.buf[:end]
		if _, err := io.ReadFull(r.r, r.buf[have:]); err != nil {
			return torn(err, "mid-frame reading the payload")
		}
	}
	return nil
}

// readLen reads the length. The end of the stream is a MalformedError here, because the first byte
// has already arrived.
func (r *prefixReader) readLen() (uint64, error) {
	var n uint64
	for i := range maxLenBytes {
		b, err := r.r.ReadByte()
		if err != nil {
			return 0, torn(err, "mid-length-varint")
		}
		n |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			return n, nil
		}
	}
	return 0, &MalformedError{fmt.Sprintf("length varint exceeded %d bytes", maxLenBytes)}
}

func torn(err error, where string) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &MalformedError{"stream ended " + where}
	}
	return err
}

type prefixWriter struct{ output }

func (w *prefixWriter) WriteFrame(msg []byte) error {
	w.buf = append(AppendHead(w.buf, JSON, len(msg)), msg...)
	return w.flush()
}

func (w *prefixWriter) HoldFrame(msg []byte) error {
	w.buf = append(AppendHead(w.buf, JSON, len(msg)), msg...)
	return w.hold()
}

// WriteBlob sends the held messages and then a blob. It does not copy the bytes of the blob.
func (w *prefixWriter) WriteBlob(data []byte) error {
	w.buf = AppendHead(w.buf, Blob, len(data))
	if err := w.flush(); err != nil {
		return err
	}
	_, err := w.w.Write(data)
	return err
}
