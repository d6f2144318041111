package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/inferd-go/inferd/internal/frame"
)

// The published implementation with which short requests are compared.
const (
	referenceCrate   = "inferd-daemon"
	referenceVersion = "0.6.0"
)

// runReference measures short requests of inferd beside those of the published reference, both with
// a mock, in turns: "bench reference", or make bench-reference. Each daemon is started for its
// measurement, and runs alone. Without cargo the command prints one line and measures nothing.
func runReference(args []string, out io.Writer) error {
	fs := flag.NewFlagSet("bench reference", flag.ContinueOnError)
	rounds := fs.Int("rounds", 7, "`rounds` of each daemon")
	length := fs.Duration("length", 1500*time.Millisecond, "`time` of each measurement of a round")
	before := fs.String("before", "", "`folder` with inferd and inferd-engine of an older build, to be measured too")
	if err := fs.Parse(args); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cargo, err := exec.LookPath("cargo")
	if err != nil {
		fmt.Fprintln(out, "bench reference: skipped: cargo is missing, which builds the reference")
		return nil
	}
	reference, err := buildReference(ctx, cargo)
	if err != nil {
		return fmt.Errorf("build the reference: %w", err)
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b, err := newBench(dir, out)
	if err != nil {
		return err
	}
	rivals := []rival{
		{"inferd", filepath.Join(dir, "inferd")},
		{"reference " + referenceVersion, reference},
	}
	if *before != "" {
		older, err := olderBuild(*before)
		if err != nil {
			return err
		}
		rivals = append(rivals, rival{older.name, filepath.Join(older.dir, "inferd")})
	}
	fmt.Fprintf(out, "%d cores, %s/%s, %s; %d rounds, a daemon at a time; median (range)\n\n", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version(), *rounds)
	fmt.Fprintf(out, "%-58s %-34s %s\n", "figure", "here", "goal")
	results, err := inTurns(rivals, *rounds, func(r rival) (rivalRun, error) {
		got, err := r.measure(ctx, *length)
		if err != nil {
			return rivalRun{}, fmt.Errorf("%s: %w", r.name, err)
		}
		return got, nil
	})
	if err != nil {
		return err
	}
	for _, f := range rivalFigures {
		ours := f.each(results[0])
		b.report(f.name, "", "%s", spread(ours))
		for i, r := range rivals[1:] {
			goal := f.goal
			if i > 0 {
				goal = ""
			}
			theirs := f.each(results[i+1])
			b.report("  of "+r.name, goal, "%s (%s)", spread(ratios(ours, theirs)), spread(theirs))
		}
	}
	return nil
}

// buildReference returns the path of the reference's program. It builds the program once, without
// an engine because only the mock is measured, and keeps it in the user's cache.
func buildReference(ctx context.Context, cargo string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	root := filepath.Join(cache, "inferd", "bench", "reference", referenceVersion)
	program := filepath.Join(root, "bin", referenceCrate)
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	fmt.Fprintf(os.Stderr, "bench reference: building %s %s, once, which takes minutes\n", referenceCrate, referenceVersion)
	if err := os.MkdirAll(root, 0o700); err != nil {
		return "", err
	}
	target := filepath.Join(root, "target")
	build := exec.CommandContext(ctx, cargo, "install", referenceCrate, "--version", referenceVersion, "--locked", "--no-default-features", "--root", root)
	build.Env = append(os.Environ(), "CARGO_TARGET_DIR="+target)
	build.Dir = root // so that cargo ignores settings in the current folder
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return "", err
	}
	return program, os.RemoveAll(target)
}

// A rival is a daemon that takes the command line of the reference: inferd, the reference, or an
// older build of inferd.
type rival struct{ name, program string }

// A rivalRun holds the figures of one run of a daemon.
type rivalRun struct {
	full, slow, paced burst // one connection: without a pause, with 50 and with 100 requests a second
	eight             burst // eight connections without a pause
}

// A burst holds the figures of short requests.
type burst struct {
	rate   float64 // requests per second
	cpu    float64 // CPU time of the daemon for a request, in µs
	wakes  float64 // wake-ups of the daemon's threads for a request
	median float64 // time from a request to the end of its answer, in µs
}

