package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/inferd-go/inferd/bench/load"
)

// Settings of every server in a comparison.
const (
	peerSlots   = 8
	peerContext = 16384
)

// peers compares inferd with an older build, and with the programs of the llama.cpp version that
// the engine loads. All run the same model with the same number of threads, in turns: "bench
// peers", or make bench-peers. Separate processes send the requests (package load): as different
// users if bench runs as root, otherwise as different programs. If a row of the table fails, its
// error is printed, and the next row is measured.
type peers struct {
	*bench
	ctx      context.Context //nolint:containedctx // of the current row
	quick    bool
	patience float64
	threads  int
	model    string    // GGUF file for all servers
	name     string    // name of the model
	builds   []build   // builds of inferd: the present one and, for a comparison, another one
	exact    bool      // compare entries with "exact": true and entries without, both of the present build
	llama    string    // folder of llama.cpp's programs; empty if they are not measured
	errors   io.Writer // receives the stderr of processes
	root     bool
	uid      int // uid of the first user

	probes, requests int
	backlog          time.Duration
	crowd            bool
	tcp              bool // rows d and e use HTTP on loopback TCP

	callers map[[2]int]*load.Caller
	servers []*testServer
}

// A row is one comparison, and a row of the printed table.
type row struct {
	key, what   string
	full, quick time.Duration // time limit; four times as long for two builds, which are measured in rounds
	measure     func(*peers) error
}

var table = []row{
	{"a", "decode, 1, 4 and 8 streams", 20 * time.Minute, 6 * time.Minute, (*peers).decode},
	{"b", "prefill of 512 tokens", 8 * time.Minute, 4 * time.Minute, (*peers).prefill},
	{"c", "gaps of running streams during another user's prefill", 60 * time.Minute, 8 * time.Minute, (*peers).stall},
	{"d", "a short request beside 60 waiting ones of another user", 20 * time.Minute, 6 * time.Minute, (*peers).flood},
	{"e", "shares of backlogged callers", 15 * time.Minute, 5 * time.Minute, (*peers).shares},
	{"f", "second turn of a conversation", 15 * time.Minute, 4 * time.Minute, (*peers).secondTurn},
	{"g", "probing for another user's prompts", 20 * time.Minute, 4 * time.Minute, (*peers).probe},
	{"h", "a slot after its client has hung up", 20 * time.Minute, 6 * time.Minute, (*peers).hangUps},
	{"i", "mixed requests of 16 callers", 20 * time.Minute, 5 * time.Minute, (*peers).mixed},
	{"j", "first token beside clients that never read", 25 * time.Minute, 8 * time.Minute, (*peers).unread},
	{"k", "gaps of running streams beside costly grammars", 10 * time.Minute, 4 * time.Minute, (*peers).grammars},
	{"l", "decode through chat completions, 1, 4 and 8 streams", 20 * time.Minute, 6 * time.Minute, (*peers).chats},
	{"m", "decode with a schema, 1 and 4 streams", 15 * time.Minute, 5 * time.Minute, (*peers).schemas},
	{"n", "decode with tools that may be called, 1 and 4 streams", 15 * time.Minute, 5 * time.Minute, (*peers).tooled},
}

func runPeers(args []string, out io.Writer) error {
	p := &peers{callers: make(map[[2]int]*load.Caller), errors: os.Stderr}
	chosen, before, withLlama, err := p.parse(args)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	p.ctx = ctx
	dir, err := os.MkdirTemp("", "peers")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // other users run programs in it
		return err
	}
	if err := p.prepare(dir, out, before, withLlama); err != nil {
		return err
	}
	return p.measure(ctx, chosen)
}

