package assemble

import (
	"errors"
	"fmt"
	"os"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/batch"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/budget"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/chat"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/engine"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/llama"
	"github.com/inferd-go/inferd/internal/link"
)

const (
	// Sequences in the cache that do not run: paused, or retained for the next request. A recurrent
	// model needs a whole state for each.
	keptSequences      = 60
	keptWholeSequences = 4

	// laneShare is the context divided by the size of the second one, for prompts that are
	// prefilled beside streams.
	laneShare = 2
)

// writer builds an engine that generates text.
func (b *builder) writer() (*assembly, error) {
	model := b.model
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
		NCtx: b.nCtx, NBatch: batchTokens, NSeq: b.contract.Slots + kept, Threads: b.contract.Threads,
	})
	if err != nil {
		return nil, fmt.Errorf("make a context of %d tokens: %w", b.nCtx, err)
	}
	loop := &batch.Loop{
		Model:     lctx,
		Limits:    batch.Limits{Context: b.nCtx, Batch: batchTokens, Sequences: b.contract.Slots, Kept: kept, Stored: b.nCtx},
		Stall:     b.contract.MaxStall(),
		Turn:      b.lock.Do,
		AfterStep: func() { _ = b.srv.Flush() }, // a link that fails ends Serve
		Samples:   new(budget.CPU), Threads: b.contract.Threads, FirstToken: lctx.FirstToken(),
	}
	if b.contract.Slots > 1 && model.Cuts() && model.GPULayers() == 0 { // streams may be disturbed, and KV state can be handed over
		loop.Lane, err = batch.OpenLane(b.nCtx/laneShare, b.contract.Slots, func() (batch.LaneModel, error) {
			return llama.NewContext(model, llama.ContextOptions{
				NCtx: b.nCtx / laneShare, NBatch: batch.LaneBatch, NSeq: b.contract.Slots, Threads: b.contract.Threads, GivesWay: true,
			})
		})
		if err != nil {
			fmt.Fprintln(os.Stderr, "prompts are not read beside streams, but between their tokens:", err)
		}
	}
	eng := &engine.Engine{
		Model: model, Context: lctx, Template: template, LongestToken: longest, Loop: loop, Rendering: new(budget.CPU),
	}
	return &assembly{
		handler: eng, loop: loop.Run, share: eng.Share, plain: template.Transcript(),
		stats: func() link.Stats { return statsOf(loop.Stats(), b.nCtx) },
		beat: func() link.Beat {
			b := beatOf(loop.Progress.Report())
			addOverrun(&b, "sample", loop.Samples)
			addOverrun(&b, "render", eng.Rendering)
			return b
		},
	}, nil
}
