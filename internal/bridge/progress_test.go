package bridge

import (
	"context"
	"errors"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd-go/inferd/internal/status"
)

// While a pull makes no report, its stream repeats the last line every 10 s. An answer in one piece
// sends its headers after 45 s, and from then on a blank line every 10 s.
func TestSilentPulls(t *testing.T) {
	const line = `{"status":"verifying sha256 digest"}` + "\n"
	for stream, want := range map[bool]string{true: line + line + line, false: ""} {
		synctest.Test(t, func(t *testing.T) {
			w := httptest.NewRecorder()
			p := &progress{call: &call{w: w}, stream: stream, leave: func(error) {}}
			p.begin()
			p.report(status.Verify{})
			p.report(status.KVCache{})
			time.Sleep(25 * time.Second)
			if got := w.Body.String(); got != want || w.Flushed != stream {
				t.Errorf("stream %v: %q, sent %v", stream, got, w.Flushed)
			}
			time.Sleep(patience)
			if got := w.Body.String(); !w.Flushed || !stream && got != "\n\n\n" {
				t.Errorf("stream %v: %q, sent %v", stream, got, w.Flushed)
			}
			p.stop()
			sent := w.Body.Len()
			time.Sleep(time.Minute)
			if w.Body.Len() != sent {
				t.Error("a line after the end")
			}
		})
	}
}

// A pull ends when its client no longer reads.
func TestUnreadPull(t *testing.T) {
	ctx, leave := context.WithCancelCause(t.Context())
	p := &progress{call: &call{w: brokenWriter{httptest.NewRecorder()}}, stream: true, leave: leave}
	p.begin()
	defer p.stop()
	p.report(status.Verify{})
	if !errors.Is(context.Cause(ctx), errLeft) {
		t.Errorf("it ends with %v", context.Cause(ctx))
	}
}

type brokenWriter struct{ *httptest.ResponseRecorder }

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("broken") }
