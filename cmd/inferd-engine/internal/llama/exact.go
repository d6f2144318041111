package llama

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"

	yzma "github.com/hybridgroup/yzma/pkg/llama"
)

// maxScores bounds the memory for the attention scores of a batch, in bytes.
const maxScores = 512 << 20

// isolateSequences sets parameters of a context that encodes such that vectors computed on the CPU do not
// depend on the other sequences of the batch, if that is possible; see [Context.OneByOne].
//
// With llama.cpp's default parameters they do: in a batch of 64 rows or more, the kernel of flash
// attention computes 64 rows and cells at a time, and sums in another order than in a smaller batch. If
// K and V have different types, which requires a model with a KV cache, each row is computed
// separately; with V in BF16 the sums also have 32 bits. Without flash attention the order hardly
// matters. Measured, Gemma 3 270M Q4_K_M, texts of 8 to 250 tokens, AMX kernels, least cosine between a
// text alone and in a batch: 0.9813 with the defaults, 0.9998 without flash attention, 1.00000000 with
// V in BF16.
func (m *Model) isolateSequences(params *yzma.ContextParams, opt ContextOptions) {
	switch {
	case m.layers > 0: // a GPU has other kernels
	case m.IsGenerative():
		params.TypeV = separateV
	case m.scoresFit(opt):
		params.FlashAttentionType = yzma.FlashAttentionTypeDisabled
	}
}

// scoresFit reports whether a context that encodes can omit flash attention. All scores of a batch
// are then in memory at once: 4 bytes for each row, cell and head.
func (m *Model) scoresFit(opt ContextOptions) bool {
	return opt.NBatch*opt.NCtx*int(yzma.ModelNHead(m.handle))*4 <= maxScores
}

// OneByOne reports whether each batch of a context that encodes should have only one sequence,
// because vectors would depend on the other sequences of the batch.
func (c *Context) OneByOne() bool {
	m := c.model
	return c.opt.Encodes && m.layers == 0 && !m.IsGenerative() && !m.scoresFit(c.opt)
}

// separateV is a type of V for which attention computes each row separately, and sums in 32 bits: the
// kernel for 64 rows at a time, and the kernel that divides a row among threads, are used only if V has
// the type of K.
const separateV = yzma.GGMLTypeBF16

// computesRowByRow reports whether the kernels of a CPU variant compute each row of a batch separately even with
// repacked weights. Only the kernels for AMX do, which multiply tiles.
func computesRowByRow(variant string) bool { return variant == "sapphirerapids" }

// Inexact returns the reason why the logits of a context with [ContextOptions.Exact] may depend on
// tokens of other sequences. The reason is empty if they do not, provided that the cells of each
// sequence are in the order of its tokens. Inexact tests the kernels by decoding, because not all
// kernels are known. If they differ, and the model can truncate sequences, it tests them again with
// [Context.Pairs], which stays set. It empties the cache.
func (c *Context) Inexact() string {
	m := c.model
	switch {
	case m.layers > 0:
		return "a GPU computes"
	case yzma.ModelIsHybrid(m.handle):
		return "the model's memory is hybrid, and keeps no order of its cells"
	case !m.CanTruncate() && !yzma.ModelIsRecurrent(m.handle):
		return "the model keeps no order of its cells"
	}
	reason, err := c.compareLogits()
	if reason == dependent && m.CanTruncate() && c.opt.NCtx > 1 && c.opt.NBatch > 1 {
		c.pairs = true
		reason, err = c.compareLogits()
	}
	if err = errors.Join(err, c.ClearAll()); err != nil {
		return "the test of the kernels failed: " + err.Error()
	}
	return reason
}

// Pairs reports whether a batch of one token is computed with a second one: [ContextOptions.Pairs] was
// set, or [Context.Inexact] has found that the kernels for one row round differently from those for
// several. The second token needs a cell, which must be kept free.
func (c *Context) Pairs() bool { return c.pairs }

// dependent is the reason of Inexact if logits differ between trials.
const dependent = "the kernels round the logits of a token differently beside other tokens"

