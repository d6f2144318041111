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
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/batch"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/budget"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/chat"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/encode"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/engine"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/llama"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/progress"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/turn"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/link"
	"github.com/inferd-go/inferd/internal/proc"
	"github.com/inferd-go/inferd/internal/usage"
)

func main() {
	// Only the daemon ends an engine, by closing the link. A terminal's Ctrl-C or a
	// service manager's SIGTERM goes to every process: the daemon drains, we go on.
	signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	// What computes are C's threads. With more than one of its own processors, Go's monitor
	// wakes every few microseconds of a step to see whether the one that waits for it can be
	// had back, and takes a core from those threads each time.
	runtime.GOMAXPROCS(1)
	switch err := run(os.Args[1:], os.Stderr); {
	case errors.Is(err, flag.ErrHelp): // it has been printed
	case err != nil:
		fmt.Fprintln(os.Stderr, "inferd-engine:", err)
		os.Exit(1)
	}
}

// options is what the daemon says on the command line.
type options struct {
	parent           int
	lib, model       string
	backends         string // files in lib, separated by commas
	nCtx, nSlots     int
	embedNCtx        int
	rerankNCtx       int
	threads, nLayers int
	task, pooling    string
	maxStall         time.Duration
	turns            string // file; empty if no other engine computes here
	turn             *turn.Turn
	shared           []string // texts that conversations begin with, of the operator
}

// sharedEnv is the variable that has a JSON array of [options.shared]: a command line can be
// read by everybody.
const sharedEnv = "INFERD_ENGINE_SHARED"

