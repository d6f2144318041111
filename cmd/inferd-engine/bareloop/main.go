// Command bareloop decodes and samples without an engine or a daemon. In "make bench" its speed is
// the baseline for a stream through the daemon. It is not part of an installation.
//
// Each line of standard input has two numbers, tokens and sequences. For each line, bareloop
// decodes that number of sequences together, with that number of tokens each, and prints the tokens
// per second over all sequences.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/llama"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/paths"
)

// maxSequences is the maximum number of sequences at once.
const maxSequences = 8

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
	runtime.LockOSThread() // like the engine's loop
	ctx, err := llama.NewContext(model, llama.ContextOptions{NCtx: 16384, NBatch: 512, NSeq: maxSequences, Threads: *threads})
	if err != nil {
		return err
	}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		var n, sequences int
		if _, err := fmt.Sscan(lines.Text(), &n, &sequences); err != nil || n < 2 || sequences < 1 || sequences > maxSequences {
			return fmt.Errorf("%q: want two numbers, at least 2 tokens and at most %d sequences", lines.Text(), maxSequences)
		}
		rate, err := decode(model, ctx, n, sequences)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%.3f\n", rate)
	}
	return nil
}

// decode decodes n tokens of each sequence behind a short prompt. It returns the tokens per second
// from the first token to the last, over all sequences.
func decode(model *llama.Model, ctx *llama.Context, n, sequences int) (float64, error) {
	prompt, err := model.Tokenize("User: hello\nAssistant:", true)
	if err != nil {
		return 0, err
	}
	samplers := make([]*llama.Sampler, sequences)
	entries := make([]int, sequences) // by sequence: the entry of the batch with its logits
	for seq := range sequences {
		if samplers[seq], err = llama.NewSampler(model, llama.SamplerOptions{Sampling: infer.Sampling{}}); err != nil {
			return 0, err
		}
		defer samplers[seq].Free() //nolint:revive // the samplers are used until the function ends
		if err := addPrompt(ctx, prompt, seq); err != nil {
			return 0, err
		}
		entries[seq] = (seq+1)*len(prompt) - 1
	}
	var (
		piece []byte
		begin time.Time
	)
	for i := range n {
		if err := ctx.Decode(); err != nil {
			return 0, err
		}
		for seq := range sequences {
			tok, err := samplers[seq].Sample(ctx, entries[seq])
			if err != nil {
				return 0, err
			}
			piece = model.AppendPiece(piece[:0], tok)
			// Decode has emptied the batch; its logits stay until the next batch is decoded.
			entries[seq] = seq
			if err := ctx.Add(tok, len(prompt)+i, seq, true); err != nil {
				return 0, err
			}
		}
		if i == 0 {
			begin = time.Now()
		}
	}
	took := time.Since(begin)
	return float64((n-1)*sequences) / took.Seconds(), reset(ctx, sequences)
}

// addPrompt puts the prompt of a new sequence into the batch.
func addPrompt(ctx *llama.Context, prompt []llama.Token, seq int) error {
	if err := ctx.Truncate(seq, 0); err != nil {
		return err
	}
	for i, tok := range prompt {
		if err := ctx.Add(tok, i, seq, i == len(prompt)-1); err != nil {
			return err
		}
	}
	return nil
}

// reset empties the batch and the cache, because sequences left in the cache would make later ones
// slower.
func reset(ctx *llama.Context, sequences int) error {
	if err := ctx.Decode(); err != nil { // the last tokens are still in the batch
		return err
	}
	for seq := range sequences {
		if err := ctx.Truncate(seq, 0); err != nil {
			return err
		}
	}
	return nil
}
