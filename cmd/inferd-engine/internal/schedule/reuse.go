package schedule

// What a kernel computes for a token depends on the number of tokens of its batch, and on where in it the
// token is: attention takes [Tile] tokens at a time, and fewer than that in another way. A prompt without
// streams beside it is decoded in batches that end at multiples of the batch size, from its first
// token or from a cached prefix on. So a prefix that ends between two tiles, in front of a batch with a tile
// or more, leaves all other tokens of the prompt the kernel that they have without it.

// Tile is how many tokens of a batch llama.cpp's attention for CPUs takes at a time.
const Tile = 64

// maxAgain is how many cached tokens a prompt computes again at most. Where it would be more,
// they are reused, and the answer may differ.
const maxAgain = 256

// Fresh reports whether n tokens that a sequence has been given in a batch of its own, behind so many, have the
// KV state that they would have in an empty cache, if that is so of the first fresh ones.
func Fresh(behind, n, fresh int) bool { return behind == fresh && behind%Tile == 0 && n >= Tile }

// Reusable returns how many of the first cached tokens of a prompt are to be reused, if its logits are to be
// those of an empty cache, bit for bit: total is the number of its tokens, at least 1; the KV state of the
// first fresh tokens is that of an empty cache; and batch is the number of tokens of a step, a multiple of
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
