package llama

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"

	yzma "github.com/hybridgroup/yzma/pkg/llama"

	"github.com/inferd-go/inferd/internal/infer"
)

// penaltyWindow is how many of the last tokens the penalties look at: llama.cpp's usual.
const penaltyWindow = 64

// SamplerOptions say how tokens are chosen.
type SamplerOptions struct {
	infer.Sampling
	Grammar string // GBNF with start symbol "root"; empty is none
}

// A Sampler chooses the tokens of one sequence. It remembers what it has chosen. It may be
// made on any thread, and is used on the context's.
type Sampler struct{ chain yzma.Sampler }

// NewSampler makes a sampler: grammar, penalties, top-k, top-p, min-p, temperature, and a
// draw, in this order. An error is about the grammar; what is wrong with it llama.cpp
// tells standard error only.
func NewSampler(m *Model, opt SamplerOptions) (*Sampler, error) {
	s := &Sampler{chain: yzma.SamplerChainInit(yzma.SamplerChainParams{NoPerf: 1})}
	if opt.Grammar != "" {
		grammar := yzma.SamplerInitGrammar(m.vocab, opt.Grammar, "root")
		if grammar == 0 {
			s.Free()
			return nil, errors.New("grammar: it does not parse")
		}
		yzma.SamplerChainAdd(s.chain, grammar)
	}
	repeat := opt.RepeatPenalty
	if repeat == 0 {
		repeat = 1
	}
	if repeat != 1 || opt.FrequencyPenalty != 0 || opt.PresencePenalty != 0 {
		yzma.SamplerChainAdd(s.chain, yzma.SamplerInitPenalties(int32(m.size), penaltyWindow,
			float32(repeat), float32(opt.FrequencyPenalty), float32(opt.PresencePenalty)))
	}
	if opt.Temperature == 0 {
		yzma.SamplerChainAdd(s.chain, yzma.SamplerInitGreedy())
		return s, nil
	}
	if opt.TopK > 0 {
		yzma.SamplerChainAdd(s.chain, yzma.SamplerInitTopK(int32(min(opt.TopK, m.size))))
	}
	if opt.TopP > 0 && opt.TopP < 1 {
		yzma.SamplerChainAdd(s.chain, yzma.SamplerInitTopP(float32(opt.TopP), 1))
	}
	if opt.MinP > 0 {
		yzma.SamplerChainAdd(s.chain, yzma.SamplerInitMinP(float32(opt.MinP), 1))
	}
	seed := rand.Uint32() //nolint:gosec // a draw, not a secret
	if opt.Seed != nil {
		seed = *opt.Seed
	}
	if seed == math.MaxUint32 { // which llama.cpp takes for none
		seed--
	}
	yzma.SamplerChainAdd(s.chain, yzma.SamplerInitTemp(float32(opt.Temperature)))
	yzma.SamplerChainAdd(s.chain, yzma.SamplerInitDist(seed))
	return s, nil
}

// Sample chooses the token behind entry i of the batch that was decoded last, which must
// have been asked for its logits.
func (s *Sampler) Sample(c *Context, i int) (Token, error) {
	if i < 0 || i >= len(c.logits) || !c.logits[i] {
		return 0, fmt.Errorf("entry %d of the batch has no logits", i)
	}
	return Token(yzma.SamplerSample(s.chain, c.handle, int32(i))), nil
}

// Free gives the sampler's memory back.
func (s *Sampler) Free() { yzma.SamplerFree(s.chain) }
