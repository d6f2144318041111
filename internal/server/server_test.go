package server_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd-go/inferd/internal/admit"
	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/exchange"
	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/server"
)

// A pipeListener is a listener without a network. Accept returns connections of [net.Pipe], or
// errors.
type pipeListener struct {
	next   chan any
	closed chan struct{}
	once   sync.Once
}

func newListener() *pipeListener {
	return &pipeListener{next: make(chan any), closed: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case v := <-l.next:
		if err, ok := v.(error); ok {
			return nil, err
		}
		return v.(net.Conn), nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipeListener) Addr() net.Addr { return nil }

// give lets Accept return v. It reports false if the listener is closed.
func (l *pipeListener) give(v any) bool {
	select {
	case l.next <- v:
		return true
	case <-l.closed:
		return false
	}
}

// A client is the client's end of a connection. It records the lines that the server sends, and
// their times.
type client struct {
	net.Conn
	lines []string
	times []time.Duration // time of each line since the start of the test
	done  chan struct{}   // closed when the connection ends
}

// A bubbleServer is a server that runs in a synctest bubble.
type bubbleServer struct {
	t      *testing.T
	ln     *pipeListener
	cancel context.CancelFunc
	served chan error
	start  time.Time
}

// inBubble calls test in a synctest bubble in which srv runs.
func inBubble(t *testing.T, srv *server.Server, test func(r *bubbleServer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		if srv.Runner.Log == nil {
			srv.Runner.Log = slog.New(slog.DiscardHandler)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if gate, ok := srv.Runner.Handler.(*admit.Gate); ok {
			context.AfterFunc(ctx, gate.Close)
		}
		r := &bubbleServer{t: t, ln: newListener(), cancel: cancel, served: make(chan error, 1), start: time.Now()}
		go func() { r.served <- srv.Serve(ctx, r.ln, surface) }()
		test(r)
	})
}

// dial returns a new client. If deaf is set, nothing reads from its connection except the test
// itself.
func (r *bubbleServer) dial(deaf bool) *client {
	near, far := net.Pipe()
	c := &client{Conn: near, done: make(chan struct{})}
	r.t.Cleanup(func() { _ = near.Close() })
	if !r.ln.give(far) {
		r.t.Fatal("the listener is closed")
	}
	if deaf {
		return c
	}
	go func() {
		defer close(c.done)
		for s := bufio.NewScanner(near); s.Scan(); {
			c.lines = append(c.lines, s.Text())
			c.times = append(c.times, time.Since(r.start))
		}
	}()
	return c
}

// end waits until Serve has returned. It returns the time since the start of the test.
func (r *bubbleServer) end() time.Duration {
	r.t.Helper()
	if err := <-r.served; err != nil {
		r.t.Errorf("Serve: %v", err)
	}
	return time.Since(r.start)
}

// seconds is a handler that emits one text, and ends the answer after the duration that the prompt
// spells.
func seconds(ctx context.Context, req *infer.Request, emit infer.Sink) error {
	d, err := time.ParseDuration(prompt(req))
	if err != nil {
		return infer.Errorf(infer.Invalid, "%w", err)
	}
	if err := emit(&infer.Text{Delta: []byte("a")}); err != nil {
		return err
	}
	select {
	case <-time.After(d):
		return emit(&infer.Done{Reason: infer.EndOfTurn, Out: 1, Backend: "clock"})
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func token(id, text string) string {
	return fmt.Sprintf(`{"type":"token","id":%q,"content":%q}`, id, text)
}

func done(id string) string {
	return fmt.Sprintf(`{"type":"done","id":%q,"content":"a","usage":{"prompt_tokens":0,"completion_tokens":1},"stop_reason":"end","backend":"clock"}`, id)
}

func failed(id, code, text string) string {
	return fmt.Sprintf(`{"type":"error","id":%q,"code":%q,"message":%q}`, id, code, text)
}

func (c *client) want(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(c.lines, want) {
		t.Errorf("\n got %s\nwant %s", strings.Join(c.lines, "\n     "), strings.Join(want, "\n     "))
	}
}

// The server stops while four requests run and six wait: the six are refused at once, two end in
// time, and two are cut off at the end of the grace.
func TestDrain(t *testing.T) {
	gate := &admit.Gate{Depth: 6, Total: 6, Choose: func(*infer.Request) (admit.Destination, error) {
		return admit.Destination{Backend: &backend.Backend{Slots: 4, Handler: infer.HandlerFunc(seconds)}}, nil
	}}
	inBubble(t, &server.Server{Runner: &exchange.Runner{Handler: gate, Grace: 8 * time.Second}}, func(r *bubbleServer) {
		idle := r.dial(false)
		var clients []*client
		for i, d := range []string{"3s", "7s", "100s", "200s", "1s", "1s", "1s", "1s", "1s", "1s"} {
			c := r.dial(false)
			send(t, c, fmt.Sprint(i), d)
			synctest.Wait()
			clients = append(clients, c)
		}
		r.cancel()
		synctest.Wait()
		for i, c := range clients[4:] {
			<-c.done
			c.want(t, failed(fmt.Sprint(i+4), "backend_unavailable", "admission closed"))
		}
		time.Sleep(time.Second)
		// A new request, on an idle connection or on a new one, is refused with its ID.
		late := r.dial(false)
		for id, c := range map[string]*client{"idle": idle, "late": late} {
			send(t, c, id, "1s")
			<-c.done
			c.want(t, failed(id, "backend_unavailable", "admission closed"))
		}
		silent := r.dial(false)
		if at := r.end(); at != 8*time.Second {
			t.Errorf("it ended after %v, want 8s", at)
		}
		for i, c := range clients[:2] {
			<-c.done
			c.want(t, token(fmt.Sprint(i), "a"), done(fmt.Sprint(i)))
		}
		for i, c := range clients[2:4] {
			<-c.done
			c.want(t, token(fmt.Sprint(i+2), "a"), failed(fmt.Sprint(i+2), "backend_unavailable", "daemon is shutting down"))
		}
		<-silent.done
		silent.want(t)
		if r.ln.give(nil) {
			t.Error("somebody still accepts")
		}
	})
}

// The server stops when the last request has ended.
func TestDrainEndsWithTheLastRequest(t *testing.T) {
	inBubble(t, &server.Server{Runner: &exchange.Runner{Handler: infer.HandlerFunc(seconds), Grace: time.Hour}}, func(r *bubbleServer) {
		idle, a, b := r.dial(false), r.dial(false), r.dial(false)
		send(t, a, "a", "3s")
		send(t, b, "b", "5s")
		synctest.Wait()
		r.cancel()
		if at := r.end(); at != 5*time.Second {
			t.Errorf("it ended after %v, want 5s", at)
		}
		<-idle.done
		<-a.done
		<-b.done
		a.want(t, token("a", "a"), done("a"))
		b.want(t, token("b", "a"), done("b"))
		if a.times[1] != 3*time.Second {
			t.Errorf("a had its answer after %v", a.times[1])
		}
	})
}

func TestDrainWithNothingToDo(t *testing.T) {
	inBubble(t, &server.Server{Runner: &exchange.Runner{Handler: infer.HandlerFunc(seconds), Grace: time.Hour}}, func(r *bubbleServer) {
		c := r.dial(false)
		half := r.dial(false)
		_, _ = io.WriteString(half, `{"id":`)
		r.cancel()
		if at := r.end(); at != 0 {
			t.Errorf("it ended after %v", at)
		}
		<-c.done
		<-half.done
	})
}

// Without grace running requests are canceled at once. A handler may still finish its answer.
func TestNoGrace(t *testing.T) {
	h := infer.HandlerFunc(func(ctx context.Context, req *infer.Request, emit infer.Sink) error {
		<-ctx.Done()
		switch prompt(req) {
		case "done":
			return emit(&infer.Done{Reason: infer.Canceled, Backend: "x"})
		case "class":
			return infer.Errorf(infer.Internal, "engine gone")
		case "nothing":
			return nil
		default:
			return ctx.Err()
		}
	})
	inBubble(t, &server.Server{Runner: &exchange.Runner{Handler: h}}, func(r *bubbleServer) {
		clients := make(map[string]*client)
		for _, kind := range []string{"done", "class", "nothing", "error"} {
			clients[kind] = r.dial(false)
			send(t, clients[kind], "1", kind)
		}
		synctest.Wait()
		r.cancel()
		if at := r.end(); at != 0 {
			t.Errorf("it ended after %v", at)
		}
		for kind, c := range clients {
			<-c.done
			want := failed("1", "backend_unavailable", "daemon is shutting down")
			if kind == "done" {
				want = `{"type":"done","id":"1","content":"","usage":{"prompt_tokens":0,"completion_tokens":0},"stop_reason":"cancelled","backend":"x"}`
			}
			c.want(t, want)
		}
	})
}

// A client that does not read delays the end of the server by a second at most.
func TestDrainWithDeafClients(t *testing.T) {
	inBubble(t, &server.Server{Runner: &exchange.Runner{Handler: infer.HandlerFunc(seconds), Grace: 2 * time.Second}, WriteTimeout: time.Minute}, func(r *bubbleServer) {
		inItsAnswer := r.dial(true)
		send(t, inItsAnswer, "1", "1s")
		atItsEnd := r.dial(true)
		send(t, atItsEnd, "1", "100s")
		if _, err := bufio.NewReader(atItsEnd).ReadSlice('\n'); err != nil {
			t.Fatal(err)
		}
		refused := r.dial(true)
		send(t, refused, "1", "no time at all")
		broken := r.dial(true)
		_, _ = io.WriteString(broken, "{\n")
		synctest.Wait()
		r.cancel()
		if at := r.end(); at != 3*time.Second {
			t.Errorf("it ended after %v, want 3s", at)
		}
	})
}

func TestWriteTimeout(t *testing.T) {
	var canceled chan time.Duration
	h := infer.HandlerFunc(func(_ context.Context, _ *infer.Request, emit infer.Sink) error {
		start := time.Now()
		_ = emit(&infer.Text{Delta: []byte("a")})
		if err := emit(&infer.Text{Delta: []byte("b")}); err != nil { // fails, because the event before it has failed
			canceled <- time.Since(start)
		}
		return nil
	})
	inBubble(t, &server.Server{Runner: &exchange.Runner{Handler: h}, WriteTimeout: 10 * time.Second}, func(r *bubbleServer) {
		canceled = make(chan time.Duration, 1) // a channel must belong to the bubble that uses it
		deaf := r.dial(true)
		send(t, deaf, "1", "")
		if at := <-canceled; at < 10*time.Second || at > 10200*time.Millisecond {
			t.Errorf("the context of the handler ended after %v, want 10s or a little more", at)
		}
		if got, err := io.ReadAll(deaf); err != nil || len(got) > 0 {
			t.Errorf("the connection has %q, %v", got, err)
		}
		r.cancel()
		r.end()
	})
}

// A client that reads slowly is not cut off as long as it reads each message in time.
func TestSlowButSteady(t *testing.T) {
	h := infer.HandlerFunc(func(_ context.Context, _ *infer.Request, emit infer.Sink) error {
		for range 5 {
			if err := emit(&infer.Text{Delta: []byte("a")}); err != nil {
				return err
			}
		}
		return emit(&infer.Done{Backend: "x"})
	})
	inBubble(t, &server.Server{Runner: &exchange.Runner{Handler: h}, WriteTimeout: 10 * time.Second}, func(r *bubbleServer) {
		slow := r.dial(true)
		send(t, slow, "1", "")
		s := bufio.NewScanner(slow)
		for i := range 6 {
			time.Sleep(9 * time.Second)
			if !s.Scan() {
				t.Fatalf("message %d: %v", i, s.Err())
			}
		}
		r.cancel()
		r.end()
	})
}

// A message must be whole within a minute of its first byte. Between messages a client may be
// silent for a day.
func TestFrameTimeout(t *testing.T) {
	slow := failed("", "invalid_request", "frame took too long to arrive")
	inBubble(t, &server.Server{Runner: &exchange.Runner{Handler: infer.HandlerFunc(seconds)}}, func(r *bubbleServer) {
		silent, torn, behind, dripping := r.dial(false), r.dial(false), r.dial(false), r.dial(false)
		send(t, silent, "1", "0s")
		_, _ = io.WriteString(torn, `{"id":`)
		_, _ = io.WriteString(behind, `{"id":"1","messages":[{"role":"user","content":"30s"}]}`+"\n{")
		go func() {
			for range 100 {
				if _, err := io.WriteString(dripping, " "); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}()
		time.Sleep(24 * time.Hour)
		for c, want := range map[*client]time.Duration{torn: time.Minute, dripping: time.Minute, behind: 90 * time.Second} {
			<-c.done
			if got := c.times[len(c.times)-1]; got != want || c.lines[len(c.lines)-1] != slow {
				t.Errorf("after %v, want %v: %s", got, want, c.lines)
			}
		}
		send(t, silent, "2", "0s")
		synctest.Wait()
		r.cancel()
		r.end()
		<-silent.done
		silent.want(t, token("1", "a"), done("1"), token("2", "a"), done("2"))
	})
}

// If the handler fails, in any way, the client gets exactly one terminal message, and the
// connection stays open.
func TestOneTerminal(t *testing.T) {
	var log bytes.Buffer
	h := infer.HandlerFunc(func(_ context.Context, req *infer.Request, emit infer.Sink) error {
		text, end := &infer.Text{Delta: []byte("a")}, &infer.Done{Reason: infer.EndOfTurn, Out: 1, Backend: "clock"}
		switch prompt(req) {
		case "nothing":
			return nil
		case "text only":
			return emit(text)
		case "a class":
			return fmt.Errorf("more words: %w", infer.Errorf(infer.Busy, "queue full"))
		case "no class":
			return errors.New("open /home/me/secret: permission denied")
		case "ended for a reason of its own":
			return context.Canceled
		case "panic":
			panic("a bug")
		case "text, then panic":
			_ = emit(text)
			panic("a bug")
		case "done, then panic":
			_ = emit(text)
			_ = emit(end)
			panic("a bug")
		case "done, then an error":
			_ = emit(text)
			_ = emit(end)
			return infer.Errorf(infer.Unavailable, "too late")
		case "done twice, and more":
			_ = emit(text)
			if err := errors.Join(emit(end), emit(end)); err == nil {
				t.Error("the second end was taken")
			}
			if emit(text) == nil {
				t.Error("text after the end was taken")
			}
			return nil
		case "an event without a word":
			return emit(nil)
		}
		return errors.New("what?")
	})
	inBubble(t, &server.Server{Runner: &exchange.Runner{Handler: h, Log: slog.New(slog.NewTextHandler(&log, nil))}}, func(r *bubbleServer) {
		c := r.dial(false)
		var want []string
		for i, test := range []struct {
			prompt string
			want   func(id string) []string
		}{
			{"nothing", func(id string) []string {
				return []string{failed(id, "backend_unavailable", "backend ended stream without terminal frame")}
			}},
			{"text only", func(id string) []string {
				return []string{token(id, "a"), failed(id, "backend_unavailable", "backend ended stream without terminal frame")}
			}},
			{"a class", func(id string) []string { return []string{failed(id, "queue_full", "queue full")} }},
			{"no class", func(id string) []string { return []string{failed(id, "internal", "internal error")} }},
			{"ended for a reason of its own", func(id string) []string { return []string{failed(id, "internal", "internal error")} }},
			{"panic", func(id string) []string { return []string{failed(id, "internal", "internal error")} }},
			{"text, then panic", func(id string) []string {
				return []string{token(id, "a"), failed(id, "internal", "internal error")}
			}},
			{"done, then panic", func(id string) []string { return []string{token(id, "a"), done(id)} }},
			{"done, then an error", func(id string) []string { return []string{token(id, "a"), done(id)} }},
			{"done twice, and more", func(id string) []string { return []string{token(id, "a"), done(id)} }},
			{"an event without a word", func(id string) []string {
				return []string{failed(id, "internal", "v1 cannot encode a <nil>")}
			}},
		} {
			id := fmt.Sprint(i)
			send(t, c, id, test.prompt)
			want = append(want, test.want(id)...)
		}
		synctest.Wait()
		r.cancel()
		r.end()
		<-c.done
		c.want(t, want...)
	})
	if got := strings.Count(log.String(), "handler panicked"); got != 3 || !strings.Contains(log.String(), "server_test.go") {
		t.Errorf("%d panics were logged: %s", got, &log)
	}
	if !strings.Contains(log.String(), "permission denied") {
		t.Errorf("the log lacks the error that was hidden from the client: %s", &log)
	}
}

// When the client hangs up, the context of the request ends with a cause, and no further message is
// written. The watch for the hang-up ends before the connection is read again.
func TestHangUpEndsTheContext(t *testing.T) {
	var watching sync.Mutex // held while AwaitHangUp runs
	var hungUp chan struct{}
	var causes chan error
	srv := &server.Server{
		Runner: &exchange.Runner{Handler: infer.HandlerFunc(func(ctx context.Context, req *infer.Request, emit infer.Sink) error {
			if prompt(req) == "quick" {
				return emit(&infer.Done{Backend: "x"})
			}
			<-ctx.Done()
			causes <- context.Cause(ctx)
			return infer.Errorf(infer.Internal, "never sent")
		})},
		AwaitHangUp: func(ctx context.Context, nc net.Conn) error {
			if !watching.TryLock() {
				t.Error("two watches of one connection at once")
			}
			defer watching.Unlock()
			if _, ok := nc.(frame.Limiter); ok {
				t.Error("AwaitHangUp did not get the accepted connection itself")
			}
			select {
			case <-hungUp:
				return nil
			case <-ctx.Done():
				time.Sleep(time.Second) // a slow watch: the next read must wait for it
				return context.Cause(ctx)
			}
		},
	}
	inBubble(t, srv, func(r *bubbleServer) {
		hungUp, causes = make(chan struct{}), make(chan error, 1) // channels must belong to the bubble that uses them
		c := r.dial(false)
		for range 3 {
			send(t, c, "1", "quick")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if !watching.TryLock() {
			t.Fatal("the connection is watched although no request runs")
		}
		watching.Unlock()
		if len(c.lines) != 3 {
			t.Errorf("got %q", c.lines)
		}
		send(t, c, "2", "long")
		synctest.Wait()
		close(hungUp)
		if err := <-causes; err == nil || err.Error() != "the client hung up" {
			t.Errorf("the cause is %v", err)
		}
		<-c.done
		if len(c.lines) != 3 {
			t.Errorf("then something was written: %q", c.lines)
		}
		r.cancel()
		r.end()
	})
}

// The watch of a client begins once the handler has waited for the end of its context for 20 to 60
// ms. If the handler does not wait, or not for so long, the client is not watched.
func TestWatchBegins(t *testing.T) {
	var watched chan time.Time
	srv := &server.Server{
		Runner: &exchange.Runner{Handler: infer.HandlerFunc(func(ctx context.Context, req *infer.Request, emit infer.Sink) error {
			d, err := time.ParseDuration(strings.TrimPrefix(prompt(req), "deaf "))
			if err != nil {
				return err
			}
			if strings.HasPrefix(prompt(req), "deaf ") {
				time.Sleep(d)
			} else {
				return seconds(ctx, req, emit)
			}
			return emit(&infer.Done{Backend: "x"})
		})},
		AwaitHangUp: func(ctx context.Context, _ net.Conn) error {
			watched <- time.Now()
			<-ctx.Done()
			return context.Cause(ctx)
		},
	}
	inBubble(t, srv, func(r *bubbleServer) {
		watched = make(chan time.Time, 100) // a channel must belong to the bubble that uses it
		c := r.dial(false)
		for _, quick := range []string{"19ms", "deaf 1h", "0s", "19ms"} {
			send(t, c, "1", quick)
			time.Sleep(2 * time.Hour)
			if len(watched) > 0 {
				t.Errorf("%s: the client is watched", quick)
			}
		}
		for i := range 50 { // at different times since the runner's last round of watches
			begin := time.Now()
			send(t, c, "2", "61ms")
			time.Sleep(62 * time.Millisecond)
			synctest.Wait()
			if len(watched) != 1 {
				t.Fatalf("%d watches of a request, want 1", len(watched))
			}
			if at := (<-watched).Sub(begin); at < 20*time.Millisecond || at > 60*time.Millisecond {
				t.Errorf("watched after %v", at)
			}
			time.Sleep(time.Duration(i) * time.Millisecond)
		}
		r.cancel()
		r.end()
	})
}

// A deadlined is a connection that counts the calls of SetReadDeadline.
type deadlined struct {
	net.Conn

	set int
}

func (d *deadlined) SetReadDeadline(t time.Time) error {
	d.set++
	return d.Conn.SetReadDeadline(t)
}

// No read deadline is set for a message that arrives whole. For any other message it is set and
// cleared.
func TestWholeMessagesSetNoDeadline(t *testing.T) {
	inBubble(t, &server.Server{Runner: &exchange.Runner{Handler: infer.HandlerFunc(seconds)}}, func(r *bubbleServer) {
		near, far := net.Pipe()
		defer near.Close()
		d := &deadlined{Conn: far}
		r.ln.give(d)
		lines := bufio.NewReader(near)
		answer := func() {
			for range 2 {
				if _, err := lines.ReadSlice('\n'); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
		}
		for range 3 {
			send(t, near, "1", "0s")
			answer()
		}
		if d.set != 0 {
			t.Errorf("%d read deadlines for whole messages", d.set)
		}
		_, _ = io.WriteString(near, `{"messages":[{"role":`)
		_, _ = io.WriteString(near, `"user","content":"0s"}]}`+"\n")
		answer()
		if d.set != 2 {
			t.Errorf("%d read deadlines for a message in two parts, want 2", d.set)
		}
		r.cancel()
		r.end()
	})
}

// If Accept fails, the server continues, and logs the first of several failures in a row.
func TestAcceptErrorsPass(t *testing.T) {
	var log bytes.Buffer
	srv := &server.Server{Runner: &exchange.Runner{Handler: infer.HandlerFunc(seconds), Log: slog.New(slog.NewTextHandler(&log, nil))}}
	inBubble(t, srv, func(r *bubbleServer) {
		for range 20 {
			r.ln.give(&net.OpError{Op: "accept", Err: syscall.EMFILE})
		}
		c := r.dial(false)
		send(t, c, "1", "0s")
		synctest.Wait()
		c.want(t, token("1", "a"), done("1"))
		if got := strings.Count(log.String(), "\n"); got != 1 || !strings.Contains(log.String(), "too many open files") {
			t.Errorf("logged %d lines: %s", got, &log)
		}
		r.cancel()
		r.end()
	})
}

// If the listener is closed by another caller, the server still ends its requests before it stops.
func TestLostListener(t *testing.T) {
	inBubble(t, &server.Server{Runner: &exchange.Runner{Handler: infer.HandlerFunc(seconds), Grace: time.Minute}}, func(r *bubbleServer) {
		idle, busy := r.dial(false), r.dial(false)
		send(t, busy, "1", "5s")
		synctest.Wait()
		_ = r.ln.Close()
		if err := <-r.served; !errors.Is(err, net.ErrClosed) || time.Since(r.start) != 5*time.Second {
			t.Errorf("Serve: %v after %v", err, time.Since(r.start))
		}
		<-idle.done
		<-busy.done
		busy.want(t, token("1", "a"), done("1"))
	})
}

// Surfaces end together: none is closed while a request of another surface runs.
func TestSurfacesEndTogether(t *testing.T) {
	srv := &server.Server{Runner: &exchange.Runner{Handler: infer.HandlerFunc(seconds), Grace: time.Minute}}
	inBubble(t, srv, func(r *bubbleServer) {
		ctx, cancel := context.WithCancel(r.t.Context())
		other := &bubbleServer{t: r.t, ln: newListener(), cancel: cancel, served: make(chan error, 1), start: r.start}
		go func() { other.served <- srv.Serve(ctx, other.ln, surface) }()
		busy, idle := r.dial(false), other.dial(false)
		send(t, busy, "1", "5s")
		synctest.Wait()
		cancel()
		r.cancel()
		time.Sleep(time.Second)
		send(t, idle, "2", "1s")
		if at := other.end(); at != 5*time.Second {
			t.Errorf("the other surface ended after %v, want 5s", at)
		}
		r.end()
		<-idle.done
		idle.want(t, token("2", "a"), done("2"))

		// A server cannot serve again after its end.
		late := newListener()
		if err := srv.Serve(r.t.Context(), late, surface); err != nil || late.give(nil) {
			t.Errorf("Serve after the end: %v", err)
		}
	})
}

// A surface may refuse a client without a message.
func TestOpenRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		srv := &server.Server{Runner: &exchange.Runner{Log: slog.New(slog.DiscardHandler)}}
		r := &bubbleServer{t: t, ln: newListener(), served: make(chan error, 1), start: time.Now()}
		go func() {
			r.served <- srv.Serve(ctx, r.ln, server.Surface{Name: "closed", Open: func(net.Conn) (server.Codec, error) {
				return nil, errors.New("not you")
			}})
		}()
		c := r.dial(false)
		<-c.done
		c.want(t)
		cancel()
		r.end()
	})
}
