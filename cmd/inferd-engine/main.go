// Command inferd-engine runs one model for inferd, in a process of its own: if
// llama.cpp crashes, it crashes here. It is started by inferd, which talks to it over
// an inherited socket; people do not run it by hand.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/batch"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/chat"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/engine"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/llama"
	"github.com/inferd-go/inferd/internal/link"
	"github.com/inferd-go/inferd/internal/proc"
)

func main() {
	// Only the daemon ends an engine, by closing the link. A terminal's Ctrl-C or a
	// service manager's SIGTERM goes to every process: the daemon drains, we go on.
	signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	if err := run(os.Args[1:], os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "inferd-engine:", err)
		os.Exit(1)
	}
}

// options is what the daemon says on the command line.
type options struct {
	parent           int
	lib, model       string
	nCtx, nSlots     int
	threads, nLayers int
}

func run(args []string, out io.Writer) error {
	var o options
	fs := flag.NewFlagSet("inferd-engine", flag.ContinueOnError)
	fs.SetOutput(out)
	fs.IntVar(&o.parent, "parent", 0, "`pid` of the daemon")
	fs.StringVar(&o.lib, "lib", "", "`folder` with llama.cpp's libraries")
	fs.StringVar(&o.model, "model", "", "GGUF `file`")
	fs.IntVar(&o.nCtx, "n-ctx", 8192, "`tokens` of context")
	fs.IntVar(&o.nSlots, "n-slots", 4, "`sequences` at once")
	fs.IntVar(&o.threads, "threads", 1, "compute `threads`")
	fs.IntVar(&o.nLayers, "n-gpu-layers", 0, "`layers` on a GPU")
	if err := fs.Parse(args); err != nil {
		return err
	}
	conn, err := proc.InheritedConn()
	if err != nil {
		return err
	}
	if proc.ParentGone(o.parent) {
		return errors.New("the daemon has gone")
	}
	srv := &link.Server{Conn: conn, Deferred: true}
	return serve(srv, o)
}

// serve loads the model and answers until the daemon closes the link. A load that
// fails is reported over the link: the same start would fail again, so it is no crash.
func serve(srv *link.Server, o options) error {
	eng, err := load(srv, o)
	if err != nil {
		return errors.Join(err, srv.Report(link.Report{State: link.Failed, Problem: err.Error()}))
	}
	srv.Handler = eng
	eng.Loop.AfterStep = func() { _ = srv.Flush() } // a link that fails ends Serve

	ctx, cancel := context.WithCancel(context.Background())
	var loop sync.WaitGroup
	loop.Go(func() { _ = eng.Loop.Run(ctx) }) // it has no error of its own
	defer loop.Wait()
	defer cancel()
	if err := srv.Report(link.Report{
		State: link.Ready, NCtx: o.nCtx, Slots: o.nSlots, Model: eng.Model.Name(), Device: "cpu",
	}); err != nil {
		return err
	}
	return srv.Serve(ctx)
}

const (
	batchTokens = 512 // that one step decodes
	chunkTokens = 128 // of prompts beside somebody who is writing
)

func load(srv *link.Server, o options) (*engine.Engine, error) {
	if err := llama.Open(o.lib); err != nil {
		return nil, err
	}
	// llama.cpp tells of every tensor: more than a watcher of the daemon has room for.
	told, at := -1.0, time.Now()
	progress := func(fraction float64) bool {
		if fraction < told+0.05 && fraction < 1 && time.Since(at) < time.Second || fraction == told {
			return true
		}
		told, at = fraction, time.Now()
		return srv.Report(link.Report{State: link.Mapping, Path: o.model, Progress: math.Round(100*fraction) / 100}) == nil
	}
	progress(0)
	model, err := llama.Load(o.model, llama.Options{GPULayers: o.nLayers}, progress)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", o.model, err)
	}
	if !model.Generates() {
		return nil, fmt.Errorf("load %s: this model does not generate text", o.model)
	}
	bos, _ := model.BOS()
	eos, _ := model.EOS()
	specials, longest := model.Spellings()
	template, err := chat.New(model.ChatTemplate(), specials, model.Spelling(bos), model.Spelling(eos))
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", o.model, err)
	}
	if err := srv.Report(link.Report{State: link.Caching, NCtx: o.nCtx}); err != nil {
		return nil, err
	}
	limits := batch.Limits{Context: o.nCtx, Batch: batchTokens, Sequences: o.nSlots, Chunk: chunkTokens}
	lctx, err := llama.NewContext(model, llama.ContextOptions{
		NCtx: o.nCtx, NBatch: batchTokens, NSeq: o.nSlots, Threads: o.threads,
	})
	if err != nil {
		return nil, fmt.Errorf("make a context of %d tokens: %w", o.nCtx, err)
	}
	return &engine.Engine{
		Model: model, Context: lctx, Template: template, LongestToken: longest,
		Loop: &batch.Loop{Model: lctx, Limits: limits},
	}, nil
}