func run(args []string, out io.Writer) error {
	var o options
	fs := flag.NewFlagSet("inferd-engine", flag.ContinueOnError)
	fs.SetOutput(out)
	fs.IntVar(&o.parent, "parent", 0, "`pid` of the daemon")
	fs.StringVar(&o.lib, "lib", "", "`folder` with llama.cpp's libraries")
	fs.StringVar(&o.backends, "backends", "", "`files` in that folder, separated by commas: backends to load, of CPU variants the first that fits")
	fs.StringVar(&o.model, "model", "", "GGUF `file`")
	fs.IntVar(&o.nCtx, "n-ctx", 8192, "`tokens` of context of a model that generates")
	fs.IntVar(&o.nSlots, "n-slots", 4, "`sequences` at once")
	fs.IntVar(&o.threads, "threads", 1, "compute `threads`")
	fs.IntVar(&o.embedNCtx, "embed-n-ctx", 2048, "`tokens` of context of a model that embeds")
	fs.IntVar(&o.rerankNCtx, "rerank-n-ctx", 2048, "`tokens` of context of a model that reranks")
	fs.IntVar(&o.nLayers, "n-gpu-layers", 0, "`layers` on a GPU, if there is one; negative is all")
	fs.StringVar(&o.task, "task", taskAuto, "`what` for: auto (the model says), generate, embed or rerank")
	fs.StringVar(&o.pooling, "pooling", "", "`how` vectors are pooled: mean, cls or last (default: the model says)")
	fs.StringVar(&o.turns, "turns", "", "`file` that engines lock which compute on the same cores")
	fs.DurationVar(&o.maxStall, "max-stall", 0, "`time` between two tokens of a stream while prompts are read beside it (default 100ms, or 4 steps)")
	if err := fs.Parse(args); err != nil {
		return usage.Explain(fs, err)
	}
	if texts := os.Getenv(sharedEnv); texts != "" {
		if err := json.Unmarshal([]byte(texts), &o.shared); err != nil {
			return fmt.Errorf("%s: %w", sharedEnv, err)
		}
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

// What an engine is for.
const (
	taskAuto     = "auto"
	taskGenerate = "generate"
	taskEmbed    = "embed"
	taskRerank   = "rerank"
)

// An engineOf a model answers, as long as its loop runs.
type engineOf struct {
	infer.Handler
	loop  func(context.Context) error
	share func(context.Context, string) error // nil if it has nothing to share
	stats func() link.Stats                   // may be nil
	beat  func() link.Beat
	ready link.Report
}

// serve loads the model and answers until the daemon closes the link. A load that
// fails is reported over the link: the same start would fail again, so it is no crash.
func serve(srv *link.Server, o options) error {
	eng, err := load(srv, o)
	if err != nil {
		return errors.Join(err, srv.Report(link.Report{State: link.Failed, Problem: err.Error()}))
	}
	srv.Handler, srv.Stats, srv.Beat = eng, eng.stats, eng.beat

	ctx, cancel := context.WithCancel(context.Background())
	var loop sync.WaitGroup
	loop.Go(func() { _ = eng.loop(ctx) }) // it has no error of its own
	defer loop.Wait()
	defer cancel()
	for i, text := range o.shared {
		if eng.share == nil {
			break
		}
		if err := eng.share(ctx, text); err != nil {
			err = fmt.Errorf("shared prefix %d: %w", i, err)
			return errors.Join(err, srv.Report(link.Report{State: link.Failed, Problem: err.Error()}))
		}
		if err := srv.Report(link.Report{State: link.Caching, NCtx: eng.ready.NCtx}); err != nil { // a sign of life
			return err
		}
	}
	if err := srv.Report(eng.ready); err != nil {
		return err
	}
	return srv.Serve(ctx)
}

const (
	batchTokens = 512                   // that one step decodes
	encodeTexts = 64                    // that one batch of vectors or scores has
	othersWait  = 50 * time.Millisecond // for a batch of those, roughly, if they compute on the same cores

	// Sequences that are in the cache and do not run: paused, or kept for whoever asks again.
	// A model that cannot be cut has room for a whole state in each.
	keptSequences      = 60
	keptWholeSequences = 4

	laneShare = 2 // of the context: so much more cache there is, for prompts that are read beside streams
)

func load(srv *link.Server, o options) (*engineOf, error) {
	backends := strings.FieldsFunc(o.backends, func(r rune) bool { return r == ',' }) // nil if there are none
	variant, err := llama.OpenBackends(o.lib, backends, func(variant string) error {
		return srv.Report(link.Report{State: link.Selecting, Variant: variant})
	})
	if err != nil {
		return nil, err
	}
	// llama.cpp tells of every tensor: more than a watcher of the daemon has room for.
	told, at := -1.0, time.Now()
	mapped := func(fraction float64) bool {
		if fraction < told+0.05 && fraction < 1 && time.Since(at) < time.Second || fraction == told {
			return true
		}
		told, at = fraction, time.Now()
		return srv.Report(link.Report{State: link.Mapping, Path: o.model, Progress: math.Round(100*fraction) / 100}) == nil
	}
	mapped(0)
	model, err := llama.Load(o.model, llama.Options{GPULayers: o.nLayers}, mapped)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", o.model, err)
	}
	switch {
	case o.task == taskAuto:
		o.task = taskOf(model)
	case o.task == taskEmbed && model.Generates() && o.pooling == "" && !model.HasPooling():
		o.task = taskGenerate // the daemon says so
	}
	switch o.task {
	case taskEmbed:
		o.nCtx = o.embedNCtx
	case taskRerank:
		o.nCtx = o.rerankNCtx
	}
	if o.turns != "" {
		if o.turn, err = turn.Open(o.turns); err != nil {
			return nil, err
		}
	}
	if o.task != taskGenerate {
		o.nCtx = min(o.nCtx, max(model.ContextTrained(), 1))
	}
	if err := srv.Report(link.Report{State: link.Caching, NCtx: o.nCtx}); err != nil {
		return nil, err
	}
	build := map[string]func(*link.Server, *llama.Model, options) (*engineOf, error){
		taskGenerate: writer, taskEmbed: encoder, taskRerank: encoder,
	}[o.task]
	if build == nil {
		return nil, fmt.Errorf("task %q is not known", o.task)
	}
	eng, err := build(srv, model, o)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", o.model, err)
	}
	eng.ready = link.Report{
		State: link.Ready, NCtx: o.nCtx, Slots: o.nSlots, Model: model.Name(), Device: "cpu",
		GPULayers: model.GPULayers(), Generates: model.Generates(), Variant: variant,
		Tasks: link.Tasks{Generate: o.task == taskGenerate, Embed: o.task == taskEmbed, Rerank: o.task == taskRerank},
	}
	return eng, nil
}

// taskOf is what a model was made for.
func taskOf(m *llama.Model) string {
	switch {
	case m.Ranks():
		return taskRerank
	case !m.Generates():
		return taskEmbed
	default:
		return taskGenerate
	}
}

