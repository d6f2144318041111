package bridge_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd-go/inferd/internal/bridge"
	"github.com/inferd-go/inferd/internal/infer"
)

// A pipeListener accepts connections in memory, for tests in a synctest bubble.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case nc := <-l.conns:
		return nc, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (*pipeListener) Addr() net.Addr { return &net.UnixAddr{} }

// A localConn is the connection of an unknown user on this machine.
type localConn struct{ net.Conn }

func (localConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// bubble calls test in a synctest bubble, with a testBridge that answers with handler over connections
// in memory. dial returns a new connection.
func bubble(t *testing.T, handler infer.Handler, test func(h *testBridge, dial func() net.Conn)) {
	t.Helper()
	bubbleOf(t, handler, entries, test)
}

// bubbleOf is like bubble, with the given entries.
func bubbleOf(t *testing.T, handler infer.Handler, entries func() []bridge.Entry, test func(h *testBridge, dial func() net.Conn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := build(t, handler, func(b *bridge.Bridge) { b.Access.Open = true })
		h.bridge.Open(entries)
		ln := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
		ctx, stop := context.WithCancel(t.Context())
		var serving sync.WaitGroup
		serving.Go(func() {
			if err := h.bridge.Serve(ctx, ln); err != nil {
				t.Error(err)
			}
		})
		var conns []net.Conn
		test(h, func() net.Conn {
			ours, theirs := net.Pipe()
			conns = append(conns, ours)
			ln.conns <- localConn{theirs}
			return ours
		})
		for _, nc := range conns {
			_ = nc.Close()
		}
		stop()
		serving.Wait()
	})
}

// The connection ends if a header takes longer than 10 s, if a body takes longer than 60 s, or 2
// minutes after the last answer.
func TestSlowRequests(t *testing.T) {
	bubble(t, words("a"), func(_ *testBridge, dial func() net.Conn) {
		begin := time.Now()
		nc := dial()
		if _, err := io.WriteString(nc, "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"); err != nil {
			t.Fatal(err)
		}
		all, err := io.ReadAll(nc)
		if took := time.Since(begin); err != nil || took != 10*time.Second || strings.Contains(string(all), "200") {
			t.Errorf("a slow header: %q after %s, %v", all, took, err)
		}

		begin, nc = time.Now(), dial()
		if _, err := io.WriteString(nc, "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"); err != nil {
			t.Fatal(err)
		}
		got := receive(t, bufio.NewReader(nc))
		if took := time.Since(begin); got.status != 408 || took != time.Minute {
			t.Errorf("a slow body: %+v after %s", got, took)
		}
		if n, err := io.Copy(io.Discard, nc); n > 0 || err != nil {
			t.Errorf("then %d bytes, %v", n, err)
		}

		begin, nc = time.Now(), dial()
		if got := send(t, nc, request("GET", "/health", "")); got.status != 200 {
			t.Errorf("got %+v", got)
		}
		if n, err := io.Copy(io.Discard, nc); n > 0 || err != nil || time.Since(begin) != 2*time.Minute {
			t.Errorf("an idle connection: %d bytes, %v, after %s", n, err, time.Since(begin))
		}
	})
}

// A connection on which nothing was sent is idle, and may stay open for 2 minutes. The 10 s for its
// first header begin with the first byte.
func TestConnectionsInAdvance(t *testing.T) {
	bubble(t, words("a"), func(_ *testBridge, dial func() net.Conn) {
		for text, left := range map[string]time.Duration{"": 2 * time.Minute, "POST /v1": 119*time.Second + 10*time.Second} {
			begin, nc := time.Now(), dial()
			if text != "" {
				time.Sleep(119 * time.Second)
				if _, err := io.WriteString(nc, text); err != nil {
					t.Fatal(err)
				}
			}
			all, err := io.ReadAll(nc)
			if took := time.Since(begin); err != nil || took != left || strings.Contains(string(all), "200") {
				t.Errorf("%q: %q after %s, %v", text, all, took, err)
			}
		}
		nc := dial()
		time.Sleep(119 * time.Second)
		if got := send(t, nc, request("POST", chatPath, hi(""))); got.status != 200 {
			t.Errorf("got %+v", got)
		}
	})
}

// slowly is a handler that emits a text after each of the durations.
type slowly []time.Duration

