package wire

import (
	"slices"
	"strconv"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
)

// A Reply writes the messages that answer a request, one after the other. Each begins with its type
// and the ID that SetID set last. The Reply reuses its buffer.
type Reply struct {
	id  []byte // as a JSON string
	buf []byte // the message being written
}

// maxReused bounds the bytes of a buffer that is reused for the next request.
const maxReused = 64 << 10

// Reset clears the ID. It must be called before a request is read, so that a failure never has the
// ID of an earlier request.
func (r *Reply) Reset() {
	r.id = append(r.id[:0], `""`...)
	if cap(r.buf) > maxReused {
		r.buf = nil
	}
}

// SetID sets the ID of the request to answer. It returns an error if the ID is too long to be
// echoed; then the ID stays empty.
func (r *Reply) SetID(id string) error {
	if err := CheckID(id); err != nil {
		return err
	}
	r.id = AppendString(r.id[:0], id)
	return nil
}

// Begin starts a message of the type kind, which is not escaped.
func (r *Reply) Begin(kind string) {
	r.buf = append(r.buf[:0], `{"type":"`...)
	r.buf = append(r.buf, kind...)
	r.buf = append(r.buf, `","id":`...)
	if len(r.id) == 0 { // no request has been read
		r.Reset()
	}
	r.buf = append(r.buf, r.id...)
}

// Raw appends a piece of JSON, such as the name of a member, unchanged.
func (r *Reply) Raw(json string) { r.buf = append(r.buf, json...) }

// Value appends a JSON value unchanged.
func (r *Reply) Value(json []byte) { r.buf = append(r.buf, json...) }

// String appends text as a JSON string.
func (r *Reply) String(text string) { r.buf = AppendString(r.buf, text) }

// Bytes appends text as a JSON string.
func (r *Reply) Bytes(text []byte) { r.buf = AppendString(r.buf, text) }

// Int appends a number.
func (r *Reply) Int(n int) { r.buf = strconv.AppendInt(r.buf, int64(n), 10) }

// Float appends a finite number in the shortest form that parses to the same floating-point value.
// bits is 32 or 64.
func (r *Reply) Float(x float64, bits int) { r.buf = strconv.AppendFloat(r.buf, x, 'g', -1, bits) }

// Len returns the number of bytes of the message so far.
func (r *Reply) Len() int { return len(r.buf) }

// Send ends the message and writes it. If the message exceeds the limit of a frame, it is not sent,
// and the error is [infer.TooLarge].
func (r *Reply) Send(w frame.Writer) error { return r.end(w.WriteFrame) }

// Hold is like Send, but the message may wait in w, to be sent together with the next one.
func (r *Reply) Hold(w frame.Writer) error { return r.end(w.HoldFrame) }

func (r *Reply) end(send func([]byte) error) error {
	r.buf = append(r.buf, '}')
	if len(r.buf) >= frame.Limit {
		return TooLarge()
	}
	return send(r.buf)
}

// AppendIgnored appends the member "ignored", which lists the members of the request that had no effect
// on the answer. It appends nothing if there are none.
func (r *Reply) AppendIgnored(ev *infer.Done) {
	if ev.StopIgnored {
		r.Raw(`,"ignored":["stop"]`)
	}
}

// An IgnoredMember is the member that [Reply.AppendIgnored] appends, for clients.
type IgnoredMember struct {
	Ignored []string `json:"ignored"`
}

// StopIgnored reports whether stop had no effect.
func (i *IgnoredMember) StopIgnored() bool { return slices.Contains(i.Ignored, "stop") }

// Fail sends the message that ends a request with an error.
func (r *Reply) Fail(w frame.Writer, code, text string) error {
	r.Begin("error")
	r.Raw(`,"code":"`)
	r.Raw(code)
	r.Raw(`","message":`)
	r.String(text)
	return r.Send(w)
}

// TooLarge returns the error for an answer that exceeds the limit of a frame.
func TooLarge() error {
	return infer.Errorf(infer.TooLarge, "%w", &frame.TooLongError{Limit: frame.Limit})
}
