package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/inferd-go/inferd/client"
	"github.com/inferd-go/inferd/internal/sockdiag"
)

const httpLeaf = "http.sock"

// chatOf returns a chat request over HTTP. more is a list of further members, each after a comma.
func chatOf(more string) string {
	body := `{"model":"m","messages":[{"role":"user","content":"hello"}]` + more + `}`
	return "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: " +
		strconv.Itoa(len(body)) + "\r\n\r\n" + body
}

// onlyHTTP measures only the bridge.
func (b *bench) onlyHTTP() error {
	if err := b.overHTTP(); err != nil {
		return err
	}
	model, err := bigModel()
	if err != nil {
		return fmt.Errorf("big model: %w", err)
	}
	return b.chatRates(model)
}

// overHTTP measures requests over the v2 socket and over the bridge, with a backend that takes no
// time. It also measures the limit that net/http sets: a handler that answers at once, in a process
// of its own.
func (b *bench) overHTTP() error {
	d, err := b.mocked(`"n_slots":16`, "--queue-depth", "64")
	if err != nil {
		return err
	}
	defer d.stop()
	bare, err := newEcho(echoHTTPFlag, httpLeaf)
	if err != nil {
		return err
	}
	defer bare.stop()
	const conns, each, rounds = 8, 1500, 9
	sides := []struct {
		daemon *daemon
		leaf   string
		ask    func(net.Conn, *bufio.Reader) error
		rate   []float64
		cpu    []time.Duration // CPU time of the daemon for a request
	}{{daemon: d, leaf: v2Leaf, ask: askV2}, {daemon: d, leaf: httpLeaf, ask: askHTTP}, {daemon: bare, leaf: httpLeaf, ask: askHTTP}}
	for round := range rounds { // in turns, because the speed of the machine changes
		for i := range sides {
			s := &sides[(i+round)%len(sides)]
			before, err := s.daemon.usage()
			if err != nil {
				return err
			}
			begin := time.Now()
			if err := s.daemon.together(s.leaf, conns, each, s.ask); err != nil {
				return fmt.Errorf("%s: %w", s.leaf, err)
			}
			s.rate = append(s.rate, conns*each/time.Since(begin).Seconds())
			after, err := s.daemon.usage()
			if err != nil {
				return err
			}
			s.cpu = append(s.cpu, (after.cpu-before.cpu)/(conns*each))
		}
	}
	ours, bares := ratios(sides[1].rate, sides[0].rate), ratios(sides[2].rate, sides[0].rate)
	b.report("short requests a second over HTTP, 8 connections", "", "%.0f (best of %d)", slices.Max(sides[1].rate), rounds)
	b.report("  of those over v2 lines in the same turns", ">= 0.7", "%.2f (median; best %.2f)", median(ours), slices.Max(ours))
	b.report("  a handler of net/http that does nothing, of v2 lines", "what net/http leaves", "%.2f (median; best %.2f)", median(bares), slices.Max(bares))
	b.report("  processor time of one in the daemon", "", "%s; over v2 lines %s; net/http alone %s", median(sides[1].cpu), median(sides[0].cpu), median(sides[2].cpu))
	if err := b.tokenCost(); err != nil {
		return err
	}
	if err := b.freed(); err != nil {
		return err
	}
	return b.identified()
}

// echoHTTPFlag makes this program an HTTP server at the socket that follows. It reads each request
// and sends the same answer.
const echoHTTPFlag = "--echo-http"

// echoHTTP is the main function of the HTTP server. It returns only with an error.
func echoHTTP(path string) error {
	ln, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	answer := []byte(`{"id":"chatcmpl-0","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"mock-response"},"finish_reason":"stop"}]}`)
	length := []string{strconv.Itoa(len(answer))}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		h := w.Header()
		h["Content-Type"], h["Content-Length"] = []string{"application/json"}, length
		_, _ = w.Write(answer)
	})
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	return server.Serve(ln)
}

