package server_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/exchange"
	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/quota"
	"github.com/inferd-go/inferd/internal/server"
)

// A connection above the limit gets one error. Other connections are not affected.
func TestTooManyConnections(t *testing.T) {
	srv := &server.Server{Runner: &exchange.Runner{Handler: infer.HandlerFunc(words)}, Conns: &quota.Quota{PerCaller: 3, Total: 100}}
	h := serveUnix(t, srv)
	var open []*net.UnixConn
	for range 3 {
		nc := h.dial()
		_ = nc.SetDeadline(time.Now().Add(patience))
		send(t, nc, "in", "one") // after an answer, the connection is counted
		if _, err := io.ReadFull(nc, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		open = append(open, nc)
	}
	const want = `{"type":"error","id":"","code":"queue_full","message":"too many connections"}` + "\n"
	for range 5 {
		nc := h.dial()
		_ = nc.SetDeadline(time.Now().Add(patience))
		if got, err := io.ReadAll(nc); err != nil || string(got) != want {
			t.Errorf("the fourth got %q, %v", got, err)
		}
	}
	open[0].Close()
	eventually(t, "the connection that was closed is not counted", func() bool { return srv.Conns.Taken() == 2 })
	h.works()
}

// The memory of a caller's messages is bounded: above the bound, a message is not read until an
// earlier request has been answered.
func TestMemoryOfLargeRequests(t *testing.T) {
	const size = 1 << 20
	gate := make(chan struct{})
	hold := infer.HandlerFunc(func(_ context.Context, req *infer.Request, emit infer.Sink) error {
		if req.ID == "hold" {
			<-gate
		}
		return emit(&infer.Done{Backend: "x"})
	})
	// The buffer of a line at least doubles when it grows, so a line of 2*size takes between 2*size
	// and 4*size of memory.
	srv := &server.Server{Runner: &exchange.Runner{Handler: hold}, Memory: &quota.Quota{PerCaller: 4 * size, Total: 100 * size}}
	h := serveUnix(t, srv)
	large := func(id string) *net.UnixConn {
		nc := h.dial()
		_ = nc.SetDeadline(time.Now().Add(patience))
		var line bytes.Buffer
		send(t, &line, id, strings.Repeat("a", 2*size))
		go func() { _, _ = nc.Write(line.Bytes()) }() // blocks while the server does not read
		return nc
	}
	first := large("hold")
	eventually(t, "memory for the first message is taken", func() bool { return srv.Memory.Taken() > 2*size-frame.FreeBytes })
	second := large("next")
	h.works() // small messages need no memory of the quota
	if srv.Memory.Taken() > 4*size {
		t.Errorf("%d bytes are held", srv.Memory.Taken())
	}
	close(gate)
	for _, nc := range []*net.UnixConn{first, second} {
		if _, line, err := frame.Lines.NewReader(nc, frame.Limit).ReadFrame(); err != nil || !strings.Contains(string(line), `"done"`) {
			t.Errorf("%s, %v", line, err)
		}
		nc.Close()
	}
	eventually(t, "all memory is released", func() bool { return srv.Memory.Taken() == 0 })
}

// If no memory becomes free in time for a message, the client gets an error.
func TestNoMemoryInTime(t *testing.T) {
	srv := &server.Server{Runner: &exchange.Runner{Handler: infer.HandlerFunc(words)}, Memory: &quota.Quota{PerCaller: 1, Total: 1}, FrameTimeout: 50 * time.Millisecond}
	h := serveUnix(t, srv)
	nc := h.dial()
	_ = nc.SetDeadline(time.Now().Add(patience))
	go func() { _, _ = nc.Write(bytes.Repeat([]byte("a"), 1<<20)) }()
	got, err := io.ReadAll(nc)
	if want := `{"type":"error","id":"","code":"invalid_request","message":"frame took too long to arrive"}` + "\n"; err != nil || string(got) != want {
		t.Errorf("got %q, %v", got, err)
	}
	h.works()
}