// A rivalFigure is a figure with the goal for its ratio to the reference.
type rivalFigure struct {
	figure[rivalRun]

	goal string
}

var rivalFigures = []rivalFigure{
	{figure[rivalRun]{name: "one connection: CPU of the daemon, µs a request", value: func(l rivalRun) float64 { return l.full.cpu }}, "<= 1.5, aim 1.1"},
	{figure[rivalRun]{name: "one connection: requests/s", value: func(l rivalRun) float64 { return l.full.rate }}, ">= 0.8, aim 0.9"},
	{figure[rivalRun]{name: "one connection: wake-ups a request", value: func(l rivalRun) float64 { return l.full.wakes }}, "reported only"},
	{figure[rivalRun]{name: "50 requests/s: p50, µs", value: func(l rivalRun) float64 { return l.slow.median }}, "reported only"},
	{figure[rivalRun]{name: "50 requests/s: CPU of the daemon, µs a request", value: func(l rivalRun) float64 { return l.slow.cpu }}, "reported only"},
	{figure[rivalRun]{name: "50 requests/s: wake-ups a request", value: func(l rivalRun) float64 { return l.slow.wakes }}, "reported only"},
	{figure[rivalRun]{name: "100 requests/s: p50, µs", value: func(l rivalRun) float64 { return l.paced.median }}, "reported only"},
	{figure[rivalRun]{name: "100 requests/s: CPU of the daemon, µs a request", value: func(l rivalRun) float64 { return l.paced.cpu }}, "reported only"},
	{figure[rivalRun]{name: "eight connections: requests/s", value: func(l rivalRun) float64 { return l.eight.rate }}, ">= 0.97, aim 1.00"},
	{figure[rivalRun]{name: "eight connections: CPU of the daemon, µs a request", value: func(l rivalRun) float64 { return l.eight.cpu }}, "reported only"},
}

// measure starts the daemon, measures it, and stops it.
func (r rival) measure(ctx context.Context, length time.Duration) (l rivalRun, err error) {
	d, err := r.start()
	if err != nil {
		return l, err
	}
	defer d.stop()
	if err := d.waitReady(); err != nil {
		return l, err
	}
	const warm = 300 * time.Millisecond
	if _, err := d.fire(ctx, 1, 0, warm); err != nil {
		return l, err
	}
	for _, step := range []struct {
		to          *burst
		conns, rate int
	}{{&l.full, 1, 0}, {&l.slow, 1, 50}, {&l.paced, 1, 100}, {&l.eight, 8, 0}} {
		if *step.to, err = d.fire(ctx, step.conns, step.rate, length); err != nil {
			return l, err
		}
	}
	return l, ctx.Err()
}

// start starts the daemon with a mock, in a new folder, with default settings.
func (r rival) start() (*daemon, error) {
	dir, err := os.MkdirTemp("", "if")
	if err != nil {
		return nil, err
	}
	d := &daemon{dir: dir, cmd: exec.Command(r.program, "--backend", "mock", "--lock", filepath.Join(dir, "inferd.lock"),
		"--uds", filepath.Join(dir, lpLeaf), "--admin-addr", filepath.Join(dir, "admin.sock"))}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "INFERD_") {
			d.cmd.Env = append(d.cmd.Env, v)
		}
	}
	d.cmd.Env = append(d.cmd.Env, "HOME="+dir, "INFERD_LOG_DIR="+filepath.Join(dir, "logs"))
	if err := d.cmd.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return d, nil
}

