package redact

import (
	"bytes"
	"io"
	"log/slog"
	"sync"
)

// Attr takes secrets out of what is logged, before it is quoted: it is meant for
// [slog.HandlerOptions]. Numbers, times and the like stay what they are.
func Attr(_ []string, a slog.Attr) slog.Attr {
	switch v := a.Value.Resolve(); v.Kind() {
	case slog.KindString, slog.KindAny:
		if _, ok := v.Any().(slog.Level); !ok { // the record's own
			a.Value = slog.StringValue(Text(v.String()))
		}
	default:
	}
	return a
}

// A Writer passes whole lines on without their secrets, wherever a line is cut when it comes.
// What is not ended by a newline waits for that.
type Writer struct {
	W io.Writer

	mu   sync.Mutex // guards the fields below, and the order of lines
	rest []byte
}

// Write takes all of p, whatever comes of it.
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
		lines = append(append(lines, Text(string(line[:len(line)-1]))...), '\n') // a value without an end must not take it
	}
	w.rest = append(w.rest[:0], w.rest[end:]...)
	_, err := w.W.Write(lines)
	return len(p), err
}
