package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/activity"
	"github.com/inferd-go/inferd/internal/exchange"
	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/server"
	"github.com/inferd-go/inferd/internal/shortdir"
	v1 "github.com/inferd-go/inferd/internal/wire/v1"
)

// patience bounds the wait for an event that must happen. A healthy machine needs a fraction of it.
const patience = 30 * time.Second

var surface = server.Surface{Name: "v1", Open: func(nc net.Conn) (server.Codec, error) {
	return &v1.Codec{R: frame.Lines.NewReader(nc, frame.Limit), W: frame.Lines.NewWriter(nc)}, nil
}}

// A unixServer is a server behind a Unix socket. It stops at the end of the test.
type unixServer struct {
	t    *testing.T
	path string
	stop func() error // stops the server, and returns the error of Serve
}

func serveUnix(t *testing.T, srv *server.Server) *unixServer {
	t.Helper()
	dir := shortdir.New(t)
	h := &unixServer{t: t, path: filepath.Join(dir, "s")}
	ln, err := net.Listen("unix", h.path)
	if err != nil {
		t.Fatal(err)
	}
	if srv.Runner.Log == nil {
		srv.Runner.Log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ctx, ln, surface) }()
	h.stop = sync.OnceValue(func() error {
		cancel()
		return <-served
	})
	t.Cleanup(func() {
		if err := h.stop(); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return h
}

func (h *unixServer) dial() *net.UnixConn {
	h.t.Helper()
	nc, err := net.Dial("unix", h.path)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = nc.Close() })
	return nc.(*net.UnixConn)
}

// works checks that a new client gets an answer.
func (h *unixServer) works() {
	h.t.Helper()
	nc := h.dial()
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(patience))
	send(h.t, nc, "ok", "one")
	if got, err := io.ReadAll(closeWrite(nc)); err != nil || !strings.Contains(string(got), `"type":"done","id":"ok"`) {
		h.t.Errorf("a new client got %q, %v", got, err)
	}
}

func closeWrite(nc *net.UnixConn) *net.UnixConn {
	_ = nc.CloseWrite()
	return nc
}

func send(t *testing.T, w io.Writer, id, text string) {
	t.Helper()
	if _, err := fmt.Fprintf(w, `{"id":%q,"messages":[{"role":"user","content":%q}]}`+"\n", id, text); err != nil {
		t.Fatal(err)
	}
}

// prompt returns the text of a request's first message.
func prompt(req *infer.Request) string { return req.Task.(*infer.Generate).Messages[0].Text() }

// words is a handler that answers with the words of the prompt. The word "wait" waits for the end
// of the context, and "forever" emits text until then.
func words(ctx context.Context, req *infer.Request, emit infer.Sink) error {
	n := 0
	for word := range strings.FieldsSeq(prompt(req)) {
		if word == "wait" {
			<-ctx.Done()
			return context.Cause(ctx)
		}
		for again := true; again; again = word == "forever" && ctx.Err() == nil {
			if err := emit(&infer.Text{Delta: []byte(word)}); err != nil {
				return err
			}
			n++
		}
	}
	return emit(&infer.Done{Reason: infer.EndOfTurn, Out: n, Backend: "words"})
}

// eventually waits until ok returns true. It fails the test after patience.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// A message over the limit is refused while it is being read, and takes bounded memory. The client
// gets the error and then the end of the connection, although the server never reads the rest of
// the message.
func TestEndlessLine(t *testing.T) {
	h := serveUnix(t, &server.Server{Runner: &exchange.Runner{Handler: infer.HandlerFunc(words)}})
	nc := h.dial()
	_ = nc.SetDeadline(time.Now().Add(patience))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	block := bytes.Repeat([]byte("a"), 1<<20)
	for range 65 {
		if _, err := nc.Write(block); err != nil {
			t.Fatal(err)
		}
	}
	got, err := io.ReadAll(nc)
	want := `{"type":"error","id":"","code":"frame_too_large","message":"frame exceeds 67108864 byte cap"}` + "\n"
	if err != nil || string(got) != want {
		t.Errorf("got %q, %v, want %s", got, err, want)
	}
	runtime.ReadMemStats(&after)
	if grown := after.Sys - before.Sys; grown > 300<<20 {
		t.Errorf("it took %d MiB", grown>>20)
	}
	h.works()
}