// fire sends short requests on conns connections for the given time. Each connection sends rate
// requests per second or, if rate is 0, requests without a pause.
func (d *daemon) fire(ctx context.Context, conns, rate int, length time.Duration) (l burst, err error) {
	var askers []*asker
	defer func() {
		for _, a := range askers {
			_ = a.file.Close()
		}
	}()
	for i := range conns {
		a, err := d.asker()
		if err != nil {
			return l, err
		}
		askers = append(askers, a)
		if err := askers[i].ask(); err != nil { // makes sure that the connection is accepted
			return l, err
		}
	}
	before, err := d.usage()
	if err != nil {
		return l, err
	}
	var (
		all  sync.WaitGroup
		took = make([][]time.Duration, conns)
		errs = make([]error, conns)
	)
	begin := time.Now()
	for i, a := range askers {
		all.Go(func() { took[i], errs[i] = a.run(ctx, rate, begin.Add(length)) })
	}
	all.Wait()
	lasted := time.Since(begin)
	if err := errors.Join(errs...); err != nil {
		return l, err
	}
	after, err := d.usage()
	if err != nil {
		return l, err
	}
	each := pooled(took, func(t []time.Duration) []time.Duration { return t })
	if len(each) == 0 {
		return l, errors.New("no request was answered in time")
	}
	n := float64(len(each))
	return burst{
		rate: n / lasted.Seconds(), median: float64(median(each)) / float64(time.Microsecond),
		cpu: float64(after.cpu-before.cpu) / float64(time.Microsecond) / n, wakes: float64(after.wakes-before.wakes) / n,
	}, nil
}

// An asker is a connection for short requests. Its reads and writes block a thread, so that the
// figures do not include the scheduling of goroutines in the client.
type asker struct {
	file *os.File
	r    frame.Reader
}

// shortQuestion is a short v2 request, as a frame.
var shortQuestion = func() []byte {
	const text = `{"id":"b","wire_version":1,"messages":[{"role":"user","content":[{"type":"text","text":"hello"}]}]}`
	return append(frame.AppendHead(nil, frame.JSON, len(text)), text...)
}()

func (d *daemon) asker() (*asker, error) {
	nc, err := d.dial(lpLeaf) // the socket may appear after the daemon is ready
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	file, err := nc.(*net.UnixConn).File() //nolint:errcheck // dial connects to a Unix socket
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(int(file.Fd()), false); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &asker{file: file, r: frame.Prefixed.NewReader(file, frame.Limit)}, nil
}

// ask sends a request, and reads the answer to its end.
func (a *asker) ask() error {
	if _, err := a.file.Write(shortQuestion); err != nil {
		return err
	}
	for {
		_, msg, err := a.r.ReadFrame()
		if err != nil {
			return err
		}
		switch text := string(msg); {
		case strings.Contains(text, `"type":"done"`):
			return nil
		case strings.Contains(text, `"type":"error"`):
			return fmt.Errorf("the daemon answered %s", text)
		}
	}
}

// run sends requests until the given time, at a rate per second, or without a pause if rate is 0.
// It returns how long each answer took.
func (a *asker) run(ctx context.Context, rate int, until time.Time) (took []time.Duration, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for due := time.Now(); ; {
		if rate > 0 {
			due = due.Add(time.Second / time.Duration(rate))
			time.Sleep(time.Until(due))
		}
		begin := time.Now()
		if !begin.Before(until) || ctx.Err() != nil {
			return took, ctx.Err()
		}
		if err := a.ask(); err != nil {
			return took, err
		}
		took = append(took, time.Since(begin))
	}
}

// A processUsage has the CPU time and the wake-ups of a process so far.
type processUsage struct {
	cpu   time.Duration
	wakes int64
}

// usage returns the sum for all threads of the daemon's process.
func (d *daemon) usage() (u processUsage, err error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", d.cmd.Process.Pid))
	if err != nil {
		return u, err
	}
	for _, t := range tasks {
		stat, err := os.ReadFile(filepath.Join(t, "schedstat"))
		if err != nil {
			return u, err
		}
		var ran, waited, slices int64
		if _, err := fmt.Sscan(string(stat), &ran, &waited, &slices); err != nil {
			return u, fmt.Errorf("schedstat: %w", err)
		}
		u.cpu += time.Duration(ran)
		status, err := os.ReadFile(filepath.Join(t, "status"))
		if err != nil {
			return u, err
		}
		_, rest, _ := strings.Cut(string(status), "\nvoluntary_ctxt_switches:")
		line, _, _ := strings.Cut(rest, "\n")
		n, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
		if err != nil {
			return u, fmt.Errorf("status of a thread: %w", err)
		}
		u.wakes += n
	}
	return u, nil
}
