package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/inferd-go/inferd/bench/load"
	"github.com/inferd-go/inferd/internal/bridge"
	"github.com/inferd-go/inferd/internal/exchange"
	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/server"
	v2 "github.com/inferd-go/inferd/internal/wire/v2"
)

// chats measures the rate of one, four and eight streams over HTTP with chat completions, in turns
// with the length-prefixed socket of the same daemon and with chat completions of llama-server.
func (p *peers) chats() error {
	streams := []int{1, 4, 8}
	tokens := make([]int, len(streams))
	for i := range tokens {
		tokens[i] = p.size(128, 64)
	}
	// ratesOf returns the rates for each target and each number of streams.
	ratesOf := func(s *testServer, targets ...load.Target) ([]float64, error) {
		var rates []float64
		for _, t := range targets {
			through := *s
			through.target = t
			for i, n := range streams {
				p.rest()
				rate, err := p.streams(&through, n, &tokens[i])
				if err != nil {
					return nil, fmt.Errorf("%s, %d streams: %w", t.Dialect, n, err)
				}
				rates = append(rates, rate)
			}
		}
		return rates, nil
	}
	goals := make([]string, 2*len(streams))
	flip := false // whether HTTP is first
	all := []runner{p.runner(contender{"inferd", func() (*testServer, error) { return p.inferd(inferdOptions{}) }}, goals, func(s *testServer) ([]float64, error) {
		flip = !flip
		chat := load.Target{Dialect: load.Chat, Path: filepath.Join(s.daemon.dir, httpLeaf)}
		lp := load.Target{Dialect: load.LP, Path: filepath.Join(s.daemon.dir, lpLeaf)}
		if flip {
			return ratesOf(s, chat, lp)
		}
		rates, err := ratesOf(s, lp, chat)
		if err != nil {
			return nil, err
		}
		return append(rates[len(streams):], rates[:len(streams)]...), nil
	})}
	for _, c := range p.llamaServers(false, true) {
		all = append(all, p.runner(c, goals, func(s *testServer) ([]float64, error) {
			rates, err := ratesOf(s, load.Target{Dialect: load.Chat, Path: s.target.Path})
			return append(rates, make([]float64, len(streams))...), err
		}))
	}
	rates, err := compareRates(all, p.repeats(), len(goals))
	if err != nil {
		return err
	}
	for i, n := range streams {
		ours, socket := rates[0][i], rates[0][len(streams)+i]
		p.report(fmt.Sprintf("%d streams of chat completions", n), "", "%s tokens/s", spread(ours))
		p.report("  of the length-prefixed socket", ">= 0.98", "%s (%s)", spread(ratios(ours, socket)), spread(socket))
		better := fastest(rates, 1, i)
		for k := 1; k < len(all); k++ {
			aim := ""
			if k == better {
				aim = ">= 1.0 (its better mode)"
			}
			p.report("  of "+all[k].name, aim, "%s (%s)", spread(ratios(ours, rates[k][i])), spread(rates[k][i]))
		}
	}
	return nil
}

// chatRates measures the same rates as chats, without llama-server and older builds.
func (b *bench) chatRates(model string) error {
	p := &peers{
		bench: b, ctx: context.Background(), threads: runtime.NumCPU(), model: model, builds: []build{{name: "inferd", dir: b.bin}},
		callers: make(map[[2]int]*load.Caller), errors: os.Stderr, patience: 1, quick: true,
	}
	return p.row(p.ctx, row{what: "decode through chat completions", full: time.Hour, quick: time.Hour, measure: (*peers).chats})
}

// tokenCost measures the CPU time and the allocations of a token in the daemon, over HTTP and over
// the length-prefixed socket. Each token is sent at once, not together with later ones.
func (b *bench) tokenCost() error {
	const tokens, streams, rounds = 1000, 8, 5
	d, err := b.mocked(`"n_slots":8,"token_delay_ms":1,"tokens":[` + strings.TrimSuffix(strings.Repeat(`" token",`, tokens), ",") + `]`)
	if err != nil {
		return err
	}
	defer d.stop()
	var extra []time.Duration
	var each [2][]time.Duration
	for range rounds {
		for i, t := range []load.Target{{Dialect: load.LP, Path: filepath.Join(d.dir, lpLeaf)}, {Dialect: load.Chat, Path: filepath.Join(d.dir, httpLeaf)}} {
			before, err := d.usage()
			if err != nil {
				return err
			}
			if err := readAll(t, streams); err != nil {
				return err
			}
			after, err := d.usage()
			if err != nil {
				return err
			}
			each[i] = append(each[i], (after.cpu-before.cpu)/(tokens*streams))
		}
		extra = append(extra, each[1][len(each[1])-1]-each[0][len(each[0])-1])
	}
	b.report("processor time of a token in the daemon, over HTTP", "", "median %s", median(each[1]))
	b.report("  more than over the length-prefixed socket", "<= 3 µs", "median %s of %d (%s)", median(extra), rounds, median(each[0]))
	lp, chat, err := b.tokenAllocations()
	if err != nil {
		return err
	}
	b.report("  allocations, more than over that socket", "<= 2", "%.2f (%.2f)", chat-lp, lp)
	return nil
}