// Numbers of tokens in a trial.
const (
	trialTokens = 12 // of the sequence with the compared logits
	otherTokens = 30 // of another sequence
)

// compareLogits decodes a prompt alone in one batch, then divided into batches in other ways, and beside tokens
// of another sequence. It returns the reason for [Context.Inexact] if the logits of the last token ever
// differ, or if the cache has K and V of one type; else "".
func (c *Context) compareLogits() (reason string, err error) {
	prompt := make([]Token, min(trialTokens, c.opt.NCtx, c.opt.NBatch))
	for i := range prompt {
		prompt[i] = Token((1009*i + 5) % c.model.size)
	}
	most := min(c.opt.NCtx, c.opt.NBatch) - len(prompt)
	if c.opt.NSeq < 2 {
		most = 0
	}
	alone, err := c.trialLogits(prompt, 0, 0)
	if err != nil {
		return "", err
	}
	if c.model.CanTruncate() {
		state, err := c.Save(0, 0, len(prompt))
		if err != nil {
			return "", err
		}
		if k, v := typesOf(state); k == v {
			return "the model's cache stores K and V in the same type", nil
		}
	}
	last := len(prompt) - 1
	for _, t := range []struct{ before, others int }{{0, otherTokens}, {last, 0}, {last, 1}, {last, 3}, {last / 2, 0}} {
		logits, err := c.trialLogits(prompt, t.before, min(t.others, most))
		if err != nil {
			return "", err
		}
		if !slices.EqualFunc(alone, logits, sameBits) {
			return dependent, nil
		}
	}
	return "", nil
}

func sameBits(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }

// trialLogits decodes a prompt in an empty cache, and returns the logits of its last token. If before is not 0, that
// many tokens of the prompt are decoded first, in a batch of their own. The last batch has tokens of a second sequence
// (others is their number), and then the remaining tokens of the prompt.
func (c *Context) trialLogits(prompt []Token, before, others int) ([]float32, error) {
	err := c.ClearAll()
	add := func(tokens []Token, pos, seq int) {
		for i, tok := range tokens {
			if err == nil {
				err = c.Add(tok, pos+i, seq, seq == 0 && pos+i == len(prompt)-1)
			}
		}
	}
	if before > 0 {
		add(prompt[:before], 0, 0)
		if err == nil {
			err = c.Decode()
		}
	}
	other := make([]Token, others)
	for i := range other {
		other[i] = Token((503*i + 11) % c.model.size)
	}
	add(other, 0, 1)
	add(prompt[before:], before, 0)
	if err != nil {
		return nil, err
	}
	last := c.entries - 1
	if err := c.Decode(); err != nil {
		return nil, err
	}
	logits, err := c.model.logits(c, last)
	return slices.Clone(logits), err
}

// typesOf returns the types of K and V of the first layer in the state of a sequence; -1 for none. Numbers
// in a state have 4 bytes, unless stated otherwise. A state consists of:
//
//   - 8 bytes
//   - the number of streams, which is 1
//   - the number of cells, and for each its position, the number of its sequences, and their numbers
//   - whether V is transposed
//   - the number of layers
//   - for each layer, the type of K, its size per cell in 8 bytes, and K of all cells
//   - the same of V
func typesOf(state []byte) (k, v int) {
	r := reader{state[min(8, len(state)):]}
	r.number() // streams
	cells := r.number()
	for range cells {
		r.number() // position
		r.skip(4 * r.number())
	}
	r.number() // transposed
	k, v = -1, -1
	for layer := range r.number() {
		kind := r.number()
		if layer == 0 {
			k = kind
		}
		size := r.number()
		r.number() // its upper half
		r.skip(size * cells)
	}
	if len(r.rest) > 0 {
		v = r.number()
	}
	return k, v
}

// A reader reads numbers from bytes; beyond their end it returns 0.
type reader struct{ rest []byte }

func (r *reader) number() int {
	if len(r.rest) < 4 {
		r.rest = nil
		return 0
	}
	n := binary.LittleEndian.Uint32(r.rest)
	r.rest = r.rest[4:]
	return int(n)
}

func (r *reader) skip(n int) { r.rest = r.rest[min(n, len(r.rest)):] }
