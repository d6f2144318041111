package server_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/listen"
	"github.com/inferd-go/inferd/internal/quota"
	"github.com/inferd-go/inferd/internal/server"
	v1 "github.com/inferd-go/inferd/internal/wire/v1"
)

// Over a pipe, too, who is refused in the middle of what it sends may finish that, and sees
// the word and the end.
func TestRefusedOverAPipe(t *testing.T) {
	ln, err := listen.Local(fmt.Sprintf(`\\.\pipe\inferd-server-%d`, os.Getpid()), listen.Options{})
	if err != nil {
		t.Fatal(err)
	}
	srv := &server.Server{
		Handler: infer.HandlerFunc(func(_ context.Context, _ *infer.Request, emit infer.Sink) error {
			return emit(&infer.Done{Reason: infer.EndOfTurn, By: "nobody"})
		}),
		Log: slog.New(slog.DiscardHandler), Conns: &quota.Quota{PerCaller: 2, Total: 100},
	}
	ctx, cancel := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	defer serving.Wait()
	defer cancel()
	serving.Go(func() {
		if err := srv.Serve(ctx, ln, server.Surface{Name: "v1", Open: func(nc net.Conn) (server.Codec, error) {
			return &v1.Codec{R: frame.Lines.NewReader(nc, frame.Limit), W: frame.Lines.NewWriter(nc)}, nil
		}}); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	dial := func() net.Conn {
		nc, err := listen.Dial(t.Context(), ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = nc.Close() })
		_ = nc.SetDeadline(time.Now().Add(30 * time.Second))
		return nc
	}
	refused := func(nc net.Conn, text, want string) {
		t.Helper()
		more := strings.Repeat("x", 256<<10) // than the pipe holds
		if _, err := io.WriteString(nc, text+more+"\n"); err != nil {
			t.Errorf("what it sends is cut off: %v", err)
		}
		if got, err := io.ReadAll(nc); err != nil || !strings.Contains(string(got), want) {
			t.Errorf("it got %q, %v, want %s", got, err, want)
		}
	}
	idle, wrong := dial(), dial()
	// Both are in once they are answered.
	for _, nc := range []net.Conn{idle, wrong} {
		if _, err := io.WriteString(nc, `{"id":"1","messages":[{"role":"user","content":"a"}]}`+"\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := nc.Read(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	refused(dial(), "", `"code":"queue_full"`)
	refused(wrong, "nonsense\n", `"code":"invalid_request"`)
}
