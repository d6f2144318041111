package llama

import yzma "github.com/hybridgroup/yzma/pkg/llama"

// maxScores bounds the memory for the attention scores of a batch, in bytes.
const maxScores = 512 << 20

// separate sets the parameters of a context that encodes so that a vector does not depend on the
// other sequences of the batch, if the processor computes.
//
// It does with llama.cpp's usual parameters: in a batch of 64 rows or more, the kernel of flash
// attention takes 64 rows and cells at a time, and sums in another order than in a smaller batch.
// The kernel does not do so if K and V have different types, which takes a model with a KV cache;
// with V in BF16 it sums in 32 bits, too. Without flash attention the order hardly matters.
// Measured, Gemma 3 270M Q4_K_M, texts of 8 to 250 tokens, AMX kernels, least cosine between a
// text alone and in a batch: 0.9813 as usual, 0.9998 without flash attention, 1.00000000 with V
// in BF16.
func (m *Model) separate(params *yzma.ContextParams, opt ContextOptions) {
	switch {
	case m.layers > 0: // of a GPU, whose kernels are others
	case m.Generates():
		params.TypeV = yzma.GGMLTypeBF16
	case m.scoresFit(opt):
		params.FlashAttentionType = yzma.FlashAttentionTypeDisabled
	}
}

// scoresFit reports whether a context that encodes can do without flash attention. All scores of
// a batch are then in memory at once: 4 bytes for each row, cell and head.
func (m *Model) scoresFit(opt ContextOptions) bool {
	return opt.NBatch*opt.NCtx*int(yzma.ModelNHead(m.handle))*4 <= maxScores
}

// OneByOne reports whether each batch of a context that encodes should have one sequence only,
// because vectors would depend on the other sequences of the batch.
func (c *Context) OneByOne() bool {
	m := c.model
	return c.opt.Encodes && m.layers == 0 && !m.Generates() && !m.scoresFit(c.opt)
}
