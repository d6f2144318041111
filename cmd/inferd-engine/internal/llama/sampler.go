package llama

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sync"

	yzma "github.com/hybridgroup/yzma/pkg/llama"

	"github.com/inferd-go/inferd/internal/gbnf"
	"github.com/inferd-go/inferd/internal/infer"
)

// penaltyWindow is the number of last tokens to which penalties apply: llama.cpp's default.
const penaltyWindow = 64

// SamplerOptions are the options of a sampler.
type SamplerOptions struct {
	infer.Sampling
	Grammar string // GBNF with start symbol "root"; empty is none
}

// A Sampler chooses the tokens of one sequence, and keeps them for its penalties and its grammar.
// It may be made on any thread. Sample and Detach must be called on the context's thread. Choose
// may run on another one, because a grammar can take longer than the step: it uses the copy that
// Detach made, so the context may decode meanwhile. Only Free may be called while another method
// runs.
type Sampler struct {
	model   *Model
	chain   yzma.Sampler
	grammar yzma.Sampler // 0 is none
	state   utf8State    // with a grammar: of the text so far
	row     []float32    // logits, copied by Detach

	mu    sync.Mutex // guards the fields below
	busy  bool       // Choose runs
	freed bool       // Free has been called; the memory is freed when Choose has returned
}

// ErrNothingFits is the failure of Sample if the grammar allows no token of the vocabulary.
var ErrNothingFits = infer.Errorf(infer.Invalid, "the grammar cannot go on: no token of the model's vocabulary fits here")

// NewSampler makes a sampler. It applies bias, penalties, top-k, top-p, min-p and temperature in this
// order, and draws one of the tokens that the grammar allows. An error is about the grammar or the
// bias.
func NewSampler(m *Model, opt SamplerOptions) (*Sampler, error) {
	bias, err := m.biases(opt.LogitBias)
	if err != nil {
		return nil, err
	}
	s := &Sampler{model: m, chain: yzma.SamplerChainInit(yzma.SamplerChainParams{NoPerf: 1})}
	if err := s.setGrammar(opt.Grammar); err != nil {
		s.Free()
		return nil, fmt.Errorf("grammar: %w", err)
	}
	if len(bias) > 0 {
		yzma.SamplerChainAdd(s.chain, yzma.SamplerInitLogitBias(int32(m.size), int32(len(bias)), &bias[0]))
	}
	s.addSampling(opt.Sampling)
	return s, nil
}

// setGrammar binds the sampler to a grammar, if there is one.
func (s *Sampler) setGrammar(grammar string) error {
	if grammar == "" {
		return nil
	}
	if err := gbnf.Check(grammar); err != nil {
		return err
	}
	if s.grammar = yzma.SamplerInitGrammar(s.model.vocab, grammar, "root"); s.grammar == 0 {
		return errors.New("rejected by llama.cpp") // such as for a <token> that is not in the vocabulary
	}
	s.model.masks()
	return nil
}

// addSampling adds the samplers behind the bias to the chain.
func (s *Sampler) addSampling(opt infer.Sampling) {
	size := s.model.size
	add := func(next yzma.Sampler) { yzma.SamplerChainAdd(s.chain, next) }
	repeat := cmp.Or(said(opt.RepeatPenalty), 1)
	if frequency, presence := said(opt.FrequencyPenalty), said(opt.PresencePenalty); repeat != 1 || frequency != 0 || presence != 0 {
		add(yzma.SamplerInitPenalties(int32(size), penaltyWindow, float32(repeat), float32(frequency), float32(presence)))
	}
	temperature := said(opt.Temperature)
	if temperature == 0 {
		add(yzma.SamplerInitGreedy())
		return
	}
	if k := said(opt.TopK); k > 0 {
		add(yzma.SamplerInitTopK(int32(min(k, size))))
	}
	if p := said(opt.TopP); p > 0 && p < 1 {
		add(yzma.SamplerInitTopP(float32(p), 1))
	}
	if p := said(opt.MinP); p > 0 {
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

// said returns *p, or zero for a parameter that is not said.
func said[T any](p *T) (value T) {
	if p != nil {
		value = *p
	}
	return value
}

// biases returns a copy of bias in llama.cpp's form.
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

// Sample chooses the token behind entry i of the batch decoded last, which must have logits.
func (s *Sampler) Sample(c *Context, i int) (Token, error) {
	if err := c.checkLogits(i); err != nil {
		return 0, err
	}
	if s.grammar == 0 {
		return Token(yzma.SamplerSample(s.chain, c.handle, int32(i))), nil
	}
	logits, err := s.model.logits(c, i)
	if err != nil {
		return 0, err
	}
	return s.sample(logits)
}

// Detach copies the logits of entry i of the batch decoded last, for Choose.
func (s *Sampler) Detach(c *Context, i int) error {
	logits, err := s.model.logits(c, i)
	if err != nil {
		return err
	}
	s.row = append(s.row[:0], logits...)
	return nil
}

// Choose chooses the token behind the entry of Detach's copy. It fails after Free.
func (s *Sampler) Choose() (Token, error) {
	if !s.begin() {
		return 0, errors.New("internal error: the sampler has been freed")
	}
	defer s.end()
	s.model.wedge.choose()
	return s.sample(s.row)
}

// Logprobs is [Model.Logprobs] of the entry of Detach's copy.
func (s *Sampler) Logprobs(tok Token, n int) (infer.Logprob, error) {
	return s.model.logprobs(s.row, tok, n)
}

func (s *Sampler) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy = !s.freed
	return s.busy
}

func (s *Sampler) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy = false
	if s.freed {
		s.free()
	}
}