// parse parses the flags. chosen are the rows to measure, before is the folder of the older build
// or empty, and withLlama is true if llama.cpp is measured.
func (p *peers) parse(args []string) (chosen []row, before string, withLlama bool, err error) {
	fs := flag.NewFlagSet("bench peers", flag.ContinueOnError)
	fs.Usage = func() {
		fmt.Fprintf(fs.Output(), "Usage: bench peers [flags]\n\nRows:\n")
		for _, r := range table {
			fmt.Fprintf(fs.Output(), "  %s  %s\n", r.key, r.what)
		}
		fmt.Fprintln(fs.Output())
		fs.PrintDefaults()
	}
	keys := fs.String("rows", "", "measure only these `rows`, such as a,c")
	fs.StringVar(&p.name, "model", "big-q8_0", "big-q8_0, big-q4_k_m, a GGUF `file`, or tiny, for a trial of this program")
	fs.StringVar(&before, "before", "", "`folder` with inferd and inferd-engine of an older build: rows a to f, j, k, m and n measure it in turns with the present one")
	fs.BoolVar(&withLlama, "peers", true, "also measure llama.cpp's programs")
	fs.BoolVar(&p.quick, "quick", false, "a first look, in some ten minutes")
	fs.BoolVar(&p.crowd, "crowd", false, "row j: also 4 users of 1,000 connections")
	fs.Float64Var(&p.patience, "patience", 1, "`factor` for the time limit of each row")
	fs.BoolVar(&p.tcp, "tcp", false, "rows d and e over HTTP on loopback TCP, without llama.cpp's programs")
	fs.IntVar(&p.threads, "threads", runtime.NumCPU(), "compute `threads` of every server")
	fs.IntVar(&p.uid, "uid", 61000, "first `uid` of the callers; only as root")
	fs.IntVar(&p.probes, "probes", 0, "`tries` of row g; 0 means 10,000, or 400 with --quick")
	fs.IntVar(&p.requests, "requests", 0, "`requests` of row i; 0 means 10,000, or 600 with --quick")
	fs.DurationVar(&p.backlog, "backlog", 0, "measured `time` of row e; 0 means 60s, or 12s with --quick")
	fs.BoolVar(&p.exact, "exact", false, "in rows a to f, j, k, m and n, measure entries with exact in turns with entries without")
	if err := fs.Parse(args); err != nil {
		return nil, "", false, err
	}
	if p.exact && before != "" {
		return nil, "", false, errors.New("-exact and -before exclude each other: both compare two builds")
	}
	p.probes = orElse(p.probes, p.size(10_000, 400))
	p.requests = orElse(p.requests, p.size(10_000, 600))
	p.backlog = orElse(p.backlog, time.Duration(p.size(60, 12))*time.Second)
	p.root = os.Geteuid() == 0
	if p.tcp {
		withLlama = false
		if *keys == "" {
			*keys = "d,e"
		}
	}
	chosen, err = choose(*keys)
	if i := slices.IndexFunc(chosen, func(r row) bool { return r.key != "d" && r.key != "e" }); p.tcp && i >= 0 {
		return nil, "", false, fmt.Errorf("row %s is not measured over TCP", chosen[i].key)
	}
	return chosen, before, withLlama, err
}

// prepare builds the programs in dir, makes the model, and prints the settings.
func (p *peers) prepare(dir string, out io.Writer, before string, withLlama bool) (err error) {
	if p.bench, err = newBench(dir, out); err != nil {
		return err
	}
	p.builds = []build{{name: "inferd", dir: dir}}
	switch {
	case p.exact:
		p.builds = []build{{name: "inferd, exact", dir: dir, exact: true}, {name: "the default", dir: dir}}
	case before != "":
		older, err := olderBuild(before)
		if err != nil {
			return err
		}
		p.builds = append(p.builds, older)
	}
	var built string
	if withLlama {
		if built, err = buildLlama(""); err != nil {
			return fmt.Errorf("%w; --peers=false measures without them", err)
		}
	}
	if p.model, err = p.ggufOf(p.name, built); err != nil {
		return fmt.Errorf("model: %w", err)
	}
	callers := "programs of one user (root has several users)"
	if p.root {
		callers = "several users"
	}
	fmt.Fprintf(out, "%d cores, %s; %d threads, %d slots, %d tokens of context, %s; callers are %s\n", runtime.NumCPU(), runtime.GOARCH,
		p.threads, peerSlots, peerContext, p.name, callers)
	if withLlama {
		if p.llama, err = p.workingLlama(built); err != nil {
			return err
		}
	}
	return nil
}

// measure prints the table of the chosen rows.
func (p *peers) measure(ctx context.Context, chosen []row) error {
	fmt.Fprintf(p.out, "\n%-58s %-34s %s\n", "figure", "here", "goal, aim")
	var failed []string
	for _, r := range chosen {
		err := p.row(ctx, r)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			fmt.Fprintf(p.out, "%s  NOT MEASURED: %v\n", r.key, err)
			failed = append(failed, r.key)
		}
	}
	if failed != nil {
		return fmt.Errorf("rows that were not measured: %s", strings.Join(failed, ", "))
	}
	return nil
}