func (s slowly) Handle(ctx context.Context, _ *infer.Request, emit infer.Sink) error {
	for _, d := range s {
		select {
		case <-time.After(d):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := emit(&infer.Text{Delta: []byte("a")}); err != nil {
			return err
		}
	}
	return emit(&infer.Done{Reason: infer.EndOfTurn})
}

// A silent stream sends a comment every 10 s, without a blank line.
func TestKeepAliveComments(t *testing.T) {
	bubble(t, slowly{25 * time.Second, 5 * time.Second, 11 * time.Second}, func(_ *testBridge, dial func() net.Conn) {
		got := send(t, dial(), request("POST", chatPath, hi(`,"stream":true`)))
		pieces := strings.Split(got.body, ": ping\n")
		if len(pieces) != 4 || pieces[0] != "" || pieces[1] != "" || strings.Count(pieces[2], `"content":"a"`) != 2 || strings.Count(pieces[3], `"content":"a"`) != 1 {
			t.Errorf("got %q", got.body)
		}
		for i, piece := range pieces[2:] {
			if !strings.HasPrefix(piece, "data: ") || !strings.HasSuffix(piece, "\n\n") {
				t.Errorf("piece %d is %q", i, piece)
			}
		}
	})
}

// A failure within the first 10 s of a stream determines its status; after 10 s of silence the
// status is 200. For an answer in one piece the limit is 45 s.
func TestStatusIsDecided(t *testing.T) {
	late := func(d time.Duration) infer.HandlerFunc {
		return func(ctx context.Context, _ *infer.Request, _ infer.Sink) error {
			select {
			case <-time.After(d):
				return infer.Errorf(infer.Invalid, "why")
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
	for d, status := range map[time.Duration]int{9 * time.Second: 400, 11 * time.Second: 200} {
		bubble(t, late(d), func(_ *testBridge, dial func() net.Conn) {
			got := send(t, dial(), request("POST", chatPath, hi(`,"stream":true`)))
			if got.status != status || !strings.Contains(got.body, "why") || strings.HasSuffix(got.body, "data: [DONE]\n\n") != (status == 200) {
				t.Errorf("after %s: %+v", d, got)
			}
		})
	}
	bubble(t, late(44*time.Second), func(_ *testBridge, dial func() net.Conn) {
		if got := send(t, dial(), request("POST", chatPath, hi(""))); got.status != 400 {
			t.Errorf("in one piece: %+v", got)
		}
	})
	// If an answer in one piece fails after its headers, the connection is cut, so that the answer
	// does not look complete.
	bubble(t, late(46*time.Second), func(_ *testBridge, dial func() net.Conn) {
		nc := dial()
		if _, err := io.WriteString(nc, request("POST", chatPath, hi(""))); err != nil {
			t.Fatal(err)
		}
		all, err := io.ReadAll(nc)
		if err != nil || !strings.HasPrefix(string(all), "HTTP/1.1 200") || strings.Contains(string(all), "\r\n0\r\n") {
			t.Errorf("in one piece, late: %q, %v", all, err)
		}
	})
}

// An answer in one piece sends its headers after 45 s, and then a blank line every 10 s, so that no
// client or proxy that waits for 60 s gives up. The body is valid JSON in every dialect.
func TestSlowAnswersInOnePiece(t *testing.T) {
	const entry = `"model":"gen"`
	for path, body := range map[string]string{
		chatPath: hi(""), "/v1/completions": `{` + entry + `,"prompt":"hi"}`, responsesPath: `{` + entry + `,"input":"hi"}`,
		messagesPath: hi(`,"max_tokens":9`), "/api/chat": hi(`,"stream":false`), "/completion": `{"prompt":"hi"}`,
	} {
		bubble(t, slowly{3 * time.Minute}, func(_ *testBridge, dial func() net.Conn) {
			nc := dial()
			begin := time.Now()
			if _, err := io.WriteString(nc, request("POST", path, body)); err != nil {
				t.Fatal(err)
			}
			var latest, longest time.Duration
			var all []byte
			for buf := make([]byte, 4096); !bytes.HasSuffix(all, []byte("\r\n0\r\n\r\n")); {
				n, err := nc.Read(buf)
				if err != nil {
					t.Fatalf("%s: %v, after %q", path, err, all)
				}
				all = append(all, buf[:n]...)
				if latest == 0 && time.Since(begin) != 45*time.Second {
					t.Errorf("%s: the headers come after %s", path, time.Since(begin))
				} else if latest > 0 {
					longest = max(longest, time.Since(begin)-latest)
				}
				latest = time.Since(begin)
			}
			got := receive(t, bufio.NewReader(bytes.NewReader(all)))
			if got.status != 200 || !json.Valid([]byte(got.body)) || strings.Count(got.body, "\n") != 14 || longest > 10*time.Second {
				t.Errorf("%s: after %s without a byte: %+v", path, longest, got)
			}
		})
	}
}

// While the entry is loading, silence does not lead to the status 200 within the ready timeout of
// 30 s, because the engine may be given up.
func TestStatusWhileLoading(t *testing.T) {
	for _, test := range []struct {
		loading, failing time.Duration
		status           int
	}{
		{0, 29 * time.Second, 200},
		{15 * time.Second, 29 * time.Second, 200},
		{time.Minute, 29 * time.Second, 503},
		{time.Minute, 31 * time.Second, 200},
	} {
		testStatusWhileLoading(t, test.loading, test.failing, test.status)
	}
}

func testStatusWhileLoading(t *testing.T, loading, failing time.Duration, status int) {
	t.Helper()
	handler := infer.HandlerFunc(func(ctx context.Context, _ *infer.Request, _ infer.Sink) error {
		select {
		case <-time.After(failing):
			return infer.Errorf(infer.Unavailable, "given up")
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	var begin time.Time
	list := func() []bridge.Entry {
		all := entries()
		all[0].Loading = time.Since(begin) < loading
		return all
	}
	bubbleOf(t, handler, list, func(_ *testBridge, dial func() net.Conn) {
		begin = time.Now()
		got := send(t, dial(), request("POST", chatPath, hi(`,"stream":true`)))
		if got.status != status || !strings.Contains(got.body, "given up") {
			t.Errorf("loading for %s, and failing after %s: %+v", loading, failing, got)
		}
	})
}
