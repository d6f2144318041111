// Command bareloop decodes and samples with nothing around it: the figure that a stream
// through the daemon is compared with in "make bench". It is not part of an installation.
//
// It reads numbers from standard input, a line each, writes that many tokens, and prints
// how many it wrote a second.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/llama"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/paths"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bareloop:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	fs := flag.NewFlagSet("bareloop", flag.ContinueOnError)
	lib := fs.String("lib", os.Getenv("INFERD_ENGINE_LIB"), "`folder` with llama.cpp's libraries")
	path := fs.String("model", "", "GGUF `file`")
	threads := fs.Int("threads", 1, "compute `threads`")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *lib == "" {
		*lib = paths.Default().EngineDir()
	}
	if err := llama.Open(*lib); err != nil {
		return err
	}
	model, err := llama.Load(*path, llama.Options{}, nil)
	if err != nil {
		return err
	}
	runtime.LockOSThread() // as the engine's loop does
	ctx, err := llama.NewContext(model, llama.ContextOptions{NCtx: 8192, NBatch: 512, NSeq: 4, Threads: *threads})
	if err != nil {
		return err
	}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		n, err := strconv.Atoi(strings.TrimSpace(lines.Text()))
		if err != nil {
			return err
		}
		rate, err := decode(model, ctx, n)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%.3f\n", rate)
	}
	return nil
}

// decode writes n tokens behind a short prompt. It counts from the first to the last.
func decode(model *llama.Model, ctx *llama.Context, n int) (float64, error) {
	if err := ctx.ClearSeq(0); err != nil {
		return 0, err
	}
	sampler, err := llama.NewSampler(model, llama.SamplerOptions{Sampling: infer.Sampling{}})
	if err != nil {
		return 0, err
	}
	defer sampler.Free()
	prompt, err := model.Tokenize("User: hello\nAssistant:", true)
	if err != nil {
		return 0, err
	}
	for i, tok := range prompt {
		if err := ctx.Add(tok, i, 0, i == len(prompt)-1); err != nil {
			return 0, err
		}
	}
	var (
		piece []byte
		begin time.Time
		last  = len(prompt) - 1
	)
	for i := range n {
		if err := ctx.Decode(); err != nil {
			return 0, err
		}
		tok, err := sampler.Sample(ctx, last)
		if err != nil {
			return 0, err
		}
		piece = model.AppendPiece(piece[:0], tok)
		if i == 0 {
			begin = time.Now()
		}
		last = 0
		if err := ctx.Add(tok, len(prompt)+i, 0, true); err != nil {
			return 0, err
		}
	}
	took := time.Since(begin)
	return float64(n-1) / took.Seconds(), ctx.Decode() // the token that is still in the batch
}
