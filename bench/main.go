// Command bench measures the performance of inferd on this machine, and prints each figure beside
// its goal. It uses ratios where possible, because machines differ and their speed varies. Nearly
// all figures come from the real programs and their sockets, a few from single packages in this
// process.
//
// "bench peers" measures inferd beside the programs of llama.cpp instead (see peers.go), "bench
// reference" beside the published reference implementation (see reference.go), and "bench answers"
// compares answers bit for bit (see answers.go).
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/inferd-go/inferd/bench/load"
	"github.com/inferd-go/inferd/internal/builtin"
	"github.com/inferd-go/inferd/internal/launch"
)

func main() {
	if len(os.Args) == 1 {
		// If there is a connection, a daemon has started this program as its engine. The clock
		// engine ignores the launch contract.
		if conn, _, err := launch.Receive(); !errors.Is(err, launch.ErrByHand) {
			if err := clockEngine(conn); err != nil {
				fmt.Fprintln(os.Stderr, "clock engine:", err)
				os.Exit(1)
			}
			return
		}
	}
	if len(os.Args) == 3 && (os.Args[1] == echoFlag || os.Args[1] == echoHTTPFlag) {
		echo := echoMain
		if os.Args[1] == echoHTTPFlag {
			echo = echoHTTP
		}
		fmt.Fprintln(os.Stderr, "echo:", echo(os.Args[2]))
		os.Exit(1)
	}
	if err := dispatch(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func dispatch(args []string, out io.Writer) error {
	if len(args) > 0 {
		switch args[0] {
		case "peers":
			return runPeers(args[1:], out)
		case "reference":
			return runReference(args[1:], out)
		case "answers":
			return runAnswers(args[1:], out)
		case "load": // the process of a caller; see package load
			return load.Serve(os.Stdin, out)
		case "never-read": // the process of clients that never read; see package load
			return load.NeverRead(os.Stdin, out)
		}
	}
	return run(args, out)
}

type bench struct {
	out io.Writer
	bin string // folder of the programs
}

// newBench builds the programs into dir.
func newBench(dir string, out io.Writer) (*bench, error) {
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", dir, "./cmd/inferd", "./cmd/inferd-engine", "./cmd/inferd-engine/bareloop", "./bench")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build: %w\n%s", err, text)
	}
	return &bench{out: out, bin: dir}, nil
}

// report prints a row of the report.
func (b *bench) report(what, goal, format string, args ...any) {
	fmt.Fprintf(b.out, "%-58s %-34s %s\n", what, fmt.Sprintf(format, args...), goal)
}

func run(args []string, out io.Writer) error {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	pairs := fs.Int("pairs", 11, "`pairs` of runs, one of the bare loop and one through the socket")
	tokens := fs.Int("tokens", 64, "`tokens` of each stream")
	starts := fs.Int("starts", 11, "`times` to start the daemon")
	only := fs.Bool("perimeter", false, "measure only the figures without an engine")
	onlyHTTP := fs.Bool("http", false, "measure only the HTTP bridge")
	paced := fs.Int("paced", 3000, "`tokens` of the clock engine")
	if err := fs.Parse(args); err != nil {
		return err
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
	fmt.Fprintf(out, "%d cores, %s/%s, %s\n\n", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	fmt.Fprintf(out, "%-58s %-34s %s\n", "figure", "here", "goal")
	if *onlyHTTP {
		return b.onlyHTTP()
	}
	if err := b.perimeter(); err != nil {
		return fmt.Errorf("perimeter: %w", err)
	}
	if *only {
		return nil
	}
	if err := b.starts(*starts); err != nil {
		return fmt.Errorf("starts: %w", err)
	}
	if err := b.relay("relay a token, clock engine", "p99 <= 100 µs", *paced); err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	model, err := bigModel()
	if err != nil {
		return fmt.Errorf("big model: %w", err)
	}
	if err := b.stream(model, *pairs, *tokens, *paced); err != nil {
		return fmt.Errorf("stream: %w", err)
	}
	return b.chatRates(model)
}

// bigEdition is the folder of the cached model. It must change whenever the output of [builtin.Big]
// changes.
const bigEdition = "2"

// bigModel returns the file of a generated model with some 300 million parameters, from the user's
// cache.
func bigModel() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, "inferd", "bench", bigEdition, "big-q8_0.gguf")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "big-")
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name())
	if err := errors.Join(builtin.Big(f), f.Close()); err != nil {
		return "", err
	}
	return path, os.Rename(f.Name(), path)
}

