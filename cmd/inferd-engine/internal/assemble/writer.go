package assemble

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/inferd-go/inferd/client/stats"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/batch"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/budget"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/chat"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/constraint"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/engine"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/llama"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/prefill"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/schedule"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/speech"
	"github.com/inferd-go/inferd/internal/link"
)

const (
	// Maximum numbers of paused and retained sequences in the cache: retainedStates for a recurrent
	// model, which needs a whole state for each sequence, retainedSequences for others.
	retainedSequences = 60
	retainedStates    = 4

	// The prefill worker's context has 1/prefillShare of the tokens of the engine's context.
	prefillShare = 2
)

// writer builds the part that generates text.
func (b *builder) writer(nCtx int) (*part, error) {
	model := b.model
	bos, _ := model.BOS()
	eos, _ := model.EOS()
	texts := model.TokenTexts()
	template, err := chat.New(model.ChatTemplate(), texts.Specials, model.TokenText(bos), model.TokenText(eos))
	if err != nil {
		return nil, err
	}
	retained := retainedSequences
	if !model.CanTruncate() {
		retained = retainedStates
	}
	lctx, err := llama.NewContext(model, llama.ContextOptions{
		NCtx: nCtx, NBatch: batchTokens, NSeq: b.contract.Slots + retained, Threads: b.contract.Threads, Exact: b.contract.Exact,
	})
	if err != nil {
		return nil, fmt.Errorf("make a context of %d tokens: %w", nCtx, err)
	}
	inexact := ""
	if b.contract.Exact {
		inexact = lctx.Inexact()
	}
	loop := &batch.Loop{
		Decoder: lctx, Memory: lctx, Whole: !model.CanTruncate(), Piece: lctx.Piece(),
		Limits:    batch.Limits{Context: nCtx - spare(lctx.Pairs()), Batch: batchTokens, Sequences: b.contract.Slots, Retained: retained, Offloaded: nCtx},
		Exact:     b.contract.Exact && inexact == "",
		Stall:     b.contract.MaxStall(),
		Exclusive: b.exclusion.Do,
		AfterStep: func() { _ = b.srv.Flush() }, // a link that fails ends Serve
		Threads:   b.contract.Threads, FirstToken: lctx.FirstToken(),
	}
	if b.contract.Slots > 1 && model.CanTruncate() && model.GPULayers() == 0 { // otherwise no stream is delayed, or KV state cannot be moved between contexts
		loop.Prefill, err = b.prefillWorker(nCtx, lctx.Pairs())
		if err != nil {
			fmt.Fprintln(os.Stderr, "the prefill worker has not started, so long prompts delay other answers:", err)
		}
	}
	eng := &engine.Engine{
		Model: model, Context: lctx, Template: template, LongestToken: texts.Longest, Loop: loop, Rendering: new(budget.CPU),
		Formats: &constraint.Compiler{Model: model}, Dialect: template.Dialect(), Markers: speech.NewMarkers(texts.Markers), Ends: texts.Ends,
		Counter: engine.NewCounter(),
	}
	return &part{
		handler: eng, loop: runBeside(loop.Run, eng.Counter.Run), progress: &loop.Progress, share: eng.Share, prepare: eng.Formats.Load, plain: template.Transcript(), inexact: inexact,
		stats: func() stats.Engine {
			now := loop.Stats().Engine
			now.KVSize = nCtx
			return now
		},
		overrun: func(b *link.Beat) {
			addOverrun(b, "render", eng.Rendering)
			addOverrun(b, "render", &eng.Counter.CPU)
		},
	}, nil
}

// runBeside returns a function that runs loop, and other in a goroutine beside it. When loop returns,
// the function cancels the context of other and waits for it.
func runBeside(loop func(context.Context) error, other func(context.Context)) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		var running sync.WaitGroup
		defer running.Wait()
		defer cancel()
		running.Go(func() { other(ctx) })
		return loop(ctx)
	}
}

// prefillWorker starts a worker that prefills long prompts beside the steps.
func (b *builder) prefillWorker(nCtx int, pairs bool) (*prefill.Worker, error) {
	return prefill.Start(nCtx/prefillShare-spare(pairs), b.contract.Slots, func() (prefill.Context, error) {
		c, err := llama.NewContext(b.model, llama.ContextOptions{
			NCtx: nCtx / prefillShare, NBatch: schedule.ChunkTokens, NSeq: prefill.Sequences(b.contract.Slots),
			Threads: b.contract.Threads, IdlePriority: true, Exact: b.contract.Exact, Pairs: pairs,
		})
		if err != nil {
			return prefill.Context{}, err
		}
		return prefill.Context{Decoder: c, Memory: c, Piece: c.Piece(), Close: c.Close}, nil
	})
}

// spare returns the number of cells to keep free for the second token of a batch; see
// [llama.Context.Pairs].
func spare(pairs bool) int {
	if pairs {
		return 1
	}
	return 0
}
