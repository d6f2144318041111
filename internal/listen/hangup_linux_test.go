package listen_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/listen"
	"github.com/inferd-go/inferd/internal/shortdir"
)

func pair(t *testing.T) (server, client *net.UnixConn) {
	t.Helper()
	return connect(t, local(t, filepath.Join(shortdir.New(t), "s"), listen.Options{}))
}

// await starts AwaitHangUp and returns a channel that yields its result.
func await(ctx context.Context, nc net.Conn) <-chan error {
	done := make(chan error, 1)
	go func() { done <- listen.AwaitHangUp(ctx, nc) }()
	return done
}

// result returns the result of a wait that await has started. It fails the test if the wait takes
// more than 10 s.
func result(t *testing.T, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("AwaitHangUp did not return")
		return nil
	}
}

func send(t *testing.T, nc net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(nc, text); err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, nc net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(nc, got); err != nil || string(got) != want {
		t.Fatalf("received %q, %v, want %q", got, err, want)
	}
}

// asleep returns once a goroutine sleeps in AwaitHangUp, after its first poll.
func asleep(t *testing.T) {
	t.Helper()
	stacks := make([]byte, 1<<20)
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); runtime.Gosched() {
		for g := range strings.SplitSeq(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
			if strings.Contains(g, "[IO wait") && strings.Contains(g, "listen.awaitHangUp(") {
				return
			}
		}
	}
	t.Fatal("AwaitHangUp does not sleep")
}

var errEnough = errors.New("enough")

// unmoved checks that no earlier event has ended a wait: it cancels the context of the wait, which must
// then return errEnough.
func unmoved(t *testing.T, done <-chan error, cancel context.CancelCauseFunc) {
	t.Helper()
	cancel(errEnough)
	if err := result(t, done); !errors.Is(err, errEnough) {
		t.Errorf("AwaitHangUp: %v, want %v", err, errEnough)
	}
}

