package llama

// tile is how many entries of a batch llama.cpp's attention for processors takes at a time. Of
// fewer it takes one by one, at three times the cost (ggml_compute_forward_flash_attn_ext).
const tile = 64

// fill is how many tokens a batch that is too small for a tile should have more to be one. It is
// none if it is faster without: behind a long context 42 tokens take longer than 64.
func (c *Context) fill() int {
	if c.fills == 0 || !fillWorth(c.adding, c.deepest, c.fills) {
		return 0
	}
	return tile - c.adding
}

// fillWorth reports whether n tokens behind a context of depth are slower than a tile, in a model
// of width numbers for each token. Attention to one token of the context costs about 1/(0.8 width)
// of what the rest of the model does for a token: its matrices have 12 width² weights a layer, and
// attention 2 width values. In a tile it costs a third. (Measured, 316 M parameters, width 1,024,
// on two processors: n tokens take n (3.1 + 0.0038 depth) ms, a tile 180 + 0.074 depth.)
func fillWorth(n, depth, width int) bool {
	whole := 4 * width / 5
	return n < tile && n*(whole+depth) > tile*(whole+depth/3)
}