// sample chooses a token by its logits, one for each token of the vocabulary.
func (s *Sampler) sample(logits []float32) (Token, error) {
	scratch := s.model.scratch.Get().(*[]yzma.TokenData) //nolint:errcheck,forcetypeassert // the pool has no other
	defer s.model.scratch.Put(scratch)
	if s.grammar == 0 {
		tok, err := s.choose(s.candidates(*scratch, logits))
		if err == nil {
			yzma.SamplerAccept(s.chain, yzma.Token(tok))
		}
		return tok, err
	}
	// The grammar needs milliseconds for all tokens, but little for one: so the choice comes first.
	// If the grammar forbids the token, a second choice among the allowed tokens has the same
	// probabilities as a single choice among them.
	tok, err := s.choose(s.candidates(*scratch, logits))
	if err != nil {
		return 0, err
	}
	if !s.allows(tok) {
		candidates := s.candidates(*scratch, logits)
		apply(s.grammar, candidates)
		if tok, err = s.choose(candidates); err != nil {
			return 0, err
		}
	}
	s.state, _ = s.state.afterAll(s.model.AppendPiece(nil, tok))
	yzma.SamplerAccept(s.grammar, yzma.Token(tok))
	yzma.SamplerAccept(s.chain, yzma.Token(tok))
	return tok, nil
}

// candidates fills dst with all tokens and their logits. With a grammar, tokens that would break
// UTF-8 are excluded, because llama.cpp's grammar does not check single bytes.
func (s *Sampler) candidates(dst []yzma.TokenData, logits []float32) []yzma.TokenData {
	var masks []uint8 // nil allows all
	if s.grammar != 0 {
		masks = s.model.masks()
	}
	for tok, logit := range logits {
		if masks != nil && masks[tok]&(1<<s.state) == 0 {
			logit = never
		}
		dst[tok] = yzma.TokenData{Id: yzma.Token(tok), Logit: logit}
	}
	return dst
}

var never = float32(math.Inf(-1))

// choose chooses one of the tokens with the chain of samplers.
func (s *Sampler) choose(tokens []yzma.TokenData) (Token, error) {
	if !slices.ContainsFunc(tokens, func(t yzma.TokenData) bool { return t.Logit > never }) {
		return 0, ErrNothingFits
	}
	tok, ok := apply(s.chain, tokens)
	if !ok {
		return 0, errors.New("llama.cpp chose no token")
	}
	return tok, nil
}

// allows reports whether the grammar allows a token next. llama.cpp ends the process if a
// forbidden one is accepted.
func (s *Sampler) allows(tok Token) bool {
	single := []yzma.TokenData{{Id: yzma.Token(tok)}}
	apply(s.grammar, single)
	return single[0].Logit > never
}

// Free frees the sampler, at once or when the Choose under way returns. It may be called from
// any goroutine.
func (s *Sampler) Free() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.freed = true
	if !s.busy {
		s.free()
	}
}

func (s *Sampler) free() {
	yzma.SamplerFree(s.chain)
	yzma.SamplerFree(s.grammar) // if there is one
}
