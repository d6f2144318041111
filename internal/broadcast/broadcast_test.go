package broadcast_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/inferd-go/inferd/internal/broadcast"
	"github.com/inferd-go/inferd/internal/listen"
	"github.com/inferd-go/inferd/internal/shortdir"
	"github.com/inferd-go/inferd/internal/status"
	"github.com/inferd-go/inferd/internal/wire/admin"
)

// waitLimit bounds every wait, generously for a busy machine.
const waitLimit = 20 * time.Second

// A server serves a board on a real socket.
type server struct {
	*status.Board
	path string
	end  func() error // ends Serve and returns its error
}

func open(t *testing.T, initial status.Event) *server {
	t.Helper()
	dir := shortdir.New(t)
	s := &server{Board: status.NewBoard(initial), path: filepath.Join(dir, "admin.sock")}
	ln, err := listen.Local(s.path, listen.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- broadcast.Serve(ctx, ln, s.Board, nil, nil, slog.New(slog.DiscardHandler))
	}()
	s.end = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-served:
			return err
		case <-time.After(waitLimit):
			return errors.New("Serve does not return")
		}
	})
	t.Cleanup(func() {
		if err := s.end(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// waitGoroutines waits until at most before goroutines run. Then all connections are closed, and
// their goroutines have ended.
func waitGoroutines(t *testing.T, before int) {
	t.Helper()
	for end := time.Now().Add(waitLimit); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}

// A client reads frames.
type client struct {
	t *testing.T
	*net.UnixConn
	lines *bufio.Reader
}

func (s *server) dial(t *testing.T) *client {
	t.Helper()
	nc, err := net.Dial("unix", s.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(waitLimit)); err != nil {
		t.Fatal(err)
	}
	return &client{t, nc.(*net.UnixConn), bufio.NewReader(nc)}
}

func (c *client) next() string {
	c.t.Helper()
	line, err := c.lines.ReadString('\n')
	if err != nil {
		c.t.Fatalf("read: %v after %q", err, line)
	}
	return strings.TrimSuffix(line, "\n")
}

func (c *client) want(events ...status.Event) {
	c.t.Helper()
	for _, ev := range events {
		if diff := cmp.Diff(string(admin.Encode(ev)), c.next()); diff != "" {
			c.t.Fatalf("frame (-want +got):\n%s", diff)
		}
	}
}

func (c *client) wantEnd() {
	c.t.Helper()
	if line, err := c.lines.ReadString('\n'); err != io.EOF || line != "" {
		c.t.Fatalf("read %q, %v, want the end", line, err)
	}
}

// event returns an event with the number i, padded so that unread events soon fill a socket.
func event(i int) status.Event {
	return status.Loading{Backend: strings.Repeat("x", 4000), Phase: status.KVCache{NCtx: i}}
}

func TestBacklogIsCapabilitiesThenState(t *testing.T) {
	s := open(t, status.Starting{})
	s.Publish(status.Capabilities{Backend: "gen", Accelerator: "cpu"})
	s.Publish(status.Ready{})
	s.Publish(status.Capabilities{Backend: "embed", Accelerator: "cpu"})
	c := s.dial(t)
	c.want(status.Capabilities{Backend: "embed", Accelerator: "cpu"}, status.Capabilities{Backend: "gen", Accelerator: "cpu"}, status.Ready{})
	s.Publish(status.Draining{})
	c.want(status.Draining{}) // and nothing between
}

func TestEarlyClientSeesTheBoot(t *testing.T) {
	s := open(t, status.Starting{})
	looks := status.Loading{Phase: status.CheckingLocal{Path: "/m/x.gguf"}}
	s.Publish(looks)
	a, b := s.dial(t), s.dial(t)
	a.want(looks)
	b.want(looks)
	life := []status.Event{event(1), status.Capabilities{Backend: "gen"}, status.Ready{}}
	for _, ev := range life {
		s.Publish(ev)
	}
	a.want(life...)
	b.want(life...)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	s.Publish(status.Draining{})
	b.want(status.Draining{}) // the other client's end does not matter
}

func TestInputIsDiscarded(t *testing.T) {
	s := open(t, status.Starting{})
	c := s.dial(t)
	c.want(status.Starting{})
	if _, err := c.Write([]byte(strings.Repeat("shutdown\n\x00{", 100_000))); err != nil { // more than a socket holds
		t.Fatal(err)
	}
	s.Publish(status.Ready{})
	c.want(status.Ready{})
}

func TestHalfClosedClientGetsEvents(t *testing.T) {
	s := open(t, status.Starting{})
	s.dial(t).want(status.Starting{}) // Serve runs
	before := runtime.NumGoroutine()
	c := s.dial(t)
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	c.want(status.Starting{})
	for i := range 3 {
		s.Publish(event(i))
		c.want(event(i))
	}
	// A hang-up after the half-close is noticed, too.
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	waitGoroutines(t, before)
}

func TestHangUpIsNoticedWithoutEvents(t *testing.T) {
	s := open(t, status.Ready{})
	first := s.dial(t)
	first.want(status.Ready{})
	before := runtime.NumGoroutine()
	const n = 100
	for i := range n {
		c := s.dial(t)
		if i%2 == 0 { // the others hang up with the frame unread
			c.want(status.Ready{})
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	waitGoroutines(t, before)
	s.Publish(status.Draining{})
	first.want(status.Draining{})
}

func TestLaggingClientIsCutOffAlone(t *testing.T) {
	s := open(t, status.Starting{})
	fast := s.dial(t)
	fast.want(status.Starting{})
	before := runtime.NumGoroutine()
	slow := s.dial(t)
	slow.want(status.Starting{}) // the last frame that it reads before the others are sent
	const n = 4 * status.MaxUnread
	for i := range n {
		s.Publish(event(i))
		fast.want(event(i))
	}
	got := 0
	for ; ; got++ { // the frames before the end are whole and in order
		line, err := slow.lines.ReadString('\n')
		if err == io.EOF && line == "" {
			break
		}
		if want := string(admin.Encode(event(got))) + "\n"; err != nil || line != want {
			t.Fatalf("frame %d: %.60q, %v", got, line, err)
		}
	}
	if got < status.MaxUnread || got >= n {
		t.Errorf("the lagging client got %d events of %d, want at least %d and an early end", got, n, status.MaxUnread)
	}
	waitGoroutines(t, before)
}

// No event is lost or doubled between the backlog and the stream.
func TestSubscribingIsAtomic(t *testing.T) {
	const events = 1000
	numbered := func(i int) status.Event { return status.Loading{Phase: status.KVCache{NCtx: i}} }
	s := open(t, numbered(0))
	witness := s.dial(t)
	witness.want(numbered(0))
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for last := 0; last < events; {
				nc, err := net.Dial("unix", s.path)
				if err != nil {
					t.Error(err)
					return
				}
				lines := bufio.NewScanner(nc)
				first := true
				for n := 0; n < 5+w && last < events && lines.Scan(); n++ { // a client that lags connects again
					var i int
					if _, err := fmt.Sscanf(lines.Text(), `{"id":"admin","n_ctx":%d,`, &i); err != nil {
						t.Errorf("%q: %v", lines.Text(), err)
					}
					if !first && i != last+1 || i < last {
						t.Errorf("%d follows %d", i, last)
					}
					first, last = false, i
				}
				_ = nc.Close()
			}
		})
	}
	for i := 1; i <= events; i++ {
		s.Publish(numbered(i))
		witness.want(numbered(i)) // this client misses none
	}
	all.Wait()
}

func TestLastEventsAreSentAtTheEnd(t *testing.T) {
	s := open(t, status.Starting{})
	clients := []*client{s.dial(t), s.dial(t), s.dial(t)}
	for _, c := range clients {
		c.want(status.Starting{})
	}
	for i := range 100 {
		s.Publish(event(i))
	}
	s.Publish(status.Draining{})
	ended := make(chan error, 1)
	go func() { ended <- s.end() }()
	for _, c := range clients {
		for i := range 100 {
			c.want(event(i))
		}
		c.want(status.Draining{})
		c.wantEnd()
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("unix", s.path); err == nil {
		t.Error("the socket still accepts")
	}
}

// pipes is a listener in memory. Accept returns the queued connections and errors, and then
// waits for Close.
type pipes struct {
	next   chan any
	closed chan struct{}
	once   sync.Once
}

func newPipes(next ...any) *pipes {
	p := &pipes{next: make(chan any, len(next)), closed: make(chan struct{})}
	for _, n := range next {
		p.next <- n
	}
	return p
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case n := <-p.next:
		if err, ok := n.(error); ok {
			return nil, err
		}
		return n.(net.Conn), nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{} }

func TestAcceptErrorsAreRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		ln := newPipes(syscall.EMFILE, syscall.EMFILE, syscall.ECONNABORTED, there)
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() {
			served <- broadcast.Serve(ctx, ln, status.NewBoard(status.Ready{}), nil, nil, slog.New(slog.DiscardHandler))
		}()
		start := time.Now()
		line, err := bufio.NewReader(here).ReadString('\n')
		if err != nil || !strings.Contains(line, `"ready"`) {
			t.Errorf("read %q, %v", line, err)
		}
		if took := time.Since(start); took == 0 || took > time.Second {
			t.Errorf("served after %s, want a short pause", took)
		}
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

func TestListenerClosedElsewhereIsAnError(t *testing.T) {
	ln := newPipes()
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	err := broadcast.Serve(t.Context(), ln, status.NewBoard(status.Ready{}), nil, nil, slog.New(slog.DiscardHandler))
	if !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve = %v, want %v", err, net.ErrClosed)
	}
}

// A connection that is stuck in a write is closed after writeTimeout, and within flushTimeout
// once the daemon stops.
func TestClientThatNeverReadsIsCutOff(t *testing.T) {
	for name, test := range map[string]struct {
		stop bool
		want time.Duration
	}{
		"while the daemon serves": {false, time.Minute},
		"when the daemon stops":   {true, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				here, there := net.Pipe() // holds no byte: the first write is stuck
				ln := newPipes(there)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				served := make(chan error, 1)
				go func() {
					served <- broadcast.Serve(ctx, ln, status.NewBoard(status.Ready{}), nil, nil, slog.New(slog.DiscardHandler))
				}()
				synctest.Wait()
				start := time.Now()
				if test.stop {
					cancel()
				}
				// The server discards what it reads, so a write fails only once the server has
				// closed the connection.
				for err := error(nil); err == nil; {
					_, err = here.Write([]byte("."))
					time.Sleep(time.Millisecond)
				}
				if got := time.Since(start); got < test.want || got > test.want+10*time.Millisecond {
					t.Errorf("closed after %s, want %s", got, test.want)
				}
				cancel()
				if err := <-served; err != nil {
					t.Error(err)
				}
			})
		})
	}
}
