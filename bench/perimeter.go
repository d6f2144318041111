package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The names of the measured sockets.
const (
	v1Leaf = "infer.sock"
	v2Leaf = "infer.v2.sock"
	lpLeaf = "inferd.sock"
)

// questions has a short request for each socket with lines of JSON.
var questions = map[string]string{
	v1Leaf: `{"id":"b","messages":[{"role":"user","content":"hello"}]}` + "\n",
	v2Leaf: `{"id":"b","messages":[{"role":"user","content":[{"type":"text","text":"hello"}]}]}` + "\n",
}

// perimeter measures the cost of the daemon alone, with a backend that takes no time.
func (b *bench) perimeter() error {
	for _, step := range []struct {
		name string
		run  func() error
	}{
		{"crowd", b.crowd},
		{"token frames", b.tokenFrames},
		{"short requests", b.shortRequests},
		{"requests over HTTP", b.overHTTP},
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

// mocked starts a daemon with a mock, and waits until it is ready. settings are members of the mock's
// entry, args are further flags.
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

// crowd counts the terminals of the answers to fifty clients at once. It then checks that the daemon
// still answers after twenty clients have hung up during an answer and two hundred have only
// connected.
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

// exchange sends a request on a new v1 connection, and returns the whole answer.
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

// tokenFrames measures the rate of token frames, in answers of 20,000 tokens on eight connections.
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

// countLines sends a request n times, and counts the lines of the answers.
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