// readAll requests n answers at once, and reads them.
func readAll(t load.Target, n int) error {
	var asker load.Asker
	defer asker.Close()
	errs := make(chan error, n)
	for range n {
		go func() {
			o := asker.Ask(context.Background(), load.Shot{Target: t, Request: load.Request{Turns: []string{"hello"}, MaxTokens: 1 << 20}}, nil)
			errs <- o.Err()
		}()
	}
	var failed error
	for range n {
		if err := <-errs; err != nil {
			failed = err
		}
	}
	return failed
}

// tokenAllocations returns the number of allocations for a token on its way from a handler to a
// client that allocates nothing, over the length-prefixed socket and over HTTP.
func (b *bench) tokenAllocations() (lp, chat float64, err error) {
	const tokens = 20_000
	handler := infer.HandlerFunc(func(_ context.Context, _ *infer.Request, emit infer.Sink) error {
		ev := infer.Text{Delta: []byte(" token"), Tokens: 1}
		for range tokens {
			if err := emit(&ev); err != nil {
				return err
			}
		}
		return emit(&infer.Done{Reason: infer.EndOfTurn})
	})
	runner := func() *exchange.Runner { return &exchange.Runner{Log: slog.New(slog.DiscardHandler), Handler: handler} }
	web := &bridge.Bridge{Runner: runner(), WriteTimeout: time.Minute}
	web.Open(func() []bridge.Entry { return []bridge.Entry{{Name: "m", Can: infer.AllAbilities()}} })
	socket := &server.Server{Runner: runner(), WriteTimeout: time.Minute}
	prefixed := []byte(`{"id":"b","wire_version":1,"messages":[{"role":"user","content":[{"type":"text","text":"hello"}]}]}`)
	for _, kind := range []struct {
		ask    []byte
		serve  func(ctx context.Context, ln net.Listener) error
		end    string
		result *float64
	}{
		{append(frame.AppendHead(nil, frame.JSON, len(prefixed)), prefixed...), func(ctx context.Context, ln net.Listener) error {
			return socket.Serve(ctx, ln, server.Surface{Name: "lp", Open: func(nc net.Conn) (server.Codec, error) {
				return &v2.Codec{R: frame.Prefixed.NewReader(nc, frame.Limit), W: frame.Prefixed.NewWriter(nc), Blobs: true}, nil
			}})
		}, `"type":"done"`, &lp},
		{[]byte(chatOf(`,"stream":true`)), web.Serve, "[DONE]", &chat},
	} {
		if *kind.result, err = b.allocations(kind.ask, kind.end, tokens, kind.serve); err != nil {
			return 0, 0, err
		}
	}
	return lp, chat, nil
}

// allocations returns the number of allocations in this process for each of the n tokens of an
// answer. serve is the server, ask the request; the last bytes of the answer contain end.
func (b *bench) allocations(ask []byte, end string, n int, serve func(context.Context, net.Listener) error) (float64, error) {
	ln, err := net.Listen("unix", filepath.Join(b.bin, fmt.Sprintf("tokens-%d", len(ask))))
	if err != nil {
		return 0, err
	}
	defer ln.Close()
	go func() { _ = serve(context.Background(), ln) }() // runs until ln is closed
	nc, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		return 0, err
	}
	defer nc.Close()
	r := bufio.NewReaderSize(nc, 64<<10)
	var before, after runtime.MemStats
	for i := range 2 { // the first answer fills pools
		if i == 1 {
			runtime.ReadMemStats(&before)
		}
		if _, err := nc.Write(ask); err != nil {
			return 0, err
		}
		var tail []byte
		for !bytes.Contains(tail, []byte(end)) {
			piece, err := r.Peek(1)
			if err == nil {
				piece, err = r.Peek(r.Buffered())
			}
			if err != nil {
				return 0, err
			}
			tail = append(append(tail[:0], tail[max(0, len(tail)-len(end)):]...), piece...)
			if _, err := r.Discard(len(piece)); err != nil {
				return 0, err
			}
		}
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / float64(n), nil
}
