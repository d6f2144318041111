package llama

// attnTile is the number of entries of a batch that llama.cpp's attention for CPUs computes at a
// time. It computes the entries of a smaller batch one by one, at three times the cost of each
// (ggml_compute_forward_flash_attn_ext).
const attnTile = 64

// pad is the number of tokens with which to pad a batch smaller than a tile. It is 0 if the batch is
// faster without padding. Behind a long context, 42 tokens take longer than 64.
func (c *Context) pad() int {
	if c.pairs && c.adding == 1 {
		return 1
	}
	n := attnTile - c.adding
	if c.width == 0 || n > c.padding || !padWorth(c.adding, c.deepest, c.width) {
		return 0
	}
	return n
}

// padWorth reports whether n tokens behind a context of depth are slower than a tile, in a model
// of width numbers for each token. Attention to one token of the context costs about 1/(0.8 width)
// of the other work of the model for a token: its matrices have 12 width² weights a layer, and
// attention 2 width values. In a tile it costs a third. (Measured, 316 M parameters, width 1,024,
// on two processors: n tokens take n (3.1 + 0.0038 depth) ms, a tile 180 + 0.074 depth.)
func padWorth(n, depth, width int) bool {
	whole := 4 * width / 5
	return n < attnTile && n*(whole+depth) > attnTile*(whole+depth/3)
}
