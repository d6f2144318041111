package bridge_test

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/inferd-go/inferd/internal/bridge"
	"github.com/inferd-go/inferd/internal/exchange"
	"github.com/inferd-go/inferd/internal/infer"
)

// BenchmarkTokens measures the transfer of a token from the handler to a client, over a TCP and a
// Unix socket.
func BenchmarkTokens(b *testing.B) {
	for _, network := range []string{"unix", "tcp"} {
		b.Run(network, func(b *testing.B) {
			address := "127.0.0.1:0"
			if network == "unix" {
				address = filepath.Join(b.TempDir(), "s")
			}
			ln, err := net.Listen(network, address)
			if err != nil {
				b.Fatal(err)
			}
			handler := infer.HandlerFunc(func(_ context.Context, _ *infer.Request, emit infer.Sink) error {
				ev := infer.Text{Delta: []byte(" word"), Tokens: 1}
				for range b.N {
					if err := emit(&ev); err != nil {
						return err
					}
				}
				return emit(&infer.Done{Reason: infer.EndOfTurn})
			})
			bridge := &bridge.Bridge{
				Runner: &exchange.Runner{Handler: handler, Log: slog.New(slog.DiscardHandler)}, Access: bridge.Access{Open: true},
			}
			bridge.Open(entries)
			ctx, stop := context.WithCancel(b.Context())
			served := make(chan error, 1)
			go func() { served <- bridge.Serve(ctx, ln) }()
			nc, err := net.Dial(network, ln.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			if _, err := io.WriteString(nc, request("POST", chatPath, hi(`,"stream":true`))); err != nil {
				b.Fatal(err)
			}
			res, err := http.ReadResponse(bufio.NewReaderSize(nc, 64<<10), nil)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != http.StatusOK {
				b.Fatal(res.StatusCode, err)
			}
			b.StopTimer()
			_ = res.Body.Close()
			_ = nc.Close()
			stop()
			if err := <-served; err != nil {
				b.Error(err)
			}
		})
	}
}

// BenchmarkRequests measures a short request on an open connection.
func BenchmarkRequests(b *testing.B) {
	handler := infer.HandlerFunc(func(_ context.Context, _ *infer.Request, emit infer.Sink) error {
		ev := infer.Text{Delta: []byte(" word"), Tokens: 1}
		if err := emit(&ev); err != nil {
			return err
		}
		return emit(&infer.Done{Reason: infer.EndOfTurn})
	})
	ln, err := net.Listen("unix", filepath.Join(b.TempDir(), "s"))
	if err != nil {
		b.Fatal(err)
	}
	served := &bridge.Bridge{Runner: &exchange.Runner{Handler: handler, Log: slog.New(slog.DiscardHandler)}}
	served.Open(entries)
	ctx, stop := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- served.Serve(ctx, ln) }()
	nc, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	r, ask := bufio.NewReader(nc), request("POST", chatPath, hi(""))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := io.WriteString(nc, ask); err != nil {
			b.Fatal(err)
		}
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != http.StatusOK {
			b.Fatal(res.StatusCode, err)
		}
		_ = res.Body.Close()
	}
	_ = nc.Close()
	stop()
	if err := <-ended; err != nil {
		b.Error(err)
	}
}
