package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
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
func pacedEngine() error {
	conn, err := proc.InheritedConn()
	if err != nil {
		return err
	}
	srv := &link.Server{Conn: conn, Handler: infer.HandlerFunc(pacedTokens)}
	if err := srv.Report(link.Report{State: link.Ready, NCtx: 1 << 20, Slots: 4, Model: "paced", Device: "cpu"}); err != nil {
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
	return emit(&infer.Done{Reason: infer.Length, Out: gen.MaxTokens, By: "paced"})
}

// now is a clock that all processes of a machine share, in nanoseconds.
func now() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // there is such a clock
	}
	return t.Nano()
}

// relay measures how long a token takes from the engine's process to a client's.
func (b *bench) relay(what, reach string, tokens int) error {
	d, err := b.start("--model-path", "builtin:chain", "--engine", filepath.Join(b.bin, "bench"))
	if err != nil {
		return err
	}
	defer d.stop()
	if err := d.waitReady(); err != nil {
		return err
	}
	nc, err := d.dial("infer.sock")
	if err != nil {
		return err
	}
	defer nc.Close()
	if err := ask(nc, tokens); err != nil {
		return err
	}
	var way []time.Duration
	for r := bufio.NewReader(nc); ; {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return err
		}
		arrived := now()
		var f struct{ Type, Content, Message string }
		if err := json.Unmarshal(line, &f); err != nil {
			return err
		}
		if f.Type != "token" {
			if f.Type != "done" {
				return fmt.Errorf("%s", f.Message)
			}
			break
		}
		for stamp := range strings.FieldsSeq(f.Content) { // those that came late come together
			sent, err := strconv.ParseInt(stamp, 10, 64)
			if err != nil {
				return err
			}
			way = append(way, time.Duration(arrived-sent))
		}
	}
	way = way[min(100, len(way)/10):] // the first ones warm up
	b.report(what, reach, "p50 %s, p99 %s", percentile(way, 50).Round(100), percentile(way, 99).Round(100))
	return nil
}
