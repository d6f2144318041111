package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/inferd-go/inferd/bench/load"
	"github.com/inferd-go/inferd/internal/builtin"
	"github.com/inferd-go/inferd/internal/paths"
)

// answers measures whether an answer depends only on its request: "bench answers", or make
// bench-answers. First each prompt is answered by a new engine. Then one engine answers the same
// prompts in several situations, and each answer is compared with that of the new engine bit for
// bit. The command also compares texts that are sampled with one seed, vectors and scores, and
// repeats all comparisons on engines that have the kernels of only one kind of CPU.
type answers struct {
	*bench
	ctx     context.Context //nolint:containedctx // of the command
	lib     string          // folder with the kernels of one kind of CPU
	cpu     string          // name of that kind
	exact   bool
	seeded  bool // the requests of the row "texts" have a seed
	threads int
	prompts int // number of prompts of each length
	draws   int // number of texts with one seed
	uid     int // uid of another user; 0 means this user
}

// answerTokens is the maximum number of tokens in a compared answer.
const answerTokens = 64

func runAnswers(args []string, out io.Writer) error {
	fs := flag.NewFlagSet("bench answers", flag.ContinueOnError)
	a := &answers{}
	lib := fs.String("engine-lib", paths.Default().EngineDir(), "`folder` with llama.cpp's libraries")
	cpus := fs.String("cpus", "haswell,icelake,sapphirerapids", "CPU `kinds` whose kernels are measured, by default with AVX2, AVX-512 and AMX; all lets the engine choose")
	models := fs.String("models", "real,tiny,sliding,recurrent", "`models`: real is Gemma 3 270M Q4_K_M, chain, loop, tiny, sliding and recurrent are built in, else a GGUF file")
	rows := fs.String("rows", "texts,seed,vectors", "measure only these `rows`")
	fs.BoolVar(&a.exact, "exact", false, `give the entries "exact": true`)
	fs.BoolVar(&a.seeded, "seed", false, "give the requests of row texts a seed")
	fs.IntVar(&a.prompts, "prompts", 16, "`number` of prompts of each length")
	fs.IntVar(&a.draws, "draws", 100, "`number` of texts sampled with one seed")
	fs.IntVar(&a.threads, "threads", runtime.NumCPU(), "compute `threads`")
	fs.IntVar(&a.uid, "uid", 61000, "`uid` of the other user whose requests disturb; only as root")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if a.prompts < 1 || a.draws < 2 {
		return errors.New("at least 1 prompt and 2 draws are needed")
	}
	measured, err := chooseRows(*rows)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		a.uid = 0
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a.ctx = ctx
	dir, err := os.MkdirTemp("", "answers")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // another user runs a program in it
		return err
	}
	if a.bench, err = newBench(dir, out); err != nil {
		return err
	}
	var files []subject
	for name := range strings.SplitSeq(*models, ",") {
		s, err := a.subject(name)
		if err != nil {
			return fmt.Errorf("model %s: %w", name, err)
		}
		files = append(files, s)
	}
	fmt.Fprintf(out, "%d cores, %s; %d threads, exact %t, seed %t\n\n", runtime.NumCPU(), runtime.GOARCH, a.threads, a.exact, a.seeded)
	fmt.Fprintf(out, "%-15s %-10s %-42s %-9s %-9s %-9s %-9s %-6s %s\n", "kernels", "model", "situation", "equal", "texts", "median", "largest", "other", "cached")
	var failed []string
	for cpu := range strings.SplitSeq(*cpus, ",") {
		a.cpu = cpu
		if a.lib, err = restricted(*lib, filepath.Join(dir, "lib-"+cpu), cpu); err != nil {
			return err
		}
		for _, m := range measured {
			if err := m(a, files); err != nil {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				fmt.Fprintf(out, "%-15s NOT MEASURED: %v\n", cpu, err)
				failed = append(failed, cpu)
			}
		}
	}
	if failed != nil {
		return fmt.Errorf("kernels that were not measured completely: %s", strings.Join(slices.Compact(failed), ", "))
	}
	return nil
}

var answerRows = map[string]func(*answers, []subject) error{
	"texts": (*answers).texts, "seed": (*answers).seeds, "vectors": (*answers).vectors,
}

