package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/inferd-go/inferd/internal/activity"
	"github.com/inferd-go/inferd/internal/admit"
	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/backend/mock"
	"github.com/inferd-go/inferd/internal/exchange"
	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/route"
	"github.com/inferd-go/inferd/internal/server"
	"github.com/inferd-go/inferd/internal/wire"
	v2 "github.com/inferd-go/inferd/internal/wire/v2"
)

// admission measures the TTFT of a backend that takes no time, behind the gate and without it, in
// turns.
func (b *bench) admission() error {
	gate := &admit.Gate{Depth: 10, Total: 256, Choose: func(*infer.Request) (admit.Destination, error) {
		return admit.Destination{Backend: &backend.Backend{Name: "m", Slots: 4, Handler: new(mock.Backend)}}, nil
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

// firstToken sends a request and reads the whole answer. It returns the time until the first
// message.
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

// routing measures the choice among eight entries, of which only the last can serve the request,
// and the update of its breaker.
func (b *bench) routing() error {
	r := new(route.Router)
	const entries = 8
	for i := range entries {
		r.Backends = append(r.Backends, &backend.Backend{
			Name:      fmt.Sprint(i),
			Abilities: func() (infer.Abilities, bool) { return infer.Abilities{Generate: i == entries-1}, true },
			State:     func() (backend.State, string) { return backend.Ready, "" },
			Faults:    []infer.Code{infer.Internal},
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

// recording measures the cost of a request's line in the activity log, with and without text that
// may be a secret. The figures are the time for which the request waits, and the CPU time of a line,
// most of it in the goroutine that writes the log.
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
	for _, step := range []struct{ what, goal, id string }{
		{"no rule can match", "<= 5 µs", "5f2b8a"},
		{"a secret in it", "<= 25 µs", "5f2b8a token=swordfish"},
	} {
		const rounds, burst = 25, 2000 // a burst fits into the queue of the log
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
		b.report("activity log, a request waits, "+step.what, step.goal, "p50 %s, p99 %s", median(took), percentile(took, 99))
		b.report("  processor time in all", step.goal, "%s", (after-before)/(rounds*burst))
	}
	if n := record.Lost(); n > 0 {
		return fmt.Errorf("the activity log has lost %d lines", n)
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
