package schedule

// The result of a kernel for a token depends on the size of the batch, and on the token's position in
// it: attention computes [Tile] tokens at a time, and fewer tokens with another kernel. A prompt
// without streams beside it is decoded, from its first token or from a cached prefix on, in batches
// that end at multiples of the batch size. So if the length of the cached prefix is a multiple of
// Tile, and a batch of at least a tile follows, all other tokens of the prompt are computed by the
// same kernels as without the prefix.

// Tile is the number of tokens of a batch that llama.cpp's attention for CPUs computes at a time.
const Tile = 64

// maxAgain is the maximum number of cached tokens that are computed again for a prompt. If more would
// be necessary, all cached tokens are reused, and the answer may differ from that with an empty cache.
const maxAgain = 256

// Fresh reports whether n tokens, decoded in a batch of their own, get the KV state that they would
// get if the whole prompt were decoded into an empty cache. behind is the number of cached tokens
// before them, of which the first fresh ones have such a state.
func Fresh(behind, n, fresh int) bool { return behind == fresh && behind%Tile == 0 && n >= Tile }

// Reusable returns how many of a prompt's cached tokens to reuse, so that its logits equal those with
// an empty cache, bit for bit. total is the number of tokens of the prompt, at least 1. The first
// fresh tokens have the KV state that they would get in an empty cache; see [Fresh]. batch is the
// number of tokens of a step, a multiple of [Tile]. If more than maxAgain cached tokens would not be
// reused, Reusable returns cached.
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