func chooseRows(names string) ([]func(*answers, []subject) error, error) {
	var rows []func(*answers, []subject) error
	for name := range strings.SplitSeq(names, ",") {
		r := answerRows[name]
		if r == nil {
			return nil, fmt.Errorf("there is no row %q", name)
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// A subject is a model that is measured.
type subject struct {
	name  string
	file  string // GGUF file
	bytes bool   // each byte of a text is a token; otherwise roughly each word is
}

// subject returns the model with the given name on the command line.
func (a *answers) subject(name string) (subject, error) {
	written := map[string]func(io.Writer) error{"sliding": builtin.Sliding, "recurrent": builtin.Recurrent}
	switch {
	case name == "real":
		path, err := exec.Command("sh", "scripts/model.sh").Output()
		if failed, ok := errors.AsType[*exec.ExitError](err); ok {
			return subject{}, fmt.Errorf("scripts/model.sh: %w\n%s", err, failed.Stderr)
		}
		return subject{name: name, file: strings.TrimSpace(string(path))}, err
	case builtin.Has(name):
		path, err := builtin.Ensure(a.bin, name)
		return subject{name, path, true}, err
	case written[name] != nil:
		path := filepath.Join(a.bin, name+".gguf")
		f, err := os.Create(path)
		if err != nil {
			return subject{}, err
		}
		return subject{name, path, true}, errors.Join(written[name](f), f.Close())
	default:
		_, err := os.Stat(name)
		return subject{name: strings.TrimSuffix(filepath.Base(name), ".gguf"), file: name}, err
	}
}

// restricted returns a folder with links to llama.cpp's libraries in from. The folder has the
// kernels of only one kind of CPU, so an engine has no choice. If cpu is "all", restricted returns
// from.
func restricted(from, folder, cpu string) (string, error) {
	if cpu == "all" {
		return from, nil
	}
	from, err := filepath.Abs(from)
	if err != nil {
		return "", err
	}
	all, err := os.ReadDir(from)
	if err != nil {
		return "", err
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		return "", err
	}
	found := false
	for _, f := range all {
		kind, kernels := strings.CutPrefix(f.Name(), "libggml-cpu-")
		switch {
		case !kernels:
		case kind == cpu+".so":
			found = true
		default:
			continue
		}
		if err := os.Symlink(filepath.Join(from, f.Name()), filepath.Join(folder, f.Name())); err != nil {
			return "", err
		}
	}
	if !found {
		return "", fmt.Errorf("%s has no kernels for %q", from, cpu)
	}
	return folder, nil
}

// A comparison counts answers that equal those of a fresh engine.
type comparison struct {
	count  int       // number of answers
	equal  int       // answers with a first value of the same bits
	texts  int       // answers with the same text
	other  int       // answers with another first token
	values []float64 // differences of the first values
	cached int64     // tokens of prompts that were not computed
}

// A firstValue is the first token of an answer and its log probability. If ok is false, the answer
// is empty.
type firstValue struct {
	token   int
	logprob float64
	ok      bool
}

// add compares an answer with that of a fresh engine.
func (c *comparison) add(fresh, now answered) {
	c.count++
	if fresh.text == now.text {
		c.texts++
	}
	switch {
	case fresh.first.ok != now.first.ok, fresh.first.token != now.first.token:
		c.other++
	case math.Float64bits(fresh.first.logprob) == math.Float64bits(now.first.logprob):
		c.equal++
	}
	c.values = append(c.values, math.Abs(fresh.first.logprob-now.first.logprob))
}

// line prints a comparison as a row of the table.
func (a *answers) line(model, situation string, c *comparison) {
	fmt.Fprintf(a.out, "%-15s %-10s %-42s %-9s %-9s %-9.2g %-9.2g %-6d %d\n", a.cpu, model, situation,
		fmt.Sprintf("%d of %d", c.equal, c.count), fmt.Sprintf("%d of %d", c.texts, c.count), median(c.values), slices.Max(c.values), c.other, c.cached)
}

// startEntry starts a daemon with one entry for the model file, and waits until it is ready. more is
// further members of the entry, each after a comma. Other users can connect to the v2 socket.
func (a *answers) startEntry(file, more string) (*daemon, error) {
	if a.exact {
		more += `,"exact":true`
	}
	config := filepath.Join(a.bin, "answers.json")
	entry := fmt.Appendf(nil, `{"backends":[{"kind":"llamacpp","name":"gen","threads":%d,"model":{"path":%q}%s}]}`, a.threads, file, more)
	if err := os.WriteFile(config, entry, 0o600); err != nil {
		return nil, err
	}
	d, err := a.start("--config", config, "--engine-lib", a.lib)
	if err != nil {
		return nil, err
	}
	if err := d.waitReady(); err != nil {
		d.stop()
		return nil, fmt.Errorf("kernels %s: %w", a.cpu, err)
	}
	err = os.Chmod(d.dir, 0o755)
	if socket := filepath.Join(d.dir, v2Leaf); err == nil {
		if err = os.Chmod(socket, 0o666); errors.Is(err, os.ErrNotExist) { // the entry only embeds or reranks
			err = nil
		}
	}
	if err != nil {
		d.stop()
		return nil, err
	}
	return d, nil
}

// stranger starts a process that sends requests as another user or, if bench does not run as root,
// as another program.
func (a *answers) stranger() (*load.Caller, error) {
	path := filepath.Join(a.bin, "stranger")
	if _, err := os.Stat(path); err != nil {
		if err := copyFile(filepath.Join(a.bin, "bench"), path); err != nil {
			return nil, err
		}
	}
	return startCaller(path, a.uid, os.Stderr)
}

// restLimit bounds the wait until an idle engine has offloaded its retained KV.
const restLimit = time.Minute
