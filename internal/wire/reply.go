package wire

import (
	"slices"
	"strconv"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
)

// A Reply writes the messages that answer a request, one after the other. Each begins with a
// type and the id of the request that was read last. A Reply reuses its buffer.
type Reply struct {
	id  []byte // as a JSON string
	buf []byte // the message being written
}

// maxReused is the largest buffer that is reused for the next request, in bytes.
const maxReused = 64 << 10

// Reset clears the id. It must be called before a request is read, so that no failure has the
// id of an earlier request.
func (r *Reply) Reset() {
	r.id = append(r.id[:0], `""`...)
	if cap(r.buf) > maxReused {
		r.buf = nil
	}
}

// SetID sets the id of the request to answer. It refuses an id that is too long to be echoed;
// the refusal has an empty id.
func (r *Reply) SetID(id string) error {
	if err := CheckID(id); err != nil {
		return err
	}
	r.id = AppendString(r.id[:0], id)
	return nil
}

// Begin starts a message.
func (r *Reply) Begin(kind string) {
	r.buf = append(r.buf[:0], `{"type":"`...)
	r.buf = append(r.buf, kind...)
	r.buf = append(r.buf, `","id":`...)
	if len(r.id) == 0 { // no request was read yet
		r.Reset()
	}
	r.buf = append(r.buf, r.id...)
}

// Raw appends a piece of JSON.
func (r *Reply) Raw(json string) { r.buf = append(r.buf, json...) }

// Value appends a JSON value.
func (r *Reply) Value(json []byte) { r.buf = append(r.buf, json...) }

// String appends text as a JSON string.
func (r *Reply) String(text string) { r.buf = AppendString(r.buf, text) }

// Bytes appends text as a JSON string.
func (r *Reply) Bytes(text []byte) { r.buf = AppendString(r.buf, text) }

// Int appends a number.
func (r *Reply) Int(n int) { r.buf = strconv.AppendInt(r.buf, int64(n), 10) }

// Float appends a finite number in the shortest form that identifies it among the numbers of 32
// or 64 bits.
func (r *Reply) Float(x float64, bits int) { r.buf = strconv.AppendFloat(r.buf, x, 'g', -1, bits) }

// Len returns the length of the message so far, in bytes.
func (r *Reply) Len() int { return len(r.buf) }

// Send ends the message and writes it. A message above the limit of a frame is not sent; the
// error is then [infer.TooLarge].
func (r *Reply) Send(w frame.Writer) error { return r.end(w.WriteFrame) }

// Hold is Send for a message that is sent together with the next one.
func (r *Reply) Hold(w frame.Writer) error { return r.end(w.HoldFrame) }

func (r *Reply) end(send func([]byte) error) error {
	r.buf = append(r.buf, '}')
	if len(r.buf) >= frame.Limit {
		return TooLarge()
	}
	return send(r.buf)
}

// Ignored appends the members of a request that had no effect on the answer, if there are any.
func (r *Reply) Ignored(ev *infer.Done) {
	if ev.StopIgnored {
		r.Raw(`,"ignored":["stop"]`)
	}
}

// An Ignored is the client's side of [Reply.Ignored], a part of a message.
type Ignored struct {
	Ignored []string `json:"ignored"`
}

// StopIgnored reports whether stop had no effect.
func (i *Ignored) StopIgnored() bool { return slices.Contains(i.Ignored, "stop") }

// Fail sends the message that ends a request with a failure.
func (r *Reply) Fail(w frame.Writer, code, text string) error {
	r.Begin("error")
	r.Raw(`,"code":"`)
	r.Raw(code)
	r.Raw(`","message":`)
	r.String(text)
	return r.Send(w)
}

// TooLarge makes the error for an answer above the limit of a frame.
func TooLarge() error {
	return infer.Errorf(infer.TooLarge, "%w", &frame.TooLongError{Limit: frame.Limit})
}