func TestFullCloseIsAHangUp(t *testing.T) {
	for name, before := range map[string]func(server, client *net.UnixConn){
		"of a silent client":                      func(_, _ *net.UnixConn) {},
		"of one that has sent more":               func(_, c *net.UnixConn) { send(t, c, "next request\n") },
		"of one that has not read all":            func(s, _ *net.UnixConn) { send(t, s, "answer\n") },
		"of one that had half-closed":             func(_, c *net.UnixConn) { c.CloseWrite() },
		"of one that sent more, then half-closed": func(_, c *net.UnixConn) { send(t, c, "next\n"); c.CloseWrite() },
	} {
		t.Run(name+", while waiting", func(t *testing.T) {
			server, client := pair(t)
			done := await(t.Context(), server)
			before(server, client)
			asleep(t)
			client.Close()
			if err := result(t, done); err != nil {
				t.Error(err)
			}
		})
		t.Run(name+", before", func(t *testing.T) {
			server, client := pair(t)
			before(server, client)
			client.Close()
			if err := result(t, await(t.Context(), server)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestUnreadBytesStay(t *testing.T) {
	server, client := pair(t)
	send(t, client, "one\n")
	done := await(t.Context(), server)
	asleep(t)
	send(t, client, "two\n")
	client.Close()
	if err := result(t, done); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(server); err != nil || string(got) != "one\ntwo\n" {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestHalfCloseIsNone(t *testing.T) {
	server, client := pair(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	done := await(ctx, server)
	send(t, client, "request\n")
	client.CloseWrite()
	send(t, server, "answer\n")
	receive(t, client, "answer\n")
	asleep(t)
	unmoved(t, done, cancel)

	// This wait starts after the half-close, which must not end it.
	ctx, cancel = context.WithCancelCause(t.Context())
	done = await(ctx, server)
	send(t, server, "more\n")
	receive(t, client, "more\n")
	unmoved(t, done, cancel)

	receive(t, server, "request\n")
	if n, err := server.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("Read = %d, %v, want EOF", n, err)
	}
	done = await(t.Context(), server) // an EOF that was read must not hide a hang-up
	client.Close()
	if err := result(t, done); err != nil {
		t.Error(err)
	}
}

func TestAfterwardsTheConnectionReadsOn(t *testing.T) {
	server, client := pair(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	done := await(ctx, server)
	send(t, client, "pipelined\n")
	unmoved(t, done, cancel)
	receive(t, server, "pipelined\n")
	later := make(chan error, 1)
	go func() { // a read that has to wait fails if a deadline is left
		got := make([]byte, 6)
		_, err := io.ReadFull(server, got)
		if err == nil && string(got) != "later\n" {
			err = fmt.Errorf("read %q", got)
		}
		later <- err
	}()
	send(t, client, "later\n")
	if err := result(t, later); err != nil {
		t.Error(err)
	}
}

func TestContextThatHasEnded(t *testing.T) {
	server, client := pair(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	unmoved(t, await(ctx, server), cancel)
	unmoved(t, await(ctx, server), cancel)
	send(t, client, "x")
	receive(t, server, "x")
}

// If ctx ends while the peer hangs up, AwaitHangUp returns nil or the cause of ctx, and leaves no
// read deadline in either case.
func TestContextEndsBesideAHangUp(t *testing.T) {
	ln := local(t, filepath.Join(shortdir.New(t), "s"), listen.Options{})
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errEnough)
	for range 200 {
		server, client := connect(t, ln)
		send(t, client, "x")
		client.Close()
		if err := listen.AwaitHangUp(ctx, server); err != nil && !errors.Is(err, errEnough) {
			t.Fatal(err)
		}
		for _, want := range []error{nil, io.EOF} {
			runtime.Gosched()
			if _, err := io.ReadFull(server, make([]byte, 1)); !errors.Is(err, want) {
				t.Fatalf("Read: %v, want %v", err, want)
			}
		}
		server.Close()
	}
}

func TestOlderDeadlineIsForgotten(t *testing.T) {
	server, client := pair(t)
	if err := server.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	unmoved(t, await(ctx, server), cancel)
	send(t, client, "x")
	receive(t, server, "x")
}

func TestClosedOnOurSide(t *testing.T) {
	server, _ := pair(t)
	done := await(t.Context(), server)
	server.Close()
	if err := result(t, done); !errors.Is(err, net.ErrClosed) {
		t.Errorf("AwaitHangUp: %v", err)
	}
	if err := result(t, await(t.Context(), server)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("AwaitHangUp, closed before: %v", err)
	}
}

func TestConnectionsThatCannotTell(t *testing.T) {
	p, q := net.Pipe()
	defer p.Close()
	defer q.Close()
	if err := listen.AwaitHangUp(t.Context(), p); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("%T: %v", p, err)
	}
}

// Over TCP a close looks like a half-close until the peer refuses a write. A reset is a hang-up at
// once.
func TestTCPHangUp(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	call := func() (server, client *net.TCPConn) {
		t.Helper()
		nc, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		accepted, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = nc.Close(), accepted.Close() })
		return accepted.(*net.TCPConn), nc.(*net.TCPConn)
	}
	t.Run("half-close", func(t *testing.T) {
		server, client := call()
		ctx, cancel := context.WithCancelCause(t.Context())
		done := await(ctx, server)
		_ = client.CloseWrite()
		send(t, server, "answer\n")
		receive(t, client, "answer\n")
		asleep(t)
		unmoved(t, done, cancel)
	})
	t.Run("close, and a write", func(t *testing.T) {
		server, client := call()
		done := await(t.Context(), server)
		_ = client.Close()
		send(t, server, "answer\n")
		if err := result(t, done); err != nil {
			t.Error(err)
		}
	})
	t.Run("reset", func(t *testing.T) {
		server, client := call()
		done := await(t.Context(), server)
		if err := client.SetLinger(0); err != nil {
			t.Fatal(err)
		}
		_ = client.Close()
		if err := result(t, done); err != nil {
			t.Error(err)
		}
	})
}

func TestKilledClient(t *testing.T) {
	path := filepath.Join(shortdir.New(t), "s")
	ln := local(t, path, listen.Options{})
	client := start(t, "dial", path)
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	done := await(t.Context(), server)
	send(t, server, "an answer that is not read\n")
	kill(client)
	if err := result(t, done); err != nil {
		t.Error(err)
	}
	receive(t, server, "a request\n")
}

// A concurrent writer does not disturb the wait, and a client that reads does not end it.
func TestBesideAWriter(t *testing.T) {
	server, client := pair(t)
	done := await(t.Context(), server)
	var writer sync.WaitGroup
	writer.Go(func() {
		for { // until the client has gone
			if _, err := server.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	})
	if _, err := io.ReadFull(client, make([]byte, 1<<20)); err != nil {
		t.Error(err)
	}
	select {
	case err := <-done:
		t.Errorf("AwaitHangUp: %v", err)
	default:
	}
	client.Close()
	if err := result(t, done); err != nil {
		t.Error(err)
	}
	writer.Wait()
}

// Repeated waits on one connection, as in a server, lose no bytes, although the end of each wait
// races with the next request.
func TestManyTurns(t *testing.T) {
	server, client := pair(t)
	before := runtime.NumGoroutine()
	const turns = 1000
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := range turns {
			fmt.Fprintf(client, "%04d\n", i)
		}
	})
	for i := range turns {
		ctx, cancel := context.WithCancelCause(t.Context())
		done := await(ctx, server)
		receive := fmt.Sprintf("%04d\n", i)
		if i%2 == 0 {
			runtime.Gosched() // so that some calls are cancelled before they wait, others during the wait
		}
		cancel(errEnough)
		if err := result(t, done); !errors.Is(err, errEnough) {
			t.Fatalf("turn %d: %v", i, err)
		}
		got := make([]byte, len(receive))
		if _, err := io.ReadFull(server, got); err != nil || string(got) != receive {
			t.Fatalf("turn %d: received %q, %v", i, got, err)
		}
	}
	writer.Wait()
	deadline := time.Now().Add(10 * time.Second)
	for runtime.NumGoroutine() > before {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
		runtime.Gosched()
	}
	client.Close()
	if err := result(t, await(t.Context(), server)); err != nil {
		t.Error(err)
	}
}

func TestIsNoticedSoon(t *testing.T) {
	ln := local(t, filepath.Join(shortdir.New(t), "s"), listen.Options{})
	var took []time.Duration
	for range 101 {
		server, client := connect(t, ln)
		done := await(t.Context(), server)
		asleep(t)
		start := time.Now()
		client.Close()
		if err := result(t, done); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(start))
		server.Close()
	}
	slices.Sort(took)
	t.Logf("noticed after %v (median), %v (slowest of %d)", took[len(took)/2], took[len(took)-1], len(took))
	if median := took[len(took)/2]; median > 10*time.Millisecond {
		t.Errorf("half of the hang-ups took more than %v", median)
	}
}

func threads(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	var n int
	for line := range strings.Lines(string(status)) {
		if _, err := fmt.Sscanf(line, "Threads: %d", &n); err == nil {
			return n
		}
	}
	t.Fatal("no line on threads")
	return 0
}

func TestHoldsNoThread(t *testing.T) {
	ln := local(t, filepath.Join(shortdir.New(t), "s"), listen.Options{})
	const waits = 100
	before := threads(t)
	var clients []net.Conn
	var done []<-chan error
	for range waits {
		server, client := connect(t, ln)
		clients = append(clients, client)
		done = append(done, await(t.Context(), server))
		send(t, client, "x") // an event that wakes the wait, but does not end it
	}
	if after := threads(t); after > before+waits/4 {
		t.Errorf("%d waits took %d threads", waits, after-before)
	}
	for i, c := range clients {
		c.Close()
		if err := result(t, done[i]); err != nil {
			t.Error(err)
		}
	}
}

// BenchmarkAwaitHangUp measures the cost of AwaitHangUp for a request: one wait that is cancelled.
func BenchmarkAwaitHangUp(b *testing.B) {
	dir := shortdir.New(b)
	ln, err := listen.Local(filepath.Join(dir, "s"), listen.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	client, err := listen.Dial(b.Context(), ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	server, err := ln.Accept()
	if err != nil {
		b.Fatal(err)
	}
	defer server.Close()
	b.ReportAllocs()
	for b.Loop() {
		ctx, cancel := context.WithCancel(b.Context())
		done := await(ctx, server)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			b.Fatal(err)
		}
	}
}
