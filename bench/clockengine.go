package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/link"
	"github.com/inferd-go/inferd/internal/proc"
)

// pace is the time between two tokens of the clock engine.
const pace = time.Millisecond

// clockEngine is an engine without a model. Each of its tokens is the time at which it was written,
// so that the reader can compute the latency through the link, the daemon and the client's socket.
func clockEngine(conn net.Conn) error {
	srv := &link.Server{Conn: conn, Handler: infer.HandlerFunc(clockTokens)}
	if err := srv.Report(link.Report{State: link.Ready, NCtx: 1 << 20, Slots: 4, Model: "clock", Device: "cpu", Abilities: infer.Abilities{Generate: true}}); err != nil {
		return err
	}
	return srv.Serve(context.Background())
}

func clockTokens(ctx context.Context, req *infer.Request, emit infer.Sink) error {
	gen, ok := req.Task.(*infer.Generate)
	if !ok {
		return infer.Errorf(infer.Internal, "no such task")
	}
	tick := time.NewTicker(pace)
	defer tick.Stop()
	var ev infer.Text
	for range gen.MaxTokens {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		ev.Delta = append(strconv.AppendInt(ev.Delta[:0], now(), 10), ' ')
		if err := emit(&ev); err != nil {
			return err
		}
	}
	return emit(&infer.Done{Reason: infer.Length, Out: gen.MaxTokens, Backend: "clock"})
}

// now returns the time in nanoseconds, from a clock that all processes of a machine share.
func now() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // every Linux has the clock
	}
	return t.Nano()
}

// relay reports the latency of tokens from the engine's process through the daemon to a client. For
// comparison it also reports the latency without the daemon, from a second process of the same engine:
// mostly the time that the machine needs to wake a process.
func (b *bench) relay(what, goal string, tokens int) error {
	direct, err := b.direct(tokens)
	if err != nil {
		return err
	}
	through, err := b.through(tokens)
	if err != nil {
		return err
	}
	for _, p := range []float64{50, 99} {
		d, t := percentile(direct, p), percentile(through, p)
		b.report(fmt.Sprintf("%s: p%.0f", what, p), goal, "%s (direct %s)", t.Round(100), d.Round(100))
	}
	return nil
}

// direct reads the clock engine without a daemon. It returns the latencies.
func (b *bench) direct(tokens int) ([]time.Duration, error) {
	child, err := proc.Start(proc.Command{Path: filepath.Join(b.bin, "bench")})
	if err != nil {
		return nil, err
	}
	defer child.Kill()
	client := link.NewClient(child.Conn())
	defer client.Close()
	go func() { _ = client.Run(func(link.Report) {}) }() // runs until the connection is closed
	var latencies []time.Duration
	err = client.Handle(context.Background(), &infer.Request{Task: &infer.Generate{MaxTokens: tokens}}, func(ev infer.Event) error {
		if text, ok := ev.(*infer.Text); ok {
			latencies, err = appendLatencies(latencies, string(text.Delta), now())
			return err
		}
		return nil
	})
	return warm(latencies), err
}

// appendLatencies appends the latency of each timestamp in text.
func appendLatencies(latencies []time.Duration, text string, arrived int64) ([]time.Duration, error) {
	for stamp := range strings.FieldsSeq(text) { // delayed tokens are in one text
		sent, err := strconv.ParseInt(stamp, 10, 64)
		if err != nil {
			return latencies, err
		}
		latencies = append(latencies, time.Duration(arrived-sent))
	}
	return latencies, nil
}

// warm returns the latencies without the first tenth of them, but leaves out at most 100.
func warm(latencies []time.Duration) []time.Duration { return latencies[min(100, len(latencies)/10):] }

// through returns the latencies of tokens from the clock engine to a client of the daemon.
func (b *bench) through(tokens int) ([]time.Duration, error) {
	d, err := b.start("--model-path", "builtin:chain", "--engine", filepath.Join(b.bin, "bench"))
	if err != nil {
		return nil, err
	}
	defer d.stop()
	if err := d.waitReady(); err != nil {
		return nil, err
	}
	nc, err := d.dial("infer.sock")
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	if err := ask(nc, tokens); err != nil {
		return nil, err
	}
	var latencies []time.Duration
	for r := bufio.NewReader(nc); ; {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return nil, err
		}
		arrived := now()
		var f struct{ Type, Content, Message string }
		if err := json.Unmarshal(line, &f); err != nil {
			return nil, err
		}
		if f.Type != "token" {
			if f.Type != "done" {
				return nil, fmt.Errorf("%s", f.Message)
			}
			break
		}
		if latencies, err = appendLatencies(latencies, f.Content, arrived); err != nil {
			return nil, err
		}
	}
	return warm(latencies), nil
}
