package overhttp

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
)

// maxEvent bounds the bytes of an event of a stream.
const maxEvent = 16 << 20

// events yields the data of the events of a stream. It ends with the stream, even if that breaks
// off early, or after it has yielded an error: the cause of ctx, or another error of a read.
func events(ctx context.Context, body io.Reader) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		in := bufio.NewScanner(body)
		in.Buffer(nil, maxEvent)
		for in.Scan() {
			if data, ok := bytes.CutPrefix(in.Bytes(), []byte("data:")); ok && !yield(bytes.TrimSpace(data), nil) {
				return
			}
		}
		switch err := in.Err(); {
		case ctx.Err() != nil:
			yield(nil, context.Cause(ctx))
		case err != nil && !errors.Is(err, io.ErrUnexpectedEOF):
			yield(nil, err)
		}
	}
}
