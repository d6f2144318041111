package llama

// attnTile is the number of entries of a batch that llama.cpp's attention for CPUs computes at a
// time. It computes the entries of a smaller batch one by one, at three times the cost per entry
// (ggml_compute_forward_flash_attn_ext).
const attnTile = 64

// pad returns the number of padding tokens for the next batch: one if [Context.Pairs] requires a
// second token, as many as fill a tile if [Context.Pad] allows them and the batch is then faster,
// else 0. A full tile can be faster: after a long context, a batch of 42 tokens takes longer than one
// of 64.
func (c *Context) pad() int {
	if c.pairs && c.entries == 1 {
		return 1
	}
	n := attnTile - c.entries
	if c.width == 0 || n > c.padding || !padWorth(c.entries, c.deepest, c.width) {
		return 0
	}
	return n
}

// padWorth reports whether a batch of n tokens after depth cached tokens is slower than a full
// tile, in a model with embeddings of the given width. Attention of one token to one cached token
// costs about 1/(0.8 width) of the other work for the token: the matrices of a layer have 12 width²
// weights, and attention reads 2 width values. In a tile it costs a third of that. (Measured, 316 M
// parameters, width 1,024, on two processors: n tokens take n (3.1 + 0.0038 depth) ms, a tile takes
// 180 + 0.074 depth ms.)
func padWorth(n, depth, width int) bool {
	otherWork := 4 * width / 5
	return n < attnTile && n*(otherWork+depth) > attnTile*(otherWork+depth/3)
}
