package bridge_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/bridge"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/quota"
)

// gated is a handler that answers one request for each value of the channel. Meanwhile it also
// waits for the end of its context, so that the client is watched.
type gated chan struct{}

func (g gated) Handle(ctx context.Context, _ *infer.Request, emit infer.Sink) error {
	select {
	case <-g:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := emit(&infer.Text{Delta: []byte("a")}); err != nil {
		return err
	}
	return emit(&infer.Done{Reason: infer.EndOfTurn})
}

// watchTime is longer than the time after which the client of a waiting request is watched.
const watchTime = 150 * time.Millisecond

// Requests that a client sends ahead are answered in order, whether net/http reads their bytes with
// the first request, or the watch of the client reads them.
func TestPipelined(t *testing.T) {
	one := request("POST", chatPath, hi(""))
	chunked := request("POST", chatPath, fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(hi("")), hi("")), "Transfer-Encoding: chunked")
	long := request("POST", chatPath, hi(`,"user":"`+strings.Repeat("x", 2000)+`"`)) // more bytes than are read ahead
	for name, pieces := range map[string][]string{
		"at once":               {one + one + one},
		"behind":                {one, one + one},
		"a part at once":        {one + one[:30], one[30:] + one},
		"cut in the header":     {one, one[:30], one[30:], one},
		"long":                  {one, long, long},
		"chunks":                {chunked, chunked, one},
		"chunks at once":        {chunked + chunked + one},
		"other methods between": {one, request("GET", "/health", "") + one, one},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			handler := make(gated)
			h := open(t, handler, nil)
			nc := h.dial()
			defer nc.Close()
			for _, piece := range pieces {
				if _, err := io.WriteString(nc, piece); err != nil {
					t.Fatal(err)
				}
				time.Sleep(watchTime) // the client is watched after that
			}
			r := bufio.NewReader(nc)
			for i := range 3 {
				handler <- struct{}{}
				got := receive(t, r)
				if got.body == `{"status":"ok"}` {
					got = receive(t, r)
				}
				if got.status != 200 || !strings.Contains(got.body, `"content":"a"`) {
					t.Errorf("answer %d: %+v", i, got)
				}
			}
			if err := nc.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil {
				t.Errorf("then %q, %v", rest, err)
			}
		})
	}
}

// The hang-up of a client is noticed while its request is being answered, at any time: for each
// framing of the body, with and without further bytes, and also in later requests of a connection.
func TestHangUps(t *testing.T) {
	body := hi(`,"stream":true`)
	known := request("POST", chatPath, body)
	chunked := request("POST", chatPath, fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body), "Transfer-Encoding: chunked")
	for name, req := range map[string]string{"a length": known, "chunks": chunked} {
		for _, before := range []int{0, 2} { // number of earlier requests on the connection
			for _, stray := range []string{"", "\n", strings.Repeat("x", 2000)} {
				for _, after := range []time.Duration{0, watchTime} {
					t.Run(fmt.Sprintf("%s, %d before, %d bytes, %s", name, before, len(stray), after), func(t *testing.T) {
						t.Parallel()
						began, ended := make(chan struct{}, 10), make(chan struct{}, 10)
						n := 0
						h := open(t, infer.HandlerFunc(func(ctx context.Context, _ *infer.Request, emit infer.Sink) error {
							if n++; n <= before {
								return emit(&infer.Done{Reason: infer.EndOfTurn})
							}
							began <- struct{}{}
							<-ctx.Done()
							ended <- struct{}{}
							return context.Cause(ctx)
						}), nil)
						nc := h.dial()
						defer nc.Close()
						r := bufio.NewReader(nc)
						for range before {
							if _, err := io.WriteString(nc, req); err != nil {
								t.Fatal(err)
							}
							receive(t, r)
						}
						if _, err := io.WriteString(nc, req+stray); err != nil {
							t.Fatal(err)
						}
						wait(t, began, "it begins")
						time.Sleep(after)
						_ = nc.Close()
						wait(t, ended, "it ends")
					})
				}
			}
		}
	}
}

// A hang-up is also noticed while the request waits for a model or for memory. The connection and
// the memory of the request are then free long before the time limit.
func TestHangUpsBeforeTheAnswer(t *testing.T) {
	large := `{"model":"gen","messages":[{"role":"user","content":"` + strings.Repeat("x", 1<<20) + `"}]}`
	for name, test := range map[string]struct {
		body   string
		closed bool // the bridge is not open
	}{
		"the models are loading":  {hi(""), true},
		"there is no more memory": {large, false},
	} {
		t.Run(name, func(t *testing.T) {
			memory := &quota.Quota{PerCaller: 64 << 20, Total: 64 << 20}
			conns := &quota.Quota{PerCaller: 10, Total: 10}
			h := build(t, words("a"), func(b *bridge.Bridge) { b.Memory, b.Conns, b.ReadyTimeout = memory, conns, time.Hour })
			if !test.closed {
				h.bridge.Open(entries)
			}
			h.serve()
			other := infer.Caller{User: "other"}
			if !test.closed {
				// There is memory for the body, but not for its decoded form.
				if taken := int64(64<<20 - 2<<20); !memory.TryAcquire(other, taken/2) || !memory.TryAcquire(infer.Caller{User: "another"}, taken/2) {
					t.Fatal("no memory to take")
				}
			}
			before := memory.Taken()
			nc := h.dial()
			if _, err := io.WriteString(nc, request("POST", chatPath, test.body)); err != nil {
				t.Fatal(err)
			}
			if !test.closed {
				until(t, "it waits for memory", func() bool { return memory.Taken() > before })
			}
			time.Sleep(watchTime)
			_ = nc.Close()
			until(t, "all resources are free", func() bool { return conns.Taken() == 0 && memory.Taken() == before })
			if n := len(h.kept.records()); n != 0 {
				t.Errorf("%d records of requests that never were", n)
			}
		})
	}
}

