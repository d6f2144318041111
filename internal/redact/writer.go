package redact

import (
	"bytes"
	"io"
	"log/slog"
	"sync"
)

// Attr removes secrets from an attribute of a log record before a handler quotes it; see
// [slog.HandlerOptions]. It turns errors and values of other types into strings, but leaves numbers,
// truth values, times, durations and levels unchanged.
func Attr(_ []string, a slog.Attr) slog.Attr {
	switch v := a.Value.Resolve(); v.Kind() {
	case slog.KindString, slog.KindAny:
		if _, ok := v.Any().(slog.Level); !ok { // the level of the record stays as it is
			a.Value = slog.StringValue(Text(v.String()))
		}
	default:
	}
	return a
}

// A Writer writes whole lines to W without their secrets, however the calls of Write divide the
// lines. It buffers the bytes after the last newline.
type Writer struct {
	W io.Writer

	mu   sync.Mutex // guards the fields below, and the order of lines
	rest []byte
}

// Write always consumes all of p. Its error is W's error for the lines that p completes.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rest = append(w.rest, p...)
	end := bytes.LastIndexByte(w.rest, '\n') + 1
	if end == 0 {
		return len(p), nil
	}
	var lines []byte
	for line := range bytes.Lines(w.rest[:end]) {
		lines = append(append(lines, Text(string(line[:len(line)-1]))...), '\n') // the newline is not passed to Text, where an unterminated value would include it
	}
	w.rest = append(w.rest[:0], w.rest[end:]...)
	_, err := w.W.Write(lines)
	return len(p), err
}