// together opens n connections at once. On every connection it makes each calls of ask, one after
// the other.
func (d *daemon) together(leaf string, n, each int, ask func(net.Conn, *bufio.Reader) error) error {
	errs := make(chan error, n)
	for range n {
		go func() {
			nc, err := d.dial(leaf)
			if err != nil {
				errs <- err
				return
			}
			defer nc.Close()
			r := bufio.NewReader(nc)
			for i := 0; i < each && err == nil; i++ {
				err = ask(nc, r)
			}
			errs <- err
		}()
	}
	var all error
	for range n {
		all = errors.Join(all, <-errs)
	}
	return all
}

func askV2(nc net.Conn, r *bufio.Reader) error { return askLines(nc, r, v2Leaf) }

var shortChat = chatOf("")

// askHTTP sends a request, and parses only the length of the answer, because the CPU time of the
// client affects the rate.
func askHTTP(nc net.Conn, r *bufio.Reader) error {
	if _, err := io.WriteString(nc, shortChat); err != nil {
		return err
	}
	for {
		if _, err := r.Peek(r.Buffered() + 1); err != nil {
			return err
		}
		answer, err := r.Peek(r.Buffered())
		if err != nil {
			return err
		}
		head, _, whole := bytes.Cut(answer, []byte("\r\n\r\n"))
		if !whole {
			continue
		}
		_, rest, ok := bytes.Cut(head, []byte("Content-Length: "))
		if !ok || !bytes.HasPrefix(head, []byte("HTTP/1.1 200")) {
			return fmt.Errorf("the daemon answered %s", head)
		}
		digits, _, _ := bytes.Cut(rest, []byte("\r"))
		length, err := strconv.Atoi(string(digits))
		if err != nil {
			return err
		}
		_, err = r.Discard(len(head) + 4 + length)
		return err
	}
}

// freed measures the time from the hang-up of a client until its slot is free.
func (b *bench) freed() error {
	d, err := b.mocked(`"n_slots":1,"tokens":["a"],"token_delay_ms":1000000`)
	if err != nil {
		return err
	}
	defer d.stop()
	c := &client.Client{Dir: d.dir}
	running := func(want int) error {
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(200 * time.Microsecond) {
			s, err := c.Stats(context.Background())
			switch {
			case err != nil:
				return err
			case s.Running == want:
				return nil
			case time.Now().After(deadline):
				return fmt.Errorf("%d requests run, not %d", s.Running, want)
			}
		}
	}
	for _, more := range []string{"", `,"stream":true`} {
		var took []time.Duration
		for range 20 {
			nc, err := d.dial(httpLeaf)
			if err != nil {
				return err
			}
			if _, err := io.WriteString(nc, chatOf(more)); err != nil {
				return err
			}
			if err := running(1); err != nil {
				return err
			}
			begin := time.Now()
			_ = nc.Close()
			if err := running(0); err != nil {
				return err
			}
			took = append(took, time.Since(begin))
		}
		name := "  hang-up → slot free, in one piece"
		if more != "" {
			name = "  hang-up → slot free, stream"
		}
		b.report(name, "<= 100 ms", "p50 %s, p99 %s", median(took), percentile(took, 99))
	}
	return nil
}

// identified measures how long it takes to ask the kernel for the user of a new TCP connection.
func (b *bench) identified() error {
	users, err := sockdiag.Open()
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	} else if err != nil {
		return err
	}
	defer users.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer ln.Close()
	var took []time.Duration
	for range 2000 {
		ours, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			return err
		}
		theirs, err := ln.Accept()
		if err != nil {
			return err
		}
		begin := time.Now()
		tcp, ok := theirs.(*net.TCPConn)
		if !ok {
			return fmt.Errorf("a connection is a %T", theirs)
		}
		_, err = users.UserOf(tcp)
		took = append(took, time.Since(begin))
		_, _ = ours.Close(), theirs.Close()
		if err != nil {
			return err
		}
	}
	b.report("  the user of a new connection over TCP", "p99 <= 50 µs", "p50 %s, p99 %s", median(took), percentile(took, 99))
	return nil
}
