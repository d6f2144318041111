package assemble

import (
	"fmt"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/encode"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/engine"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/llama"
)

const (
	encodeTexts = 64 // maximum number of texts in a batch
	// othersWait is the target for the maximum time of a batch of several texts, if other loops or
	// engines compute on the same cores.
	othersWait = 50 * time.Millisecond
)

// embedder builds the part that embeds.
func (b *builder) embedder(nCtx int) (*part, error) {
	pooling := llama.Pooling(b.contract.Pooling)
	var warnings []string
	if pooling == llama.OwnPooling && b.model.IsGenerative() && !b.model.HasPooling() {
		pooling = llama.Mean
		warnings = append(warnings, "the model's file does not say how vectors are pooled: they are the mean over the tokens (embed_pooling: mean, cls or last)")
	}
	p, err := b.encoder(nCtx, pooling)
	if err != nil {
		return nil, err
	}
	p.warnings = warnings
	return p, nil
}

// reranker builds the part that reranks.
func (b *builder) reranker(nCtx int) (*part, error) {
	p, err := b.encoder(nCtx, llama.Rank)
	if err != nil {
		return nil, err
	}
	if !b.model.IsReranker() {
		p.warnings = append(p.warnings, "the model's file does not say that the model was trained to rank: its scores may mean nothing")
	}
	return p, nil
}

// encoder builds a part that embeds or, with [llama.Rank] as pooling, reranks.
func (b *builder) encoder(nCtx int, pooling llama.Pooling) (*part, error) {
	model, ranks := b.model, pooling == llama.Rank
	texts := encodeTexts
	lctx, err := llama.NewContext(model, llama.ContextOptions{
		NCtx: nCtx, NBatch: nCtx, NSeq: texts, Threads: b.contract.Threads, Encodes: true, Pooling: pooling,
	})
	if err != nil {
		return nil, fmt.Errorf("make a context of %d tokens: %w", nCtx, err)
	}
	width := model.Width()
	switch actual := lctx.Pooling(); {
	case ranks:
		width = 1
	case actual == llama.NoPooling || actual == llama.Rank:
		return nil, fmt.Errorf("the model's vectors are pooled by %q: set --llamacpp-embed-pooling, or embed_pooling", actual)
	}
	longest := model.TokenTexts().Longest
	if lctx.OneByOne() || b.contract.Exact { // otherwise results depend on each other: several texts are pooled in one matrix product
		texts = 1
	}
	loop := &encode.Loop{
		Model: lctx, Limits: encode.Limits{Tokens: nCtx, Batch: batchTokens, Sequences: texts}, Width: width,
		Exclusive: b.exclusion.Do, Threads: b.contract.Threads, FirstToken: lctx.FirstToken(),
	}
	if b.exclusion.shared() {
		loop.Longest = othersWait
	}
	inexact := ""
	if model.GPULayers() > 0 {
		inexact = "a GPU computes"
	}
	return &part{
		inexact:  inexact,
		handler:  &engine.Encoder{Model: model, Loop: loop, Ranks: ranks, LongestToken: longest},
		loop:     loop.Run,
		progress: &loop.Progress,
		stats:    loop.Stats,
	}, nil
}
