package schedule

// The result of a kernel for a token depends on the size of the batch, and on the token's position in
// it: attention computes [Tile] tokens at a time, and fewer tokens with another kernel. A prompt
// without streams beside it is decoded in batches that end at multiples of the batch size, from its
// first token or from a cached prefix on. So with a prefix that ends between two tiles, before a batch
// of at least a tile, all other tokens of the prompt have the same kernels as without the prefix.

// Tile is the number of tokens of a batch that llama.cpp's attention for CPUs computes at a time.
const Tile = 64

// maxAgain is the maximum number of cached tokens that a prompt computes again. If it would be more,
// they are reused, and the answer may differ.
const maxAgain = 256

// Fresh reports whether n tokens, decoded in a batch of their own behind that number of tokens, have
// the KV state that they would have in an empty cache, if the first fresh tokens have it.
func Fresh(behind, n, fresh int) bool { return behind == fresh && behind%Tile == 0 && n >= Tile }

// Reusable returns the number of the first cached tokens of a prompt to reuse, so that its logits are
// those of an empty cache, bit for bit. total is the number of its tokens, at least 1; the first fresh
// tokens have the KV state of an empty cache; batch is the number of tokens of a step, a multiple of
// [Tile].
func Reusable(cached, fresh, total, batch int) int {
	most := (total - 1) / batch * batch
	if rest := total - most; rest >= Tile {
		most += (rest - Tile) / Tile * Tile
	}
	n := min(cached, fresh, most)
	n -= n % Tile
	if cached-n > maxAgain {
		return cached
	}
	return n
}