// until waits for a condition. It fails the test after waitLimit.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(waitLimit); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out: %s", what)
		}
	}
}

// The time limits of a connection are the same for its first request and for later ones: 10 s for a
// header, 60 s for a body, and 2 minutes between two requests.
func TestTimesOfLaterRequests(t *testing.T) {
	const head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
	bubble(t, words("a"), func(_ *testBridge, dial func() net.Conn) {
		for name, test := range map[string]struct {
			text string
			left time.Duration
		}{
			"nothing":       {"", 2 * time.Minute},
			"a slow header": {head, 10 * time.Second},
			"a slow body":   {head + "Content-Length: 100\r\n\r\n{", time.Minute},
		} {
			nc := dial()
			for i, pause := range []time.Duration{time.Second, 119 * time.Second, 5 * time.Second, 70 * time.Second, 11 * time.Second} {
				time.Sleep(pause)
				if got := send(t, nc, request("POST", chatPath, hi(""))); got.status != 200 {
					t.Fatalf("%s, request %d: %+v", name, i, got)
				}
			}
			begin := time.Now()
			if _, err := io.WriteString(nc, test.text); err != nil {
				t.Fatal(err)
			}
			all, err := io.ReadAll(nc)
			if took := time.Since(begin); err != nil || took != test.left || strings.Contains(string(all), "200 OK") {
				t.Errorf("%s: %q after %s, %v", name, all, took, err)
			}
		}
	})
}

// A client that does not read its answer is cut off after the time limit of a write, which is a
// minute. It may take 1/64 longer, because not every write sets a new deadline.
func TestSlowReader(t *testing.T) {
	chatter := infer.HandlerFunc(func(_ context.Context, _ *infer.Request, emit infer.Sink) error {
		for {
			if err := emit(&infer.Text{Delta: []byte("a")}); err != nil {
				return err
			}
		}
	})
	bubble(t, chatter, func(h *testBridge, dial func() net.Conn) {
		nc := dial()
		if _, err := io.WriteString(nc, request("POST", chatPath, hi(`,"stream":true`))); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(nc)
		for range 100 {
			if _, err := r.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
		begin := time.Now()
		for len(h.kept.records()) == 0 {
			time.Sleep(10 * time.Millisecond)
			if time.Since(begin) > time.Hour {
				t.Fatal("it does not end")
			}
		}
		if took := time.Since(begin); took < time.Minute || took > 62*time.Second {
			t.Errorf("it ends after %s", took)
		}
	})
}

// After failed requests of any kind, no goroutine is left, and no memory or connection is still
// counted.
func TestNothingIsLeft(t *testing.T) {
	memory := &quota.Quota{PerCaller: 64 << 20, Total: 64 << 20}
	conns := &quota.Quota{PerCaller: 100, Total: 100}
	h := open(t, newHold(true), func(b *bridge.Bridge) { b.Memory, b.Conns = memory, conns })
	body := hi(`,"stream":true`)
	large := `{"model":"gen","messages":[{"role":"user","content":"` + strings.Repeat("x", 1<<20) + `"}],"n":2}`
	leave := func(text string) {
		nc := h.dial()
		_, _ = io.WriteString(nc, text)
		_ = nc.Close()
	}
	round := func() {
		for _, text := range []string{
			request("POST", chatPath, hi(`,"n":2`)), request("POST", chatPath, large), request("POST", chatPath, body, "Content-Encoding: gzip"),
			request("POST", chatPath, "zz\r\n", "Transfer-Encoding: chunked"), request("PUT", chatPath, body), request("POST", "/x", body),
			request("POST", chatPath, body, "Host: evil.example"), request("POST", chatPath, strings.Repeat("[", 1000)),
		} {
			if got := h.once(text); got.status < 400 || got.status > 499 {
				t.Errorf("got %+v", got)
			}
		}
		whole := request("POST", chatPath, body)
		for n := 1; n < len(whole); n += len(whole) / 10 {
			leave(whole[:n])
		}
		leave(whole)
		leave(whole + "x")
		leave(request("POST", chatPath, large))
	}
	round() // fills pools, and starts goroutines that stay
	rest := func() int {
		until(t, "all resources are free", func() bool { return conns.Taken() == 0 && memory.Taken() == 0 })
		return runtime.NumGoroutine()
	}
	before := rest()
	for range 10 {
		round()
	}
	until(t, "no goroutine is left", func() bool { return rest() <= before+3 })
}
