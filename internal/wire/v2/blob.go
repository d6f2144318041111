package v2

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// Limits of attachments.
const (
	maxAttachments = 32
	maxBlobs       = 128 << 20 // bytes of all blobs of a request
)

// A descriptor is the message before a blob.
type descriptor struct {
	Type         string  `json:"type"`
	AttachmentID *string `json:"attachment_id"` // required
	Len          *uint64 `json:"len"`           // required
}

// readBlobs reads one blob for each attachment, in any order. Every error is fatal, because the
// rest of the stream would be ambiguous.
func (c *Codec) readBlobs(declared []attachment) (map[string][]byte, error) {
	if err := checkCount(len(declared)); err != nil {
		return nil, &wire.FatalError{Err: err} // the blobs that follow are not read
	}
	missing := make(map[string]int, len(declared)) // by ID; a duplicate ID has two blobs
	for _, a := range declared {
		missing[a.ID]++
	}
	data := make(map[string][]byte, len(declared))
	left := uint64(maxBlobs)
	for range declared {
		var d descriptor
		if err := wire.ReadJSON(c.R, &d); err != nil {
			return nil, torn(err, "descriptor")
		}
		switch {
		case d.Type != "attachment_blob" || d.AttachmentID == nil || d.Len == nil:
			return nil, wire.Malformed("expected an attachment_blob descriptor with attachment_id and len")
		case *d.Len > frame.Limit:
			return nil, wire.Fault(&frame.TooLongError{Limit: frame.Limit})
		case *d.Len > left:
			return nil, &wire.FatalError{Err: infer.Errorf(infer.TooLarge,
				"attachments exceed %d bytes together", maxBlobs)}
		}
		left -= *d.Len
		id := *d.AttachmentID
		if missing[id] == 0 {
			what := "unknown"
			if _, known := missing[id]; known {
				what = "already delivered"
			}
			return nil, wire.Malformed(fmt.Sprintf("attachment_id %.64q is %s", id, what))
		}
		missing[id]--
		kind, blob, err := c.R.ReadFrame()
		switch {
		case err != nil:
			return nil, torn(wire.Fault(err), "blob")
		case kind != frame.Blob:
			return nil, wire.Malformed("expected a BLOB frame, got a JSON control frame")
		case uint64(len(blob)) != *d.Len:
			return nil, wire.Malformed(fmt.Sprintf("blob of attachment %.64q has %d bytes, %d were announced", id, len(blob), *d.Len))
		}
		c.R.Detach()
		data[id] = blob
	}
	return data, nil
}

// torn replaces [io.EOF] by the error for a stream that ends before all blobs were read. what is the
// part that is missing.
func torn(err error, what string) error {
	if errors.Is(err, io.EOF) {
		return wire.Malformed("stream ended before a " + what)
	}
	return err
}

// A span is the JSON string with the data of an attachment in base64. The server half stores only the
// location of the string, because it may be most of the message. In the client half, the span holds
// the data to write.
type span struct {
	start, end int64
	data       []byte
}

// UnmarshalJSONFrom stores the location of the string.
func (s *span) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if kind := d.PeekKind(); kind != jsontext.KindString {
		return errors.New("not a string")
	}
	v, err := d.ReadValue()
	if err != nil {
		return err
	}
	s.end = d.InputOffset()
	s.start = s.end - int64(len(v))
	return nil
}

// decode decodes the base64 text of the string and returns the data. It decodes in place, so the
// data is a part of msg, unless the string has escapes.
func (s *span) decode(msg []byte) ([]byte, error) {
	text := msg[s.start+1 : s.end-1]
	if bytes.IndexByte(text, '\\') >= 0 { // some clients escape the slash
		unquoted, err := jsontext.AppendUnquote(nil, msg[s.start:s.end])
		if err != nil {
			return nil, err
		}
		text = unquoted
	}
	if bytes.ContainsAny(text, "\r\n") { // the decoder would skip them
		return nil, errors.New("line breaks in base64")
	}
	// Each piece is copied before it is decoded, since source and result overlap.
	var piece [4 << 10]byte
	done := 0
	for rest := text; len(rest) > 0; {
		n := copy(piece[:], rest)
		rest = rest[n:]
		if len(rest) > 0 && piece[n-1] == '=' {
			return nil, base64.CorruptInputError(len(text) - len(rest)) // padding before the end
		}
		size, err := base64.StdEncoding.Decode(text[done:], piece[:n])
		if err != nil {
			return nil, err
		}
		done += size
	}
	return text[:done:done], nil
}
