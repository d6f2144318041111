// Package assemble builds the engine that a launch contract describes: it loads the libraries
// and the model, makes contexts and loops, and connects them to the link. It knows how the
// parts of an engine depend on each other; it does not know how they work, nor how the process
// was started.
package assemble

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"sync"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/computelock"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/engine"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/llama"
	"github.com/inferd-go/inferd/internal/launch"
	"github.com/inferd-go/inferd/internal/link"
)

// batchTokens is the number of tokens that one step decodes at most.
const batchTokens = 512

// Run loads the model of a contract and answers over conn until the daemon closes it. A load
// that fails is reported over conn, too: the next start would fail the same way, so it is no
// crash.
func Run(conn net.Conn, c *launch.Contract) error {
	srv := &link.Server{Conn: conn, Deferred: true}
	eng, err := load(srv, c)
	if err != nil {
		return refuse(srv, err)
	}
	srv.Handler, srv.Stats, srv.Beat = eng.handler, eng.stats, eng.beat

	ctx, cancel := context.WithCancel(context.Background())
	var loop sync.WaitGroup
	loop.Go(func() { _ = eng.loop(ctx) }) // it has no error of its own
	defer loop.Wait()
	defer cancel()
	if eng.share != nil {
		for i, text := range c.SharedPrefixes {
			if err := eng.share(ctx, text); err != nil {
				return refuse(srv, fmt.Errorf("shared prefix %d: %w", i, err))
			}
			if err := srv.Report(link.Report{State: link.Caching, NCtx: eng.ready.NCtx}); err != nil { // a sign of life
				return err
			}
		}
	}
	if err := srv.Report(eng.ready); err != nil {
		return err
	}
	return srv.Serve(ctx)
}

// Refuse tells the daemon at the other end of conn why its engine does not start, and returns
// that reason.
func Refuse(conn net.Conn, reason error) error { return refuse(&link.Server{Conn: conn}, reason) }

func refuse(srv *link.Server, reason error) error {
	return errors.Join(reason, srv.Report(link.Report{State: link.Failed, Problem: reason.Error()}))
}

// An assembly is a loaded engine. It answers while its loop runs.
type assembly struct {
	handler engine.Handler
	loop    func(context.Context) error
	share   func(context.Context, string) error // decodes a shared prefix; nil if there is no cache of prefixes
	stats   func() link.Stats
	beat    func() link.Beat
	plain   bool // conversations are rendered as plain text: the model has no chat template
	ready   link.Report
}

// A builder has the inputs of an engine.
type builder struct {
	srv      *link.Server
	contract *launch.Contract
	model    *llama.Model
	task     launch.Task // never Auto
	nCtx     int
	lock     *computelock.Lock // nil if no other engine computes on the same cores
}

func load(srv *link.Server, c *launch.Contract) (*assembly, error) {
	variant, err := llama.OpenBackends(c.LibDir, c.Backends, func(variant string) error {
		return srv.Report(link.Report{State: link.Selecting, Variant: variant})
	})
	if err != nil {
		return nil, err
	}
	model, err := llama.Load(c.Model.Path, llama.Options{Files: c.Model.Files, GPULayers: c.GPULayers}, mapping(srv, c.Model.Path))
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", c.Model.Path, err)
	}
	b := &builder{srv: srv, contract: c, model: model}
	b.task, b.nCtx = choose(c, model)
	if c.ComputeLock != "" {
		if b.lock, err = computelock.Open(c.ComputeLock); err != nil {
			return nil, err
		}
	}
	if err := srv.Report(link.Report{State: link.Caching, NCtx: b.nCtx}); err != nil {
		return nil, err
	}
	build := b.encoder
	if b.task == launch.Generate {
		build = b.writer
	}
	eng, err := build()
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", c.Model.Path, err)
	}
	eng.ready = link.Report{
		State: link.Ready, NCtx: b.nCtx, Slots: c.Slots, Model: model.Name(), Device: "cpu",
		GPULayers: model.GPULayers(), Generates: model.Generates(), NoTemplate: eng.plain, Variant: variant,
		Abilities: eng.handler.Abilities(),
	}
	return eng, nil
}

// mapping returns a callback that reports the progress of a load to the daemon. llama.cpp
// calls it for every tensor, which is more than a watcher of the daemon can take.
func mapping(srv *link.Server, path string) func(fraction float64) bool {
	told, at := -1.0, time.Now()
	report := func(fraction float64) bool {
		if fraction < told+0.05 && fraction < 1 && time.Since(at) < time.Second || fraction == told {
			return true
		}
		told, at = fraction, time.Now()
		return srv.Report(link.Report{State: link.Mapping, Path: path, Progress: math.Round(100*fraction) / 100}) == nil
	}
	report(0)
	return report
}

// choose returns the task of a model and the tokens of its context.
func choose(c *launch.Contract, model *llama.Model) (task launch.Task, nCtx int) {
	task = c.Task
	switch {
	case task == launch.Auto && model.Ranks():
		task = launch.Rerank
	case task == launch.Auto && !model.Generates():
		task = launch.Embed
	case task == launch.Auto:
		task = launch.Generate
	case task == launch.Embed && model.Generates() && c.Pooling == "" && !model.HasPooling():
		task = launch.Generate // the daemon warns of it
	}
	trained := max(model.ContextTrained(), 1)
	switch task {
	case launch.Embed:
		return task, min(c.EmbedNCtx, trained)
	case launch.Rerank:
		return task, min(c.RerankNCtx, trained)
	default:
		return task, c.NCtx
	}
}
