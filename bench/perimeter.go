package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/inferd-go/inferd/internal/activity"
	"github.com/inferd-go/inferd/internal/admit"
	"github.com/inferd-go/inferd/internal/backend/mock"
	"github.com/inferd-go/inferd/internal/exchange"
	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/route"
	"github.com/inferd-go/inferd/internal/server"
	"github.com/inferd-go/inferd/internal/wire"
	v2 "github.com/inferd-go/inferd/internal/wire/v2"
)

// The sockets that are measured.
const (
	v1Leaf = "infer.sock"
	v2Leaf = "infer.v2.sock"
	lpLeaf = "inferd.sock"
)

// questions has a short request of each dialect.
var questions = map[string]string{
	v1Leaf: `{"id":"b","messages":[{"role":"user","content":"hello"}]}` + "\n",
	v2Leaf: `{"id":"b","messages":[{"role":"user","content":[{"type":"text","text":"hello"}]}]}` + "\n",
}

// perimeter measures the daemon's own cost, with a backend that takes no time.
func (b *bench) perimeter() error {
	for _, step := range []struct {
		name string
		run  func() error
	}{
		{"crowd", b.crowd},
		{"token frames", b.tokenFrames},
		{"short requests", b.shortRequests},
		{"idle connections", b.idle},
		{"attachments", b.attachments},
		{"admission", b.admission},
		{"routing", b.routing},
		{"activity log", b.recording},
	} {
		if err := step.run(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// mocked starts a daemon with a mock with those settings.
func (b *bench) mocked(settings string, args ...string) (*daemon, error) {
	f, err := os.CreateTemp(b.bin, "config-*.json")
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(f, `{"backends":[{"kind":"mock","name":"m",%s}]}`, settings); err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	d, err := b.start(append([]string{"--config", f.Name()}, args...)...)
	if err != nil {
		return nil, err
	}
	return d, d.waitReady()
}

// crowd checks that every answer ends exactly once, with fifty clients at once, twenty that hang up
// during an answer, and two hundred that only connect.
func (b *bench) crowd() error {
	d, err := b.mocked(`"tokens":["a","b","c","d"],"token_delay_ms":2`, "--queue-depth", "64")
	if err != nil {
		return err
	}
	defer d.stop()
	begin := time.Now()
	var all sync.WaitGroup
	var dones atomic.Int64
	for range 50 {
		all.Go(func() {
			if text, err := d.exchange(questions[v1Leaf]); err == nil {
				dones.Add(int64(bytes.Count(text, []byte(`"type":"done"`))))
			}
		})
	}
	all.Wait()
	took := time.Since(begin)
	for range 20 {
		nc, err := d.dial(v1Leaf)
		if err != nil {
			return err
		}
		if _, err := io.WriteString(nc, questions[v1Leaf]); err != nil {
			return err
		}
		if _, err := nc.Read(make([]byte, 1)); err != nil {
			return err
		}
		_ = nc.Close()
	}
	for range 200 {
		nc, err := d.dial(v1Leaf)
		if err != nil {
			return err
		}
		_ = nc.Close()
	}
	text, err := d.exchange(questions[v1Leaf])
	if err != nil || bytes.Count(text, []byte(`"type":"done"`)) != 1 {
		return fmt.Errorf("afterwards: %q, %w", text, err)
	}
	b.report("50 clients at once, 20 that leave, 200 that churn", "50 terminals, served after", "%d terminals in %s, served", dones.Load(), took.Round(time.Millisecond))
	return nil
}

// exchange sends a request on a new v1 connection and returns the whole answer.
func (d *daemon) exchange(question string) ([]byte, error) {
	nc, err := d.dial(v1Leaf)
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	if _, err := io.WriteString(nc, question); err != nil {
		return nil, err
	}
	if err := nc.(interface{ CloseWrite() error }).CloseWrite(); err != nil { //nolint:errcheck // a Unix connection can
		return nil, err
	}
	return io.ReadAll(nc)
}

// tokenFrames counts the frames of answers of 20,000 tokens over eight connections.
func (b *bench) tokenFrames() error {
	const tokens, conns = 20_000, 8
	d, err := b.mocked(`"n_slots":8,"tokens":[` + strings.TrimSuffix(strings.Repeat(`" token",`, tokens), ",") + `]`)
	if err != nil {
		return err
	}
	defer d.stop()
	for _, leaf := range []string{v1Leaf, v2Leaf} {
		var best float64
		for range 3 {
			var frames atomic.Int64
			var all sync.WaitGroup
			var failed atomic.Pointer[error]
			begin := time.Now()
			for range conns {
				all.Go(func() {
					n, err := d.countLines(leaf, 5)
					frames.Add(n)
					if err != nil {
						failed.Store(&err)
					}
				})
			}
			all.Wait()
			if err := failed.Load(); err != nil {
				return *err
			}
			best = max(best, float64(frames.Load())/time.Since(begin).Seconds())
		}
		b.report("token frames a second, 8 connections, "+leaf, ">= 300,000", "%.0f (best of 3)", best)
	}
	return nil
}

// countLines sends a question n times and counts the lines of the answers.
func (d *daemon) countLines(leaf string, n int) (int64, error) {
	nc, err := d.dial(leaf)
	if err != nil {
		return 0, err
	}
	defer nc.Close()
	var lines int64
	buf := make([]byte, 256<<10)
	for range n {
		if _, err := io.WriteString(nc, questions[leaf]); err != nil {
			return lines, err
		}
		var tail []byte
		for done := false; !done; {
			n, err := nc.Read(buf)
			if err != nil {
				return lines, err
			}
			lines += int64(bytes.Count(buf[:n], []byte{'\n'}))
			tail = append(tail[max(0, len(tail)-300):], buf[max(0, n-300):n]...)
			at := bytes.LastIndex(tail, []byte(`"usage":{`))
			done = at >= 0 && tail[len(tail)-1] == '\n'
		}
	}
	return lines, nil
}

// shortRequests measures the rate of requests of one token, and their latency at a thousand
// requests a second that do not wait for each other's answers.
func (b *bench) shortRequests() error {
	d, err := b.mocked(`"n_slots":16`, "--queue-depth", "64")
	if err != nil {
		return err
	}
	defer d.stop()
	const conns, each = 16, 3000
	var best float64
	for range 3 {
		var all sync.WaitGroup
		errs := make([]error, conns)
		begin := time.Now()
		for i := range conns {
			all.Go(func() {
				errs[i] = d.askMany(each)
			})
		}
		all.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
		best = max(best, float64(conns*each)/time.Since(begin).Seconds())
	}
	b.report("requests of one token a second, 16 connections", ">= 20,000", "%.0f (best of 3)", best)

	took, err := openLoop(func() (net.Conn, error) { return d.dial(v1Leaf) }, 1000, 5*time.Second)
	if err != nil {
		return err
	}
	b.report("  one of them, at 1,000 a second", "p99 <= 1 ms", "p50 %s, p99 %s", median(took), percentile(took, 99))
	p, err := newEcho()
	if err != nil {
		return err
	}
	defer p.stop()
	if took, err = openLoop(func() (net.Conn, error) { return p.dial(v1Leaf) }, 1000, 5*time.Second); err != nil {
		return err
	}
	b.report("  the same from a process that does nothing else", "what this machine takes now", "p50 %s, p99 %s", median(took), percentile(took, 99))
	return nil
}

// echoFlag makes this program an echo server at the socket that follows. It sends the same answer
// to every request: the cost of a request without a daemon.
const echoFlag = "--echo"

func newEcho() (*daemon, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "p")
	if err != nil {
		return nil, err
	}
	p := &daemon{cmd: exec.Command(self, echoFlag, filepath.Join(dir, v1Leaf)), dir: dir}
	if err := p.cmd.Start(); err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	return p, nil
}

// echoMain is the main function of the echo server. It returns only with an error.
func echoMain(path string) error {
	ln, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	for {
		nc, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer nc.Close()
			var err error
			for r := bufio.NewReader(nc); err == nil; {
				if _, err = r.ReadSlice('\n'); err == nil {
					_, err = io.WriteString(nc, `{"type":"token"}`+"\n")
				}
				if err == nil {
					_, err = io.WriteString(nc, `{"type":"done"}`+"\n")
				}
			}
		}()
	}
}

// askMany sends n requests on one connection, one after the other.
func (d *daemon) askMany(n int) error {
	nc, err := d.dial(v1Leaf)
	if err != nil {
		return err
	}
	defer nc.Close()
	r := bufio.NewReader(nc)
	for range n {
		if err := askShort(nc, r); err != nil {
			return err
		}
	}
	return nil
}

func askShort(nc net.Conn, r *bufio.Reader) error {
	if _, err := io.WriteString(nc, questions[v1Leaf]); err != nil {
		return err
	}
	for {
		line, err := r.ReadSlice('\n')
		switch {
		case err != nil:
			return err
		case bytes.HasPrefix(line, []byte(`{"type":"done"`)):
			return nil
		case bytes.HasPrefix(line, []byte(`{"type":"error"`)):
			return fmt.Errorf("it said %s", line)
		}
	}
}

// openLoop sends requests at a fixed rate for a while, and measures each from the time at which it
// was due, so that a slow answer neither delays nor hides others.
func openLoop(dial func() (net.Conn, error), rate int, length time.Duration) ([]time.Duration, error) {
	const conns = 32
	due := make(chan time.Time, rate)
	var (
		all    sync.WaitGroup
		mu     sync.Mutex
		took   []time.Duration
		failed error
	)
	for range conns {
		nc, err := dial()
		if err != nil {
			return nil, err
		}
		all.Go(func() {
			defer nc.Close()
			r := bufio.NewReader(nc)
			for at := range due {
				err := askShort(nc, r)
				mu.Lock()
				took = append(took, time.Since(at))
				failed = errors.Join(failed, err)
				mu.Unlock()
			}
		})
	}
	begin := time.Now()
	step := time.Second / time.Duration(rate)
	for at := begin; at.Before(begin.Add(length)); at = at.Add(step) {
		time.Sleep(time.Until(at))
		due <- time.Now() // a late timer is not the daemon's fault
	}
	close(due)
	all.Wait()
	return took, failed
}

// idle measures the memory of a connection that is idle after one request.
func (b *bench) idle() error {
	d, err := b.mocked(`"n_slots":4`)
	if err != nil {
		return err
	}
	defer d.stop()
	if err := d.askMany(100); err != nil {
		return err
	}
	const conns = 1000
	before, err := d.memory()
	if err != nil {
		return err
	}
	var open []net.Conn
	defer func() { closeAll(open) }()
	for range conns {
		nc, err := d.dial(v1Leaf)
		if err != nil {
			return err
		}
		open = append(open, nc)
		if err := askShort(nc, bufio.NewReader(nc)); err != nil {
			return err
		}
	}
	after, err := d.memory()
	if err != nil {
		return err
	}
	b.report("memory of an idle connection, of 1,000", "<= 16 KiB", "%.1f KiB", float64(after-before)/conns/1024)
	return nil
}

func closeAll(conns []net.Conn) {
	for _, nc := range conns {
		_ = nc.Close()
	}
}

// attachments measures the daemon's peak memory during a large attachment.
func (b *bench) attachments() error {
	const mib = 1 << 20
	for _, test := range []struct {
		leaf  string
		size  int
		reach float64
	}{{lpLeaf, 48 * mib, 1.1}, {v2Leaf, 40 * mib, 2.5}} {
		d, err := b.mocked(`"n_slots":4`)
		if err != nil {
			return err
		}
		before, err := d.memory()
		if err == nil {
			err = d.attach(test.leaf, test.size)
		}
		peak, err2 := d.peak()
		d.stop()
		if err := errors.Join(err, err2); err != nil {
			return err
		}
		b.report(fmt.Sprintf("memory for an attachment of %d MiB, %s", test.size/mib, test.leaf), fmt.Sprintf("<= %.1f of its size", test.reach),
			"%.2f", float64(peak-before)/float64(test.size))
	}
	return nil
}

// attach sends an image of size bytes and reads the answer.
func (d *daemon) attach(leaf string, size int) error {
	nc, err := d.dial(leaf)
	if err != nil {
		return err
	}
	defer nc.Close()
	image := fmt.Sprintf(`"kind":"image","id":"i","width":%d,"height":1`, size/3)
	const ask = `{"id":"a","wire_version":1,"messages":[{"role":"user","content":[{"type":"image","attachment_id":"i"}]}],"attachments":[{%s}]}`
	data := make([]byte, size)
	w := bufio.NewWriter(nc)
	if leaf == lpLeaf {
		send := func(kind frame.Kind, msg []byte) {
			_, _ = w.Write(frame.AppendHead(nil, kind, len(msg)))
			_, _ = w.Write(msg)
		}
		send(frame.JSON, fmt.Appendf(nil, ask, image))
		send(frame.JSON, fmt.Appendf(nil, `{"type":"attachment_blob","attachment_id":"i","len":%d}`, size))
		send(frame.Blob, data)
	} else {
		head, tail, _ := strings.Cut(fmt.Sprintf(ask, image+`,"bytes":"@"`), "@")
		_, _ = w.WriteString(head)
		enc := base64.NewEncoder(base64.StdEncoding, w)
		_, _ = enc.Write(data)
		_ = enc.Close()
		_, _ = w.WriteString(tail + "\n")
	}
	if err := w.Flush(); err != nil {
		return err
	}
	got := make([]byte, 0, 4096)
	for !bytes.Contains(got, []byte(`"type":"done"`)) {
		n, err := nc.Read(got[len(got):cap(got)])
		if err != nil {
			return fmt.Errorf("%w after %q", err, got)
		}
		got = got[:len(got)+n]
	}
	return nil
}

// admission measures the TTFT of a backend that takes no time, with and without the gate, in turns.
func (b *bench) admission() error {
	gate := &admit.Gate{Depth: 10, Total: 256, Choose: func(*infer.Request) (admit.Place, error) {
		return admit.Place{Name: "m", Slots: 4, Handler: new(mock.Backend)}, nil
	}}
	var conns []net.Conn
	defer func() { closeAll(conns) }()
	ctx, stop := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	defer serving.Wait()
	defer stop()
	for i, h := range []infer.Handler{new(mock.Backend), gate} {
		path := filepath.Join(b.bin, fmt.Sprintf("gate%d", i))
		ln, err := net.Listen("unix", path)
		if err != nil {
			return err
		}
		srv := &server.Server{Runner: &exchange.Runner{Handler: h, Log: slog.New(slog.DiscardHandler)}, WriteTimeout: time.Minute}
		serving.Go(func() {
			_ = srv.Serve(ctx, ln, server.Surface{Name: "lp", Open: func(nc net.Conn) (server.Codec, error) {
				return &v2.Codec{R: frame.Prefixed.NewReader(nc, frame.Limit), W: frame.Prefixed.NewWriter(nc), Blobs: true}, nil
			}})
		})
		nc, err := net.Dial("unix", path)
		if err != nil {
			return err
		}
		conns = append(conns, nc)
	}
	ask := []byte(`{"id":"b","wire_version":1,"messages":[{"role":"user","content":[{"type":"text","text":"hello"}]}]}`)
	ask = append(frame.AppendHead(nil, frame.JSON, len(ask)), ask...)
	var took [2][]time.Duration
	for range 20_000 {
		for i, nc := range conns {
			first, err := firstToken(nc, ask)
			if err != nil {
				return err
			}
			took[i] = append(took[i], first)
		}
	}
	b.report("first token: what admission adds", "p99 <= 50 µs", "p50 %s, p99 %s",
		median(took[1])-median(took[0]), percentile(took[1], 99)-percentile(took[0], 99))
	b.report("  without it", "", "p50 %s, p99 %s", median(took[0]), percentile(took[0], 99))
	return nil
}

// firstToken sends a request, reads the whole answer, and returns the time of its first message.
func firstToken(nc net.Conn, ask []byte) (time.Duration, error) {
	begin := time.Now()
	if _, err := nc.Write(ask); err != nil {
		return 0, err
	}
	var first time.Duration
	r := bufio.NewReader(nc)
	for {
		n, err := binary.ReadUvarint(r)
		if err != nil {
			return 0, err
		}
		msg := make([]byte, n+1)
		if _, err := io.ReadFull(r, msg); err != nil {
			return 0, err
		}
		if first == 0 {
			first = time.Since(begin)
		}
		if bytes.Contains(msg, []byte(`"type":"done"`)) {
			return first, nil
		}
	}
}

// routing measures the choice among eight entries, of which only the last is able, and the update of
// its breaker.
func (b *bench) routing() error {
	r := new(route.Router)
	const entries = 8
	for i := range entries {
		r.Targets = append(r.Targets, &route.Target{
			Name:   fmt.Sprint(i),
			Can:    func() (infer.Abilities, bool) { return infer.Abilities{Generate: i == entries-1}, true },
			State:  func() route.State { return route.Ready },
			Faults: []infer.Code{infer.Internal},
		})
	}
	req := &infer.Request{Task: &infer.Generate{}}
	took := make([]time.Duration, 100_000)
	for i := range took {
		begin := time.Now()
		t, err := r.Choose(req)
		if err != nil {
			return err
		}
		r.Begin(t)(nil)
		took[i] = time.Since(begin)
	}
	b.report("routing among 8 entries, with the breaker", "p99 <= 10 µs", "p50 %s, p99 %s", median(took), percentile(took, 99))
	return nil
}

// recording measures the cost of a request's line in the activity log, with and without a suspected
// secret: the time that the request waits, and the CPU time in total, most of which the writing
// goroutine uses.
func (b *bench) recording() error {
	dir, err := os.MkdirTemp("", "if")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	record, err := activity.Open(dir)
	if err != nil {
		return err
	}
	defer record.Close()
	for _, step := range []struct{ what, reach, id string }{
		{"no rule can match", "<= 5 µs", "5f2b8a"},
		{"a secret in it", "<= 25 µs", "5f2b8a token=swordfish"},
	} {
		const rounds, burst = 25, 2000 // less than the log's buffer
		took := make([]time.Duration, 0, rounds*burst)
		before, err := cpuTime()
		if err != nil {
			return err
		}
		for range rounds {
			for range burst {
				begin := time.Now()
				record.Request(&exchange.Record{
					Peer: infer.Peer{User: "1000", PID: 4242, Exe: "/usr/bin/python3.11"}, Dialect: wire.V1, Outcome: exchange.Done,
					ID: step.id, Task: exchange.Generate, Started: true, Timings: infer.Timings{Prefill: 5 * time.Millisecond, Decode: 7 * time.Millisecond},
					Admitted: true, Admission: infer.Admitted{Entry: "gen", Backend: "llamacpp", Model: "SmolLM2 135M Instruct"},
					Answered: true, Usage: infer.Done{Reason: infer.EndOfTurn, In: 12, Out: 34},
				})
				took = append(took, time.Since(begin))
			}
			record.Flush()
		}
		after, err := cpuTime()
		if err != nil {
			return err
		}
		b.report("activity log, a request waits, "+step.what, step.reach, "p50 %s, p99 %s", median(took), percentile(took, 99))
		b.report("  processor time in all", step.reach, "%s", (after-before)/(rounds*burst))
	}
	if n := record.Lost(); n > 0 {
		return fmt.Errorf("%d lines are lost", n)
	}
	return nil
}

// cpuTime returns the CPU time of this process.
func cpuTime() (time.Duration, error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}
