package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/inferd-go/inferd/bench/load"
)

// What every server of a comparison has.
const (
	peerSlots   = 8
	peerContext = 16384
)

// peers measures inferd beside an older build of it and beside the programs of llama.cpp,
// of the same version, on the same model, with the same threads, in turns: "bench peers",
// or make bench-peers. Requests come from processes of their own (package load), of
// different users if the bench is root, else of different programs. A row of the table
// that fails says why, and the next row is measured.
type peers struct {
	*bench
	ctx      context.Context //nolint:containedctx // of the row that is being measured
	quick    bool
	patience float64
	threads  int
	model    string    // GGUF file that all sides load
	name     string    // of the model
	builds   []build   // of inferd: the present one, and perhaps an older one
	llama    string    // folder of llama.cpp's programs; empty without peers
	errors   io.Writer // for the errors of processes
	root     bool
	uid      int // of the first user

	probes, requests int
	backlog          time.Duration
	crowd            bool

	callers map[[2]int]*load.Caller
	servers []*side
}

// A row is a part of the table.
type row struct {
	key, what   string
	full, quick time.Duration // limit; a second build doubles it twice, for it takes rounds
	measure     func(*peers) error
}

var table = []row{
	{"a", "decode, 1, 4 and 8 streams", 20 * time.Minute, 6 * time.Minute, (*peers).decode},
	{"b", "prefill of 512 tokens", 8 * time.Minute, 4 * time.Minute, (*peers).prefill},
	{"c", "gaps of running streams while a stranger's prompt is read", 60 * time.Minute, 8 * time.Minute, (*peers).stall},
	{"d", "a short request while a stranger has 60 waiting", 20 * time.Minute, 6 * time.Minute, (*peers).flood},
	{"e", "shares of backlogged callers", 15 * time.Minute, 5 * time.Minute, (*peers).shares},
	{"f", "second turn of a conversation", 15 * time.Minute, 4 * time.Minute, (*peers).secondTurn},
	{"g", "what a stranger's prompt can be probed for", 20 * time.Minute, 4 * time.Minute, (*peers).probe},
	{"h", "a slot after its client has hung up", 20 * time.Minute, 6 * time.Minute, (*peers).hangUps},
	{"i", "mixed requests of 16 callers", 20 * time.Minute, 5 * time.Minute, (*peers).mixed},
	{"j", "first token beside clients that never read", 25 * time.Minute, 8 * time.Minute, (*peers).unread},
	{"k", "gaps of running streams beside costly grammars", 10 * time.Minute, 4 * time.Minute, (*peers).grammars},
}

