// Package assemble builds the engine that a launch contract describes: it loads the libraries
// and the model, makes contexts and loops, and connects them to the link. It has the dependencies
// between the parts of an engine, but neither their work nor the start of the process.
package assemble

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"sync"
	"time"

	"github.com/inferd-go/inferd/client/stats"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/computelock"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/engine"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/llama"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/progress"
	"github.com/inferd-go/inferd/internal/launch"
	"github.com/inferd-go/inferd/internal/link"
)

// batchTokens is the maximum number of tokens in one step.
const batchTokens = 512

// Run loads the model of a contract and answers over conn until the daemon closes it. It also
// reports a failure to load over conn, so that the daemon does not count it as a crash: the next
// start would fail in the same way.
func Run(conn net.Conn, c *launch.Contract) error {
	srv := &link.Server{Conn: conn, Deferred: true}
	eng, err := load(srv, c)
	if err != nil {
		return refuse(srv, err)
	}
	srv.Handler, srv.Stats, srv.Beat = eng.handler(), eng.stats, eng.beat

	ctx, cancel := context.WithCancel(context.Background())
	var loops sync.WaitGroup
	for _, p := range eng.parts {
		loops.Go(func() { _ = p.loop(ctx) }) // the loop reports its errors to the calls
	}
	defer loops.Wait()
	defer cancel()
	if err := eng.share(ctx, c.SharedPrefixes); err != nil {
		return refuse(srv, err)
	}
	if err := srv.Report(eng.ready); err != nil {
		return err
	}
	for _, p := range eng.parts {
		if p.prepare != nil {
			loops.Go(p.prepare)
		}
	}
	return srv.Serve(ctx)
}

// Refuse reports to the daemon at the other end of conn the reason why its engine does not start,
// and returns that reason.
func Refuse(conn net.Conn, reason error) error { return refuse(&link.Server{Conn: conn}, reason) }

func refuse(srv *link.Server, reason error) error {
	return errors.Join(reason, srv.Report(link.Report{State: link.Failed, Problem: reason.Error()}))
}

// A part does one task of an engine. It answers while its loop runs.
type part struct {
	handler  engine.Handler
	loop     func(context.Context) error
	progress *progress.Progress // of the loop
	stats    func() stats.Engine
	share    func(context.Context, string) error // decodes a shared prefix; nil if there is no cache of prefixes
	prepare  func()                              // called once the engine is ready: prepares for later requests, for up to a second, and yields; may be nil
	overrun  func(*link.Beat)                    // adds calls over their budget to a beat; nil if the part has no budgets
	plain    bool                                // conversations are rendered as plain text: the model has no chat template
	nCtx     int
	inexact  string   // the reason why answers are not exact; empty if they are, or if the contract does not request exact answers
	warnings []string // for the operator
}

// An assembly is a loaded engine: one part or more, on one model.
type assembly struct {
	parts []*part
	ready link.Report
	srv   *link.Server
}

// share decodes the shared prefixes of a contract with the first part, and reports progress after
// each.
func (a *assembly) share(ctx context.Context, texts []string) error {
	first := a.parts[0]
	for i, text := range texts {
		if first.share == nil {
			return errors.New("shared prefixes: this engine does not generate text")
		}
		if err := first.share(ctx, text); err != nil {
			return fmt.Errorf("shared prefix %d: %w", i, err)
		}
		if err := a.srv.Report(link.Report{State: link.Caching, NCtx: first.nCtx}); err != nil { // a report of progress
			return err
		}
	}
	return nil
}

// A builder builds the parts of one engine.
type builder struct {
	srv       *link.Server
	contract  *launch.Contract
	model     *llama.Model
	exclusion exclusion
}

func load(srv *link.Server, c *launch.Contract) (*assembly, error) {
	variant, err := llama.OpenBackends(c.LibDir, c.Backends, func(variant string) error {
		return srv.Report(link.Report{State: link.Selecting, Variant: variant})
	})
	if err != nil {
		return nil, err
	}
	model, err := llama.Load(c.Model.Path, llama.Options{Files: c.Model.Files, Name: c.Model.Name, GPULayers: c.GPULayers, Exact: c.Exact, Variant: variant}, mapping(srv, c.Model.Path))
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", c.Model.Path, err)
	}
	b := &builder{srv: srv, contract: c, model: model}
	if c.ComputeLock != "" {
		if b.exclusion.lock, err = computelock.Open(c.ComputeLock); err != nil {
			return nil, err
		}
	}
	eng := &assembly{srv: srv, ready: link.Report{
		State: link.Ready, Slots: c.Slots, Model: model.Name(), Device: "cpu", GPULayers: model.GPULayers(), Variant: variant,
		Template: model.ChatTemplate(),
		Params:   model.Params(), Size: model.Size(), Architecture: model.Architecture(), Quantization: model.Quantization(),
	}}
	if eng.parts, err = b.parts(); err != nil {
		return nil, fmt.Errorf("load %s: %w", c.Model.Path, err)
	}
	if c.Exact {
		for _, p := range eng.parts {
			eng.ready.Inexact = cmp.Or(eng.ready.Inexact, p.inexact)
		}
		eng.ready.Exact = eng.ready.Inexact == ""
	}
	eng.ready.NCtx = eng.parts[0].nCtx
	eng.ready.Abilities = eng.handler().Abilities()
	for _, p := range eng.parts {
		eng.ready.NoTemplate = eng.ready.NoTemplate || p.plain
		eng.ready.Warnings = append(eng.ready.Warnings, p.warnings...)
		switch can := p.handler.Abilities(); {
		case can.Embed:
			eng.ready.EmbedNCtx = p.nCtx
		case can.Rerank:
			eng.ready.RerankNCtx = p.nCtx
		}
	}
	return eng, nil
}

// parts builds a part for each task.
func (b *builder) parts() (all []*part, err error) {
	tasks, err := choose(b.contract.Tasks, b.model.IsGenerative(), b.model.IsReranker())
	if err != nil {
		return nil, err
	}
	if tasks.several() {
		b.exclusion.computing = make(chan struct{}, 1)
	}
	trained := max(b.model.ContextTrained(), 1)
	for _, task := range []struct {
		wanted bool
		nCtx   int
		build  func(nCtx int) (*part, error)
	}{
		{tasks.generate, b.contract.NCtx, b.writer},
		{tasks.embed, min(b.contract.EmbedNCtx, trained), b.embedder},
		{tasks.rerank, min(b.contract.RerankNCtx, trained), b.reranker},
	} {
		if !task.wanted {
			continue
		}
		if err := b.srv.Report(link.Report{State: link.Caching, NCtx: task.nCtx}); err != nil {
			return nil, err
		}
		p, err := task.build(task.nCtx)
		if err != nil {
			return nil, err
		}
		p.nCtx = task.nCtx
		all = append(all, p)
	}
	return all, nil
}

// mapping returns a callback that reports the progress of a load to the daemon. llama.cpp calls it
// for every tensor; it reports only every 5 %, and at least once a second, so that the daemon's
// clients can keep up.
func mapping(srv *link.Server, path string) func(fraction float64) bool {
	reported, reportedAt := -1.0, time.Now()
	report := func(fraction float64) bool {
		if fraction < reported+0.05 && fraction < 1 && time.Since(reportedAt) < time.Second || fraction == reported {
			return true
		}
		reported, reportedAt = fraction, time.Now()
		return srv.Report(link.Report{State: link.Mapping, Path: path, Progress: math.Round(100*fraction) / 100}) == nil
	}
	report(0)
	return report
}