// starts measures the time from the start of a daemon until its admin socket exists, and until it
// is ready.
func (b *bench) starts(n int) error {
	var admin, ready []time.Duration
	rss := 0
	for i := range n + 1 {
		begin := time.Now()
		d, err := b.start("--model-path", "builtin:chain")
		if err != nil {
			return err
		}
		nc, err := d.dial("admin.sock")
		if err != nil {
			return err
		}
		_ = nc.Close()
		accepts := time.Since(begin)
		if err := d.waitReady(); err != nil {
			return err
		}
		if i > 0 { // the first start fills caches
			admin, ready = append(admin, accepts), append(ready, time.Since(begin))
		}
		if i == n {
			time.Sleep(2 * time.Second) // measure the memory of an idle daemon
			if rss, err = d.memory(); err != nil {
				return err
			}
		}
		d.stop()
	}
	b.report("start to admin accepts", "<= 20 ms", "median %s, worst %s", median(admin), slices.Max(admin))
	b.report("start to ready, builtin:chain, warm", "<= 300 ms", "median %s, worst %s", median(ready), slices.Max(ready))
	b.report("memory of the idle daemon", "<= 20 MB", "%.1f MB", float64(rss)/1e6)
	return nil
}

func median[T int | float64 | time.Duration](all []T) T {
	sorted := slices.Sorted(slices.Values(all))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// percentile returns the p-th percentile by the nearest-rank method.
func percentile(all []time.Duration, p float64) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[max(0, int(math.Ceil(p/100*float64(len(sorted))))-1)]
}

// stream compares one stream over the socket with the bare loop of the same engine, and measures
// the relay while the engine computes.
func (b *bench) stream(model string, pairs, tokens, paced int) error {
	d, err := b.start("--model-path", model)
	if err != nil {
		return err
	}
	defer d.stop()
	if err := d.waitReady(); err != nil {
		return err
	}
	bare, err := b.baseline(model, runtime.NumCPU())
	if err != nil {
		return err
	}
	defer bare.stop()

	var ratios, bareRates, rates []float64
	for i := range pairs + 1 {
		// The threads of a finished computation spin for a while. Wait until they sleep.
		time.Sleep(500 * time.Millisecond)
		alone, err := bare.run(tokens, 1)
		if err != nil {
			return err
		}
		time.Sleep(500 * time.Millisecond)
		through, err := d.rate(tokens)
		if err != nil {
			return err
		}
		if i > 0 {
			ratios, bareRates, rates = append(ratios, through/alone), append(bareRates, alone), append(rates, through)
		}
	}
	b.report(fmt.Sprintf("one stream through the socket / bare loop, %d pairs", pairs), ">= 0.93, aim 0.98", "median %.3f (%.3f to %.3f)",
		median(ratios), slices.Min(ratios), slices.Max(ratios))
	b.report("  through the socket, 300 M parameters in Q8_0", "", "median %.1f tokens/s", median(rates))
	b.report("  bare loop", "", "median %.1f tokens/s", median(bareRates))

	// Keep the engine busy.
	nc, err := d.dial("infer.sock")
	if err != nil {
		return err
	}
	defer nc.Close()
	if err := ask(nc, 8000); err != nil {
		return err
	}
	return b.relay("relay a token, clock engine, another model computing", "reported only", paced)
}

// A baseline is the engine's loop in a process of its own, without a daemon, a link and a
// scheduler.
type baseline struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func (b *bench) baseline(model string, threads int) (*baseline, error) {
	l := &baseline{cmd: exec.Command(filepath.Join(b.bin, "bareloop"), "--model", model, "--threads", strconv.Itoa(threads))}
	l.cmd.Stderr = os.Stderr
	in, err := l.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	l.in, l.out = in, bufio.NewReader(out)
	return l, l.cmd.Start()
}

// run decodes n tokens of each sequence, and returns the total rate in tokens per second.
func (l *baseline) run(n, sequences int) (float64, error) {
	if _, err := fmt.Fprintln(l.in, n, sequences); err != nil {
		return 0, err
	}
	line, err := l.out.ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("bare loop: %w", err)
	}
	return strconv.ParseFloat(strings.TrimSpace(line), 64)
}

func (l *baseline) stop() {
	_ = l.in.Close()
	_ = l.cmd.Wait()
}

func ask(nc net.Conn, tokens int) error {
	_, err := fmt.Fprintf(nc, `{"id":"b","messages":[{"role":"user","content":"hello"}],"max_tokens":%d,"temperature":0}`+"\n", tokens)
	return err
}

// rate requests n tokens, and returns the rate from the first to the last one, in tokens per
// second.
func (d *daemon) rate(n int) (float64, error) {
	nc, err := d.dial("infer.sock")
	if err != nil {
		return 0, err
	}
	defer nc.Close()
	if err := ask(nc, n); err != nil {
		return 0, err
	}
	var first, last time.Time
	r := bufio.NewReader(nc)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return 0, err
		}
		var f struct {
			Type, Message string
			Usage         struct {
				Completion int `json:"completion_tokens"`
			}
		}
		if err := json.Unmarshal(line, &f); err != nil {
			return 0, err
		}
		switch f.Type {
		case "token":
			if last = time.Now(); first.IsZero() {
				first = last
			}
		case "done":
			if f.Usage.Completion < 2 {
				return 0, fmt.Errorf("an answer of only %d tokens", f.Usage.Completion)
			}
			return float64(f.Usage.Completion-1) / time.Since(first).Seconds(), nil
		default:
			return 0, errors.New(f.Message)
		}
	}
}
