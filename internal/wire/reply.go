package wire

import (
	"strconv"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
)

// A Reply writes the messages that answer a request, one after the other. All begin with a
// type and the id of the request read last. Once it has grown it does not allocate.
type Reply struct {
	id  []byte // as a JSON string
	buf []byte // the message being written
}

// keep is the largest buffer that outlives its answer.
const keep = 64 << 10

// Forget must be called before a request is read, so that no failure carries the id of an
// earlier request.
func (r *Reply) Forget() {
	r.id = append(r.id[:0], `""`...)
	if cap(r.buf) > keep {
		r.buf = nil
	}
}

// About sets the id of the request. It refuses an id that is too long to be echoed; the refusal
// is sent with an empty id.
func (r *Reply) About(id string) error {
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
	if len(r.id) == 0 { // nothing has been read
		r.Forget()
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

// Float appends a finite number, as short as it can be told apart from its neighbours of
// that many bits, 32 or 64.
func (r *Reply) Float(x float64, bits int) { r.buf = strconv.AppendFloat(r.buf, x, 'g', -1, bits) }

// Len is how many bytes the message has so far.
func (r *Reply) Len() int { return len(r.buf) }

// Send ends the message and writes it. A message that is too large is not sent, and refused
// with [infer.TooLarge].
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

// Fail sends the message that ends a request with a failure.
func (r *Reply) Fail(w frame.Writer, code, text string) error {
	r.Begin("error")
	r.Raw(`,"code":"`)
	r.Raw(code)
	r.Raw(`","message":`)
	r.String(text)
	return r.Send(w)
}

// TooLarge makes the error of an answer that does not fit into a message.
func TooLarge() error {
	return infer.Errorf(infer.TooLarge, "%w", &frame.TooLongError{Limit: frame.Limit})
}