// choose returns the rows with the given keys, separated by commas, or all rows if keys is empty.
func choose(keys string) ([]row, error) {
	if keys == "" {
		return table, nil
	}
	var chosen []row
	for key := range strings.SplitSeq(keys, ",") {
		i := slices.IndexFunc(table, func(r row) bool { return r.key == key })
		if i < 0 {
			return nil, fmt.Errorf("no row %q", key)
		}
		chosen = append(chosen, table[i])
	}
	return chosen, nil
}

func orElse[T comparable](v, other T) T {
	var zero T
	if v == zero {
		return other
	}
	return v
}

// size returns full or, with --quick, quick.
func (p *peers) size(full, quick int) int {
	if p.quick {
		return quick
	}
	return full
}

// row measures a row, and then ends all processes that it has started.
func (p *peers) row(ctx context.Context, r row) (err error) {
	limit := r.full
	if p.quick {
		limit = r.quick
	}
	if len(p.builds) > 1 {
		limit *= 4
	}
	limit = time.Duration(float64(limit) * p.patience)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done in %s", limit))
	defer cancel()
	p.ctx = ctx
	begin := time.Now()
	fmt.Fprintf(p.out, "%s  %s\n", r.key, r.what)
	others, err := p.others()
	if err != nil {
		return err
	}
	defer func() {
		for _, c := range p.callers {
			err = errors.Join(err, c.Close())
		}
		clear(p.callers)
		for _, s := range p.servers {
			s.stop()
		}
		p.servers = nil
		if ctx.Err() != nil && err != nil {
			err = context.Cause(ctx) // the other errors follow from it
		}
		fmt.Fprintf(p.out, "   (%s; before it, others had %.0f %% of the cores)\n", time.Since(begin).Round(time.Second), 100*others)
	}()
	return r.measure(p)
}

// others returns the share of the CPU time that other programs use. A measurement may lose more
// than that share: two threads that wait for each other lose more to a third thread than it uses.
func (p *peers) others() (float64, error) {
	sample := func() (busy, all float64, err error) {
		raw, err := os.ReadFile("/proc/stat")
		if err != nil {
			return 0, 0, err
		}
		first, _, _ := strings.Cut(string(raw), "\n")
		// The fields are user, nice, system, idle, iowait, irq, softirq and steal. The guest
		// times that follow are already counted in user and nice.
		for i, field := range strings.Fields(strings.TrimPrefix(first, "cpu"))[:8] {
			n, err := strconv.ParseFloat(field, 64)
			if err != nil {
				return 0, 0, fmt.Errorf("/proc/stat: %w", err)
			}
			if all += n; i != 3 && i != 4 {
				busy += n
			}
		}
		return busy, all, nil
	}
	busy, all, err := sample()
	if err != nil {
		return 0, err
	}
	sleepFor(p.ctx, time.Second)
	busy2, all2, err := sample()
	return (busy2 - busy) / max(all2-all, 1), err
}

// prompt returns a request with a new random prompt of the given number of tokens.
func prompt(tokens, maxTokens int) load.Request {
	return load.Request{Turns: []string{text(tokens - load.TemplateTokens)}, MaxTokens: maxTokens}
}

// text returns n random letters.
func text(n int) string {
	var b bytes.Buffer
	for range n {
		b.WriteByte('a' + byte(rand.IntN(26)))
	}
	return b.String()
}

// ask sends a request. It returns an error unless the request is answered completely.
func (p *peers) ask(client load.Doer, s load.Shot) (load.Outcome, error) {
	o := client.Ask(p.ctx, s, nil)
	return o, o.Err()
}

// again sends requests on n connections, one after the other on each, until ctx ends. It passes
// each outcome to settle, one at a time. wait returns when all requests are over.
func again(ctx context.Context, client load.Doer, n int, shot func() load.Shot, settle func(*load.Outcome)) (wait func()) {
	var all sync.WaitGroup
	var mu sync.Mutex
	for range n {
		all.Go(func() {
			for ctx.Err() == nil {
				o := client.Ask(ctx, shot(), nil)
				mu.Lock()
				settle(&o)
				mu.Unlock()
				if o.Code != "" || o.Fault != "" { // refused or failed: pause
					sleepFor(ctx, 100*time.Millisecond)
				}
			}
		})
	}
	return all.Wait
}

func sleepFor(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// settled collects the errors of requests that should have been answered.
type settled struct {
	mu   sync.Mutex
	errs []error
}

func (s *settled) add(err error) {
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.errs = append(s.errs, err)
	}
}

// err returns an error with the first error and the number of errors, or nil if there is none.
func (s *settled) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.errs) == 0 {
		return nil
	}
	return fmt.Errorf("%d failed: %w", len(s.errs), s.errs[0])
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/1e6) }
