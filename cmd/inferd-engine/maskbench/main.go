// Command maskbench measures schemas and masks: how many schemas of MaskBench and of the JSON
// Schema test suite get the right verdict, how long they take to compile, how much memory they
// need, and the thread CPU time of each mask over the vocabulary of a model. It also measures
// llguidance, run from Python, with the same tokens; the two are measured in turns, schema by
// schema. make bench-masks runs the command, which is not part of an installation.
//
// Only the vocabulary of the model is used; nothing is decoded.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/llama"
	"github.com/inferd-go/inferd/internal/paths"
	"github.com/inferd-go/inferd/internal/vocab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "maskbench:", err)
		os.Exit(1)
	}
}

// options are the values of the flags.
type options struct {
	maskbench, suite, vocab string
	out, differ             string
	every, most, slow       int
	bytes, json, peer, list bool
	python, lib             string
}

func parse(args []string) (o options, err error) {
	fs := flag.NewFlagSet("maskbench", flag.ContinueOnError)
	fs.StringVar(&o.maskbench, "maskbench", "", "`folder` maskbench/data of guidance-ai/jsonschemabench")
	fs.StringVar(&o.suite, "suite", "", "`folder` tests of the JSON Schema test suite")
	fs.StringVar(&o.vocab, "vocab", "", "GGUF `file` with the vocabulary")
	fs.StringVar(&o.lib, "lib", os.Getenv("INFERD_ENGINE_LIB"), "`folder` with llama.cpp's libraries")
	fs.StringVar(&o.out, "out", "", "write the report to `file`, too, as JSON")
	fs.BoolVar(&o.json, "json", false, "print the report as JSON")
	fs.BoolVar(&o.list, "list", false, "print each schema that is not right")
	fs.IntVar(&o.slow, "slow", 0, "print the `n` schemas with the slowest masks, and those with the slowest compiles")
	fs.IntVar(&o.every, "every", 1, "take each `n`th schema only")
	fs.IntVar(&o.most, "most", 0, "take no more than `n` schemas; 0 is all")
	fs.BoolVar(&o.bytes, "bytes", false, "check the instances byte by byte, without masks: fast, but without times of masks")
	fs.BoolVar(&o.peer, "llguidance", true, "also measure llguidance, if pip can install it")
	fs.StringVar(&o.differ, "differences", "", "compare the masks with those of llguidance, and write the differences to `file`")
	fs.StringVar(&o.python, "python", "python3", "the `command` for Python")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	switch {
	case fs.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	case o.maskbench == "" && o.suite == "":
		return o, errors.New("nothing to measure: give --maskbench DIR, --suite DIR or both")
	case o.vocab == "" && !o.bytes:
		return o, errors.New("masks need a vocabulary: give --vocab FILE.gguf, or --bytes")
	case o.every < 1:
		return o, errors.New("--every must be at least 1")
	}
	if o.lib == "" {
		o.lib = paths.Default().EngineDir()
	}
	return o, nil
}

func run(ctx context.Context, args []string, out io.Writer) error {
	o, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	problems, err := o.problems()
	if err != nil {
		return err
	}
	var words []vocab.Token
	if o.vocab != "" && !o.bytes {
		if words, err = readVocabulary(o.lib, o.vocab); err != nil {
			return err
		}
	}
	runtime.LockOSThread() // the CPU time of the thread is measured
	defer runtime.UnlockOSThread()
	j := newJudge(words)
	var theirs *peer
	if o.peer && j.vocab != nil {
		if theirs, err = startPeer(ctx, o.python, words, o.differ != ""); err != nil {
			fmt.Fprintln(out, "llguidance is left out:", err)
		} else {
			defer theirs.stop()
		}
	}
	r := &report{Tokens: len(words)}
	differ := newDifferences(j.vocab)
	for _, p := range problems {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		ours := j.judge(p)
		other := outcome{Verdict: absent}
		if theirs != nil {
			if other, err = theirs.judge(p, j.tokens); err != nil {
				return fmt.Errorf("llguidance: %s: %w", p.name, err)
			}
			if o.differ != "" && ours.Verdict != refused && other.Verdict != refused {
				differ.compare(p, j, other.masks)
			}
		}
		r.add(p, ours, other)
		if o.list && ours.Verdict != right {
			fmt.Fprintf(out, "%s %s: %s\n", ours.Verdict, p.name, ours.Why)
		}
	}
	if o.differ != "" {
		if err := differ.write(o.differ); err != nil {
			return err
		}
	}
	return r.write(out, o)
}

// problems reads the collections, and returns the schemas that the options select.
func (o *options) problems() (all []*problem, err error) {
	if o.maskbench != "" {
		if all, err = readMaskBench(o.maskbench); err != nil {
			return nil, err
		}
	}
	if o.suite != "" {
		tests, err := readSuite(o.suite)
		if err != nil {
			return nil, err
		}
		all = append(all, tests...)
	}
	var some []*problem
	for i := 0; i < len(all); i += o.every {
		some = append(some, all[i])
	}
	if o.most > 0 && len(some) > o.most {
		some = some[:o.most]
	}
	return some, nil
}

// readVocabulary reads the tokens of a model.
func readVocabulary(lib, file string) ([]vocab.Token, error) {
	if err := llama.Open(lib); err != nil {
		return nil, err
	}
	model, err := llama.Load(file, llama.Options{}, nil)
	if err != nil {
		return nil, err
	}
	defer model.Close()
	tokens, _ := model.Vocabulary(nil)
	return tokens, nil
}