func runPeers(args []string, out io.Writer) error {
	fs := flag.NewFlagSet("bench peers", flag.ContinueOnError)
	fs.Usage = func() {
		fmt.Fprintf(fs.Output(), "Usage: bench peers [flags]\n\nRows:\n")
		for _, r := range table {
			fmt.Fprintf(fs.Output(), "  %s  %s\n", r.key, r.what)
		}
		fmt.Fprintln(fs.Output())
		fs.PrintDefaults()
	}
	p := &peers{callers: make(map[[2]int]*load.Caller), errors: os.Stderr}
	keys := fs.String("rows", "", "measure only these `rows`, as a,c")
	fs.StringVar(&p.name, "model", "big-q8_0", "big-q8_0, big-q4_k_m, or tiny, with which this program can be tried out")
	before := fs.String("before", "", "`folder` with inferd and inferd-engine of an older build: rows a to f, j and k measure it in turns with the present one")
	withLlama := fs.Bool("peers", true, "measure llama.cpp's programs too")
	fs.BoolVar(&p.quick, "quick", false, "a first look, in some ten minutes")
	fs.BoolVar(&p.crowd, "crowd", false, "row j: 4 users of 1,000 connections too")
	fs.Float64Var(&p.patience, "patience", 1, "`times` as long as usual until a row is given up")
	fs.IntVar(&p.threads, "threads", runtime.NumCPU(), "compute `threads` of every side")
	fs.IntVar(&p.uid, "uid", 61000, "first `uid` of those that ask, if we are root")
	fs.IntVar(&p.probes, "probes", 0, "`tries` of row g; 0 is 10,000, quick 400")
	fs.IntVar(&p.requests, "requests", 0, "`requests` of row i; 0 is 10,000, quick 600")
	fs.DurationVar(&p.backlog, "backlog", 0, "`time` that row e watches; 0 is 60s, quick 12s")
	if err := fs.Parse(args); err != nil {
		return err
	}
	chosen, err := choose(*keys)
	if err != nil {
		return err
	}
	p.probes = orElse(p.probes, p.size(10_000, 400))
	p.requests = orElse(p.requests, p.size(10_000, 600))
	p.backlog = orElse(p.backlog, time.Duration(p.size(60, 12))*time.Second)
	p.root = os.Geteuid() == 0

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	p.ctx = ctx
	dir, err := os.MkdirTemp("", "peers")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // other users run programs from here
		return err
	}
	if p.bench, err = newBench(dir, out); err != nil {
		return err
	}
	p.builds = []build{{"inferd", dir}}
	if *before != "" {
		older, err := olderBuild(*before)
		if err != nil {
			return err
		}
		p.builds = append(p.builds, older)
	}
	var built string
	if *withLlama {
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
	if *withLlama {
		if p.llama, err = p.workingLlama(built); err != nil {
			return err
		}
	}
	fmt.Fprintln(out)
	fmt.Fprintf(out, "%-58s %-34s %s\n", "figure", "here", "reach, aim")
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

// choose returns the rows with those keys, all without any.
func choose(keys string) ([]row, error) {
	if keys == "" {
		return table, nil
	}
	var chosen []row
	for key := range strings.SplitSeq(keys, ",") {
		i := slices.IndexFunc(table, func(r row) bool { return r.key == key })
		if i < 0 {
			return nil, fmt.Errorf("there is no row %q", key)
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

// size is how many of something there are to be.
func (p *peers) size(full, quick int) int {
	if p.quick {
		return quick
	}
	return full
}

// row measures one, and ends whatever it has started.
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
			err = context.Cause(ctx) // what it led to says less
		}
		fmt.Fprintf(p.out, "   (%s; before it, others had %.0f %% of the cores)\n", time.Since(begin).Round(time.Second), 100*others)
	}()
	return r.measure(p)
}

// others is how much of the cores is taken while nothing of ours runs: two threads that
// wait for each other suffer more from a third than it takes.
func (p *peers) others() (float64, error) {
	sample := func() (busy, all float64, err error) {
		raw, err := os.ReadFile("/proc/stat")
		if err != nil {
			return 0, 0, err
		}
		first, _, _ := strings.Cut(string(raw), "\n")
		// user nice system idle iowait irq softirq steal; guests are in user.
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

// A side of a comparison is a server.
type side struct {
	name   string
	target load.Target
	stop   func()
	// running is how many requests it says that it runs.
	running func() (int, error)
	daemon  *daemon // nil if it is a peer
}

// Options are the settings of a server.
type inferdOptions struct {
	backends   string // JSON; empty is one of the model
	model      string // file; empty is the model of the comparison
	slots      int    // 0 is peerSlots
	maxStall   int    // ms; 0 is the default
	queueDepth int    // 0 is the default
}

// inferd starts a server of the present build.
func (p *peers) inferd(o inferdOptions) (*side, error) { return p.startBuild(p.builds[0], o) }

// startBuild starts a server of a build and lets other users connect to it.
func (p *peers) startBuild(b build, o inferdOptions) (*side, error) {
	if o.backends == "" {
		stall := ""
		if o.maxStall > 0 {
			stall = fmt.Sprintf(`,"max_stall_ms":%d`, o.maxStall)
		}
		o.backends = fmt.Sprintf(`{"kind":"llamacpp","name":"gen","n_ctx":%d,"n_slots":%d,"threads":%d,"model":{"path":%q}%s}`,
			peerContext, orElse(o.slots, peerSlots), p.threads, orElse(o.model, p.model), stall)
	}
	config := filepath.Join(p.bin, "config.json")
	if err := os.WriteFile(config, fmt.Appendf(nil, `{"backends":[%s]}`, o.backends), 0o600); err != nil {
		return nil, err
	}
	args := []string{"--config", config}
	if o.queueDepth > 0 {
		args = append(args, "--queue-depth", fmt.Sprint(o.queueDepth), "--queue-total", fmt.Sprint(4*o.queueDepth))
	}
	d, err := startFrom(b.dir, args...)
	if err != nil {
		return nil, err
	}
	s := &side{name: b.name, target: load.Target{Dialect: load.V2, Path: filepath.Join(d.dir, v2Leaf)}, stop: d.stop, daemon: d}
	s.running = func() (int, error) {
		stats, err := d.stats()
		return stats.Running, err
	}
	p.servers = append(p.servers, s)
	if err := d.waitReady(); err != nil {
		return nil, err
	}
	for _, leaf := range []string{"", v1Leaf, v2Leaf, lpLeaf} {
		if err := os.Chmod(filepath.Join(d.dir, leaf), 0o777); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// stop ends a server before the end of its row.
func (p *peers) stop(s *side) {
	s.stop()
	p.servers = slices.DeleteFunc(p.servers, func(o *side) bool { return o == s })
}

// Stats are what control.sock says of a daemon.
type daemonStats struct {
	Running, Waiting int
	Callers          []struct {
		User, Exe string
		counts
	}
	Backends []struct {
		Name string
		counts
	}
}

type counts struct {
	In  int64 `json:"input_tokens"`
	Out int64 `json:"output_tokens"`
}

func (d *daemon) stats() (s daemonStats, err error) {
	nc, err := d.dial("control.sock")
	if err != nil {
		return s, err
	}
	defer nc.Close()
	if _, err := io.WriteString(nc, `{"type":"stats"}`+"\n"); err != nil {
		return s, err
	}
	answer := struct{ Stats *daemonStats }{&s}
	return s, json.NewDecoder(nc).Decode(&answer)
}

// caller returns the process of a user, counted from 0, and of one of that user's programs.
// Without root all users are one, and only the programs differ.
func (p *peers) caller(user, program int) (*load.Caller, error) {
	key := [2]int{user, program}
	if c := p.callers[key]; c != nil {
		return c, nil
	}
	path := p.program(user, program)
	if _, err := os.Stat(path); err != nil {
		// Callers differ by the program's file; a link would be the same one.
		if err := copyFile(filepath.Join(p.bin, "bench"), path); err != nil {
			return nil, err
		}
	}
	uid := 0
	if p.root {
		uid = p.uid + user
	}
	c, err := startCaller(path, uid, p.errors)
	if err != nil {
		return nil, err
	}
	p.callers[key] = c
	return c, nil
}

// startCaller starts a copy of this program that asks for a user; uid 0 is our own.
func startCaller(path string, uid int, errs io.Writer) (*load.Caller, error) {
	cmd := exec.Command(path, "load")
	cmd.Dir, cmd.Stderr = "/", errs
	cmd.Env = []string{"GOMAXPROCS=1"} // the cores are the engine's
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}
	return load.Start(cmd)
}

func (p *peers) program(user, program int) string {
	return filepath.Join(p.bin, fmt.Sprintf("program-%d-%d", user, program))
}

// prompt is a request whose prompt has so many tokens, none of which anybody has asked
// before.
func prompt(tokens, maxTokens int) load.Request {
	return load.Request{Turns: []string{text(tokens - load.TemplateTokens)}, MaxTokens: maxTokens}
}

// text returns so many letters that nobody has seen.
func text(n int) string {
	var b bytes.Buffer
	for range n {
		b.WriteByte('a' + byte(rand.IntN(26)))
	}
	return b.String()
}

// ask fires one shot and wants an answer.
func (p *peers) ask(who load.Doer, s load.Shot) (load.Outcome, error) {
	o := who.Ask(p.ctx, s, nil)
	return o, o.Err()
}

// again asks on n connections, one request after the other on each, until ctx ends. Each
// outcome goes to settle, one at a time. The function that comes back waits for the end.
func again(ctx context.Context, who load.Doer, n int, shot func() load.Shot, settle func(*load.Outcome)) (wait func()) {
	var all sync.WaitGroup
	var mu sync.Mutex
	for range n {
		all.Go(func() {
			for ctx.Err() == nil {
				o := who.Ask(ctx, shot(), nil)
				mu.Lock()
				settle(&o)
				mu.Unlock()
				if o.Code != "" || o.Fault != "" { // refused: not at once again
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

// settled gathers the errors of outcomes that were to be answers.
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

// err is the first error, and how many there were.
func (s *settled) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.errs) == 0 {
		return nil
	}
	return fmt.Errorf("%d failed: %w", len(s.errs), s.errs[0])
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/1e6) }
