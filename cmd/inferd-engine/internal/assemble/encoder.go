package assemble

import (
	"fmt"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/encode"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/engine"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/llama"
	"github.com/inferd-go/inferd/internal/launch"
	"github.com/inferd-go/inferd/internal/link"
)

const (
	encodeTexts = 64 // in one batch of vectors or scores
	// othersWait is roughly the longest batch, if other engines compute on the same cores.
	othersWait = 50 * time.Millisecond
)

// encoder builds an engine that embeds or reranks.
func (b *builder) encoder() (*assembly, error) {
	model := b.model
	ranks := b.task == launch.Rerank
	pooling := llama.Pooling(b.contract.Pooling)
	if ranks {
		pooling = llama.Rank
	}
	lctx, err := llama.NewContext(model, llama.ContextOptions{
		NCtx: b.nCtx, NBatch: b.nCtx, NSeq: encodeTexts, Threads: b.contract.Threads, Encodes: true, Pooling: pooling,
	})
	if err != nil {
		return nil, fmt.Errorf("make a context of %d tokens: %w", b.nCtx, err)
	}
	width := model.Width()
	switch is := lctx.Pools(); {
	case ranks:
		width = 1
	case is == llama.NoPooling || is == llama.Rank:
		return nil, fmt.Errorf("the model's vectors are pooled by %q: say --llamacpp-embed-pooling, or embed_pooling", is)
	}
	_, longest := model.Spellings()
	texts := encodeTexts
	if lctx.OneByOne() {
		texts = 1
	}
	loop := &encode.Loop{
		Model: lctx, Limits: encode.Limits{Tokens: b.nCtx, Batch: batchTokens, Sequences: texts}, Width: width,
		Exclusive: b.lock.Do, Threads: b.contract.Threads, FirstToken: lctx.FirstToken(),
	}
	if b.lock != nil {
		loop.Longest = othersWait
	}
	return &assembly{
		handler: &engine.Encoder{Model: model, Loop: loop, Ranks: ranks, LongestToken: longest},
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
