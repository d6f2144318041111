package daemon_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/inferd-go/inferd/internal/config"
	"github.com/inferd-go/inferd/internal/corpus"
	"github.com/inferd-go/inferd/internal/daemon"
	"github.com/inferd-go/inferd/internal/paths"
	"github.com/inferd-go/inferd/internal/shortdir"
)

// TestCorpus plays every transcript of spec/corpus against a daemon in this process, in whole
// messages and a byte at a time.
func TestCorpus(t *testing.T) {
	all, err := corpus.Load(os.DirFS("../../spec/corpus"))
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 100 {
		t.Fatalf("only %d transcripts", len(all))
	}
	for n, script := range all {
		if len(script.Hub) > 0 {
			continue // it needs engines, so package test plays it
		}
		t.Run(script.Name, func(t *testing.T) {
			if testing.Short() && n%3 > 0 {
				t.Skip("one script in three, because each starts a daemon")
			}
			dial := serve(t, script.Config)
			if err := script.Play(dial, 1<<30); err != nil {
				t.Error(err)
			}
		})
		t.Run(script.Name+", a byte at a time", func(t *testing.T) {
			if testing.Short() && n%12 > 0 {
				t.Skip("one script in twelve")
			}
			dial := serve(t, script.Config)
			if err := script.Play(dial, 1); err != nil {
				t.Error(err)
			}
		})
	}
}

// serve runs a daemon with that config until the test ends. It returns when the daemon is ready.
// dial connects to the socket with that file name.
func serve(t *testing.T, cfg string) (dial func(leaf string) (net.Conn, error)) {
	t.Helper()
	dir := shortdir.InMemory(t)
	t.Setenv("INFERD_LOG_DIR", filepath.Join(dir, "logs"))
	t.Setenv("SSL_CERT_FILE", "") // saves each daemon from parsing all certificates of the system
	file := filepath.Join(dir, "config.json")
	if err := os.WriteFile(file, []byte(cfg), 0o600); err != nil {
		t.Fatal(err)
	}
	flags, err := config.ParseFlags([]string{"--config", file, "--uds", filepath.Join(dir, paths.V1Leaf)}, paths.Env{Getenv: func(string) string { return "" }}, daemon.Kinds, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	log := slog.New(onMessage{slog.DiscardHandler, "ready", ready})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- daemon.Run(ctx, &flags, paths.Default(), daemon.Program{Version: "test", Log: log, SetLogLevel: func(string) {}})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the daemon ended: %v", err)
		}
	})
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
		t.Fatalf("the daemon ended before it was ready: %v", err)
	}
	return func(leaf string) (net.Conn, error) { return net.Dial("unix", filepath.Join(dir, leaf)) }
}

// onMessage is a log handler that closes the channel logged when the given message is logged.
type onMessage struct {
	slog.Handler
	message string
	logged  chan struct{}
}

func (h onMessage) Enabled(context.Context, slog.Level) bool { return true }

func (h onMessage) Handle(_ context.Context, r slog.Record) error {
	if r.Message == h.message {
		close(h.logged)
	}
	return nil
}
