//go:build unix

package listen

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/quota"
)

// While no slot is free, new connections wait, even if they will be refused. Serve returns once the
// listener is closed.
func TestSlots(t *testing.T) {
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	release := make(chan struct{})
	acceptor := Acceptor{
		Surface: "test", Log: slog.New(slog.DiscardHandler), Slots: NewSlots(2), Conns: &quota.Quota{PerCaller: 1, Total: 1},
		Refuse: func(nc net.Conn) {
			_, _ = io.WriteString(nc, "refused")
			<-release
		},
	}
	ended := make(chan error, 1)
	go func() {
		ended <- acceptor.Serve(ctx, ln, func(nc net.Conn, _ infer.Peer) {
			_, _ = io.WriteString(nc, "served!")
			_, _ = io.Copy(io.Discard, nc)
		})
	}()
	dial := func() net.Conn {
		t.Helper()
		nc, err := net.Dial("unix", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = nc.Close() })
		return nc
	}
	expect := func(nc net.Conn, want string) {
		t.Helper()
		got := make([]byte, len(want))
		_ = nc.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.ReadFull(nc, got); err != nil || string(got) != want {
			t.Errorf("received %q, %v, want %q", got, err, want)
		}
	}
	first := dial()
	expect(first, "served!")
	expect(dial(), "refused")
	third, fourth := dial(), dial()
	_ = third.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := third.Read(make([]byte, 1)); !isTimeout(err) {
		t.Errorf("a connection without a slot: %v", err)
	}
	close(release) // frees the slot of the second connection: the third is refused, and then the fourth
	expect(third, "refused")
	expect(fourth, "refused")
	_ = first.Close()
	cancel()
	_ = ln.Close()
	select {
	case err := <-ended:
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("Serve = %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("Serve does not return")
	}
}

// A free slot is taken even after the end of the context: the drain answers new clients.
func TestSlotsWhileDraining(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	slots := NewSlots(100)
	for i := range 100 {
		if !slots.take(ended) {
			t.Fatalf("slot %d is not given", i)
		}
	}
	if slots.take(ended) {
		t.Error("one slot too many")
	}
}

func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}