// writer makes an engine that generates.
func writer(srv *link.Server, model *llama.Model, o options) (*engineOf, error) {
	if !model.Generates() {
		return nil, errors.New("this model does not generate text")
	}
	bos, _ := model.BOS()
	eos, _ := model.EOS()
	specials, longest := model.Spellings()
	template, err := chat.New(model.ChatTemplate(), specials, model.Spelling(bos), model.Spelling(eos))
	if err != nil {
		return nil, err
	}
	kept := keptSequences
	if !model.Cuts() {
		kept = keptWholeSequences
	}
	lctx, err := llama.NewContext(model, llama.ContextOptions{
		NCtx: o.nCtx, NBatch: batchTokens, NSeq: o.nSlots + kept, Threads: o.threads,
	})
	if err != nil {
		return nil, fmt.Errorf("make a context of %d tokens: %w", o.nCtx, err)
	}
	loop := &batch.Loop{
		Model:     lctx,
		Limits:    batch.Limits{Context: o.nCtx, Batch: batchTokens, Sequences: o.nSlots, Kept: kept, Stored: o.nCtx},
		Stall:     o.maxStall,
		Turn:      o.turn.Do,
		AfterStep: func() { _ = srv.Flush() }, // a link that fails ends Serve
		Samples:   new(budget.CPU), Threads: o.threads, FirstToken: lctx.FirstToken(),
	}
	if o.nSlots > 1 && model.Cuts() && model.GPULayers() == 0 { // somebody may be disturbed, and what is read can be handed over
		loop.Lane, err = batch.OpenLane(o.nCtx/laneShare, o.nSlots, func() (batch.LaneModel, error) {
			return llama.NewContext(model, llama.ContextOptions{
				NCtx: o.nCtx / laneShare, NBatch: batch.LaneBatch, NSeq: o.nSlots, Threads: o.threads, GivesWay: true,
			})
		})
		if err != nil {
			fmt.Fprintln(os.Stderr, "prompts are not read beside streams, but between their tokens:", err)
		}
	}
	eng := &engine.Engine{
		Model: model, Context: lctx, Template: template, LongestToken: longest, Loop: loop, Rendering: new(budget.CPU),
	}
	return &engineOf{Handler: eng, loop: loop.Run, share: eng.Share, stats: func() link.Stats {
		return statsOf(loop.Stats(), o.nCtx)
	}, beat: func() link.Beat {
		b := beatOf(loop.Progress.Report())
		addOverrun(&b, "sample", loop.Samples)
		addOverrun(&b, "render", eng.Rendering)
		return b
	}}, nil
}

// beatOf says in the words of the link how far a loop is.
func beatOf(r progress.Report) link.Beat {
	return link.Beat{
		Steps: r.Units, Phase: r.Phase.String(), SinceMS: r.Since.Milliseconds(),
		Calls: r.Calls, StepCPUMS: int64(math.Ceil(float64(r.CPU) / float64(time.Millisecond))),
	}
}

// addOverrun adds a call over its budget that still runs. Of several, a beat names the one
// that has used the most CPU time since.
func addOverrun(b *link.Beat, phase string, of *budget.CPU) {
	if since, running := of.Overrun(); running && (b.Overrun == "" || since.Milliseconds() > b.OverrunCPUMS) {
		b.Overrun, b.OverrunCPUMS = phase, since.Milliseconds()
	}
}

// statsOf says in the words of the link how a loop is.
func statsOf(s batch.Stats, nCtx int) link.Stats {
	all := link.Stats{
		KVSize: nCtx, KVUsed: s.Used, KVKept: s.Kept, KVStored: s.Stored, Sequences: s.Running + s.Held, Parked: s.Held,
		Steps: s.Steps, Stalls: s.Stalls, StepMS: float64(s.Step.Microseconds()) / 1000,
		PrefillTokens: s.Prefill, DecodeTokens: s.Decode, CachedTokens: s.Cached, Dropped: s.Dropped, Aborted: s.Aborted,
		Users: make(map[string]link.UserStats),
	}
	for user, o := range s.Owners {
		if user != "" {
			all.Users[user] = link.UserStats{KV: o.Used + o.Kept, CachedTokens: o.Cached}
		}
	}
	return all
}

// encoder makes an engine that embeds or reranks.
func encoder(_ *link.Server, model *llama.Model, o options) (*engineOf, error) {
	ranks := o.task == taskRerank
	pooling := llama.Pooling(o.pooling)
	if ranks {
		pooling = llama.Rank
	}
	lctx, err := llama.NewContext(model, llama.ContextOptions{
		NCtx: o.nCtx, NBatch: o.nCtx, NSeq: encodeTexts, Threads: o.threads, Encodes: true, Pooling: pooling,
	})
	if err != nil {
		return nil, fmt.Errorf("make a context of %d tokens: %w", o.nCtx, err)
	}
	width := model.Width()
	switch is := lctx.Pools(); {
	case ranks:
		width = 1
	case is == llama.NoPooling || is == llama.Rank:
		return nil, fmt.Errorf("the model's vectors are pooled by %q: say --llamacpp-embed-pooling, or embed_pooling", is)
	}
	_, longest := model.Spellings()
	loop := &encode.Loop{
		Model: lctx, Limits: encode.Limits{Tokens: o.nCtx, Batch: batchTokens, Sequences: encodeTexts}, Width: width,
		Turn: o.turn.Do, Threads: o.threads, FirstToken: lctx.FirstToken(),
	}
	if o.turn != nil {
		loop.Longest = othersWait
	}
	return &engineOf{
		Handler: &engine.Encoder{Model: model, Loop: loop, Ranks: ranks, LongestToken: longest},
		loop:    loop.Run,
		stats: func() link.Stats {
			s := loop.Stats()
			return link.Stats{
				Sequences: s.Sequences, Steps: s.Steps, PrefillTokens: s.Tokens, StepMS: float64(s.Step) / float64(time.Millisecond),
			}
		},
		beat: func() link.Beat { return beatOf(loop.Progress.Report()) },
	}, nil
}
