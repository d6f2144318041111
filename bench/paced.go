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

// pace is the time between two tokens of the paced source.
const pace = time.Millisecond

// pacedEngine is an engine without a model: each of its tokens is the time at which it was
// written, so that whoever reads it knows how long it was on its way: through the link, the
// daemon and the client's socket.
func pacedEngine(conn net.Conn) error {
	srv := &link.Server{Conn: conn, Handler: infer.HandlerFunc(pacedTokens)}
	if err := srv.Report(link.Report{State: link.Ready, NCtx: 1 << 20, Slots: 4, Model: "paced", Device: "cpu", Abilities: infer.Abilities{Generate: true}}); err != nil {
		return err
	}
	return srv.Serve(context.Background())
}

func pacedTokens(ctx context.Context, req *infer.Request, emit infer.Sink) error {
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
	return emit(&infer.Done{Reason: infer.Length, Out: gen.MaxTokens, Backend: "paced"})
}

// now is a clock that all processes of a machine share, in nanoseconds.
func now() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // there is such a clock
	}
	return t.Nano()
}

// relay measures how long a token takes from the engine's process to a client's, through
// the daemon. Beside it stands the same source read directly, so that what the machine
// itself takes to wake a process is not laid to the daemon.
func (b *bench) relay(what, reach string, tokens int) error {
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
		b.report(fmt.Sprintf("%s: p%.0f", what, p), reach, "%s (direct %s)", t.Round(100), d.Round(100))
	}
	return nil
}

// direct reads the paced source with nothing between.
func (b *bench) direct(tokens int) ([]time.Duration, error) {
	child, err := proc.Start(proc.Command{Path: filepath.Join(b.bin, "bench")})
	if err != nil {
		return nil, err
	}
	defer child.Kill()
	client := link.NewClient(child.Conn())
	defer client.Close()
	go func() { _ = client.Run(func(link.Report) {}) }() // ends with the connection
	var way []time.Duration
	err = client.Handle(context.Background(), &infer.Request{Task: &infer.Generate{MaxTokens: tokens}}, func(ev infer.Event) error {
		if text, ok := ev.(*infer.Text); ok {
			way, err = appendWay(way, string(text.Delta), now())
			return err
		}
		return nil
	})
	return warm(way), err
}

// appendWay adds how long each of the time stamps in text has been on its way.
func appendWay(way []time.Duration, text string, arrived int64) ([]time.Duration, error) {
	for stamp := range strings.FieldsSeq(text) { // those that came late come together
		sent, err := strconv.ParseInt(stamp, 10, 64)
		if err != nil {
			return way, err
		}
		way = append(way, time.Duration(arrived-sent))
	}
	return way, nil
}

// warm leaves out the first ones.
func warm(way []time.Duration) []time.Duration { return way[min(100, len(way)/10):] }

// through reads the paced source as a client of a daemon.
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
	var way []time.Duration
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
		if way, err = appendWay(way, f.Content, arrived); err != nil {
			return nil, err
		}
	}
	return warm(way), nil
}
