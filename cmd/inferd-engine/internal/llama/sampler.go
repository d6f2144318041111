package llama

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"

	yzma "github.com/hybridgroup/yzma/pkg/llama"

	"github.com/inferd-go/inferd/internal/infer"
)

// penaltyWindow is the number of last tokens to which penalties apply: llama.cpp's default.
const penaltyWindow = 64

// SamplerOptions are the options of a sampler.
type SamplerOptions struct {
	infer.Sampling
	Masked bool // the sampler is for Choose; otherwise it is for Sample
}

// A Sampler chooses the tokens of one sequence, and remembers them for its penalties. It may be made on any
// thread. Its methods must be called on the context's thread.
type Sampler struct {
	model *Model
	chain yzma.Sampler
	bias  []yzma.LogitBias // applied by Choose; in the order of tokens
	plain bool             // no penalties, so the choice does not depend on earlier tokens
}

// ErrNothingFits is the error of [Sampler.Choose] if the mask is empty.
var ErrNothingFits = infer.Errorf(infer.Invalid, "the grammar cannot go on: no token of the model's vocabulary fits here")

// NewSampler makes a sampler. It applies bias, penalties, top-k, top-p, min-p and temperature in this order.
// It returns an error if the bias has a token outside the vocabulary.
func NewSampler(m *Model, opt SamplerOptions) (*Sampler, error) {
	bias, err := m.biases(opt.LogitBias)
	if err != nil {
		return nil, err
	}
	s := &Sampler{model: m, chain: yzma.SamplerChainInit(yzma.SamplerChainParams{NoPerf: 1})}
	switch {
	case opt.Masked: // in its chain llama.cpp compares each bias with each candidate, unless all tokens are candidates
		s.bias = bias
	case len(bias) > 0:
		yzma.SamplerChainAdd(s.chain, yzma.SamplerInitLogitBias(int32(m.size), int32(len(bias)), &bias[0]))
	}
	s.addSampling(opt.Sampling)
	return s, nil
}

// addSampling adds the samplers that follow the bias to the chain.
func (s *Sampler) addSampling(opt infer.Sampling) {
	size := s.model.size
	add := func(next yzma.Sampler) { yzma.SamplerChainAdd(s.chain, next) }
	repeat := cmp.Or(valueOf(opt.RepeatPenalty), 1)
	s.plain = true
	if frequency, presence := valueOf(opt.FrequencyPenalty), valueOf(opt.PresencePenalty); repeat != 1 || frequency != 0 || presence != 0 {
		s.plain = false
		add(yzma.SamplerInitPenalties(int32(size), penaltyWindow, float32(repeat), float32(frequency), float32(presence)))
	}
	temperature := valueOf(opt.Temperature)
	if temperature == 0 {
		add(yzma.SamplerInitGreedy())
		return
	}
	if k := valueOf(opt.TopK); k > 0 {
		add(yzma.SamplerInitTopK(int32(min(k, size))))
	}
	if p := valueOf(opt.TopP); p > 0 && p < 1 {
		add(yzma.SamplerInitTopP(float32(p), 1))
	}
	if p := valueOf(opt.MinP); p > 0 {
		add(yzma.SamplerInitMinP(float32(p), 1))
	}
	seed := rand.Uint32() //nolint:gosec // a draw, not a secret
	if opt.Seed != nil {
		seed = *opt.Seed
	}
	if seed == math.MaxUint32 { // llama.cpp would draw a random seed
		seed--
	}
	add(yzma.SamplerInitTemp(float32(temperature)))
	add(yzma.SamplerInitDist(seed))
}

// valueOf returns *p, or zero if the request does not set the parameter.
func valueOf[T any](p *T) (value T) {
	if p != nil {
		value = *p
	}
	return value
}

// biases returns bias in llama.cpp's form, in the order of tokens.
func (m *Model) biases(bias map[int]float64) ([]yzma.LogitBias, error) {
	all := make([]yzma.LogitBias, 0, len(bias))
	for _, id := range slices.Sorted(maps.Keys(bias)) {
		if id < 0 || id >= m.size {
			return nil, fmt.Errorf("logit_bias: token %d is not in the model's vocabulary of %d", id, m.size)
		}
		all = append(all, yzma.LogitBias{Token: yzma.Token(id), Bias: float32(bias[id])})
	}
	return all, nil
}

// Sample chooses the token that follows entry i of the batch decoded last, and remembers it. It returns an
// error if the entry has no logits.
func (s *Sampler) Sample(c *Context, i int) (Token, error) {
	if err := c.checkLogits(i); err != nil {
		return 0, err
	}
	return Token(yzma.SamplerSample(s.chain, c.handle, int32(i))), nil
}

// Choose is like Sample, but chooses among the tokens of a mask, which has a bit for each token of the
// vocabulary. Other tokens are left out before any sampler is applied, so that top-k, top-p and min-p
// count only tokens of the mask. If the mask is empty, the error is [ErrNothingFits]. Choose does not
// remember the token; see [Sampler.Accept].
func (s *Sampler) Choose(c *Context, i int, mask []uint64) (Token, error) {
	logits, err := s.model.logits(c, i)
	if err != nil {
		return 0, err
	}
	scratch := s.model.scratch.Get().(*[]yzma.TokenData) //nolint:errcheck,forcetypeassert // the pool has no other
	defer s.model.scratch.Put(scratch)
	candidates := s.candidates(*scratch, logits, mask)
	switch len(candidates) {
	case 0:
		return 0, ErrNothingFits
	case 1:
		return Token(candidates[0].Id), nil
	}
	tok, ok := apply(s.chain, candidates)
	if !ok {
		return 0, errors.New("llama.cpp chose no token")
	}
	return tok, nil
}

// MaskOptional reports whether a sampler for Choose has neither bias nor penalties. Then the caller may draw a
// token with Sample first, and use Choose only if the grammar refuses that token.
func (s *Sampler) MaskOptional() bool { return s.plain && len(s.bias) == 0 }

// Accept remembers a token, the result of Choose, for the penalties.
func (s *Sampler) Accept(tok Token) { yzma.SamplerAccept(s.chain, yzma.Token(tok)) }

// candidates fills dst with the tokens of a mask and their biased logits.
func (s *Sampler) candidates(dst []yzma.TokenData, logits []float32, mask []uint64) []yzma.TokenData {
	n, bias := 0, s.bias
	for w, word := range mask {
		for ; word != 0; word &= word - 1 {
			tok := w<<6 + bits.TrailingZeros64(word)
			if tok >= len(logits) {
				return dst[:n]
			}
			logit := logits[tok]
			for len(bias) > 0 && int(bias[0].Token) < tok {
				bias = bias[1:]
			}
			if len(bias) > 0 && int(bias[0].Token) == tok {
				logit += bias[0].Bias
			}
			dst[n] = yzma.TokenData{Id: yzma.Token(tok), Logit: logit}
			n++
		}
	}
	return dst[:n]
}

// Free frees the sampler.
func (s *Sampler) Free() { yzma.SamplerFree(s.chain) }
