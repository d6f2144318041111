package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

// shortRequests measures the rate of requests for one token, and their latency at a fixed rate of
// a thousand requests a second.
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
	p, err := newEcho(echoFlag, v1Leaf)
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
// to every request, which shows what a request costs without a daemon.
const echoFlag = "--echo"

func newEcho(flag, leaf string) (*daemon, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "p")
	if err != nil {
		return nil, err
	}
	p := &daemon{cmd: exec.Command(self, flag, filepath.Join(dir, leaf)), dir: dir}
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

func askShort(nc net.Conn, r *bufio.Reader) error { return askLines(nc, r, v1Leaf) }

// askLines sends the short request for a socket of lines, and reads the answer.
func askLines(nc net.Conn, r *bufio.Reader, leaf string) error {
	if _, err := io.WriteString(nc, questions[leaf]); err != nil {
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
			return fmt.Errorf("the daemon answered %s", line)
		}
	}
}

// openLoop sends requests at a fixed rate for the given time. It measures each from the time at
// which it was due, so that a slow answer neither delays nor hides others.
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
		due <- time.Now() // a late timer does not count against the daemon
	}
	close(due)
	all.Wait()
	return took, failed
}