// A line of exactly the maximum length is accepted.
func TestLargestLine(t *testing.T) {
	h := serveUnix(t, &server.Server{Runner: &exchange.Runner{Handler: infer.HandlerFunc(words)}})
	nc := h.dial()
	_ = nc.SetDeadline(time.Now().Add(patience))
	request := `{"id":"1","messages":[{"role":"user","content":"a"}]`
	line := request + strings.Repeat(" ", frame.Limit-len(request)-1) + "}\n"
	if _, err := io.WriteString(nc, line); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(closeWrite(nc)); err != nil || !strings.Contains(string(got), `"type":"done"`) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestConnectAndClose(t *testing.T) {
	var log bytes.Buffer
	h := serveUnix(t, &server.Server{Runner: &exchange.Runner{Handler: infer.HandlerFunc(words), Log: slog.New(slog.NewTextHandler(&log, nil))}})
	h.works()
	before := runtime.NumGoroutine()
	for range 200 {
		_ = h.dial().Close()
	}
	h.works()
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
	if err := h.stop(); err != nil {
		t.Error(err)
	}
	if log.Len() > 0 {
		t.Errorf("it was worth a word: %s", &log)
	}
}

// A client that never reads is cut off. Other clients are not affected.
func TestClientThatNeverReads(t *testing.T) {
	ended := make(chan error, 1)
	h := serveUnix(t, &server.Server{
		Runner: &exchange.Runner{Handler: infer.HandlerFunc(func(ctx context.Context, req *infer.Request, emit infer.Sink) error {
			err := words(ctx, req, emit)
			if req.ID == "deaf" {
				ended <- err
			}
			return err
		})},
		WriteTimeout: 50 * time.Millisecond,
	})
	deaf := h.dial()
	send(t, deaf, "deaf", strings.Repeat("x", 1000)+" forever")
	for range 5 {
		h.works()
	}
	select {
	case err := <-ended:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the context of its handler ended with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("it still has its slot")
	}
	eventually(t, "it is cut off", func() bool {
		_, err := deaf.Write([]byte(" "))
		return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
	})
}

// A client that never reads does not delay the end of the server.
func TestEndWithAClientThatNeverReads(t *testing.T) {
	h := serveUnix(t, &server.Server{Runner: &exchange.Runner{Handler: infer.HandlerFunc(words), Grace: 100 * time.Millisecond}, WriteTimeout: time.Hour})
	deaf := h.dial()
	send(t, deaf, "1", "forever")
	for i := range 100 {
		send(t, deaf, fmt.Sprint(i), "forever")
	}
	h.works()
	start := time.Now()
	if err := h.stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 10*time.Second { // it takes 1.1 s if the machine is not busy
		t.Errorf("it took %v", took)
	}
}

// When the server stops, a client that has sent bytes ahead gets the end of the running answer, and
// then the end of the connection.
func TestPipelinedAtTheEnd(t *testing.T) {
	started := make(chan struct{})
	h := serveUnix(t, &server.Server{Runner: &exchange.Runner{Handler: infer.HandlerFunc(func(ctx context.Context, req *infer.Request, emit infer.Sink) error {
		if req.ID == "1" {
			close(started)
		}
		return words(ctx, req, emit)
	})}})
	nc := h.dial()
	_ = nc.SetDeadline(time.Now().Add(patience))
	send(t, nc, "1", "a wait")
	<-started
	// The server reads less than 64 KiB ahead, so a part of these bytes stays in the socket.
	_, _ = io.WriteString(nc, strings.Repeat(" ", 64<<10))
	if err := h.stop(); err != nil {
		t.Error(err)
	}
	want := `{"type":"token","id":"1","content":"a"}
{"type":"error","id":"1","code":"backend_unavailable","message":"daemon is shutting down"}
`
	if got, err := io.ReadAll(nc); err != nil || string(got) != want {
		t.Errorf("\n got %q, %v\nwant %q", got, err, want)
	}
}

// Writing a token allocates no memory, although the client is watched and writes have deadlines.
func TestTokensDoNotAllocate(t *testing.T) {
	allocs := make(chan float64, 1)
	h := serveUnix(t, &server.Server{
		Runner: &exchange.Runner{Handler: infer.HandlerFunc(func(_ context.Context, _ *infer.Request, emit infer.Sink) error {
			ev := &infer.Text{Delta: []byte(" token")}
			for range 5000 { // the codec keeps the answer's text, so its buffer must have room before the measurement
				if err := emit(ev); err != nil {
					return err
				}
			}
			allocs <- testing.AllocsPerRun(1000, func() { _ = emit(ev) })
			return nil
		})},
		WriteTimeout: time.Minute,
	})
	nc := h.dial()
	send(t, nc, "1", "x")
	if _, err := io.Copy(io.Discard, closeWrite(nc)); err != nil {
		t.Fatal(err)
	}
	if n := <-allocs; n != 0 {
		t.Errorf("%v allocations a token", n)
	}
}

func BenchmarkToken(b *testing.B) {
	dir := b.TempDir()
	ln, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		b.Fatal(err)
	}
	srv := &server.Server{
		Runner: &exchange.Runner{Log: slog.New(slog.DiscardHandler), Handler: infer.HandlerFunc(func(_ context.Context, _ *infer.Request, emit infer.Sink) error {
			b.ReportAllocs()
			ev := &infer.Text{Delta: []byte(" token")}
			for b.Loop() {
				if err := emit(ev); err != nil {
					return err
				}
			}
			return nil
		})},
		WriteTimeout: time.Minute,
	}
	ctx, cancel := context.WithCancel(b.Context())
	var served sync.WaitGroup
	defer served.Wait()
	defer cancel()
	served.Go(func() { _ = srv.Serve(ctx, ln, surface) })
	nc, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	_, _ = io.WriteString(nc, `{"messages":[{"role":"user","content":""}]}`+"\n")
	_, _ = io.Copy(io.Discard, closeWrite(nc.(*net.UnixConn)))
}

// BenchmarkAnswer measures a short answer on an open connection, including the client and the
// activity log.
func BenchmarkAnswer(b *testing.B) {
	ln, err := net.Listen("unix", filepath.Join(b.TempDir(), "s"))
	if err != nil {
		b.Fatal(err)
	}
	record, err := activity.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer record.Close()
	srv := &server.Server{
		Runner:       &exchange.Runner{Log: slog.New(slog.DiscardHandler), Handler: infer.HandlerFunc(words), Journal: record},
		WriteTimeout: time.Minute,
	}
	ctx, cancel := context.WithCancel(b.Context())
	var served sync.WaitGroup
	defer served.Wait()
	defer cancel()
	served.Go(func() { _ = srv.Serve(ctx, ln, surface) })
	nc, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	ask := []byte(`{"stream":false,"messages":[{"role":"user","content":"a"}]}` + "\n")
	answer := make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := nc.Write(ask); err != nil {
			b.Fatal(err)
		}
		if _, err := nc.Read(answer); err != nil {
			b.Fatal(err)
		}
	}
}
