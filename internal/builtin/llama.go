package builtin

import (
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"unicode/utf8"

	"github.com/inferd-go/inferd/internal/gguf"
)

const contextLength = 16384

// chain returns a model that answers with the rest of the alphabet: each letter is followed by the next
// one, z by the end of the turn, and any other byte by an a.
func chain(name string) *gguf.File {
	return alphabet(name, func(int) int { return endOfTurn })
}

// loop is chain without an end: after z comes a.
func loop(name string) *gguf.File {
	return alphabet(name, func(letter int) int { return letter - 'z' + 'a' })
}

// fim is chain with the control tokens of models that fill gaps in code. The one before the answer,
// <|fim_middle|>, is followed by an m.
func fim(name string) *gguf.File {
	marks := []string{"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|repo_name|>", "<|file_sep|>"}
	middle := vocabulary + slices.Index(marks, "<|fim_middle|>")
	return lookup(name, &lexicon{template: lastMessage, marks: marks}, func(token int) int {
		if token == middle {
			return 'm'
		}
		return follower(token, func(int) int { return endOfTurn })
	})
}

// alphabet returns the model chain or loop, depending on afterZ, which returns the follower of z and Z.
func alphabet(name string, afterZ func(letter int) int) *gguf.File {
	return lookup(name, &lexicon{template: lastMessage}, func(token int) int { return follower(token, afterZ) })
}

// lookup returns a model in which the next token depends only on the last one. Attention and
// feed-forward networks add nothing, so the last token's embedding reaches the output, which maps
// it to its follower.
func lookup(name string, x *lexicon, follower func(token int) int) *gguf.File {
	// One dimension per token, rounded up to whole attention heads.
	heads := uint64(x.tokens()+headWidth-1) / headWidth
	s := shape{embd: heads * headWidth, layers: 1, ff: 32, heads: heads, kvHeads: 1, context: contextLength, fileType: allF32}
	identity := func(row int, values []float32) { values[row] = 1 }
	// The normalised hidden vector is √embd, at least 16, in the last token's dimension and
	// 0 in the others: the follower's logit is at least 64, all others are 0.
	const gain = 4
	output := func(row int, values []float32) {
		for token := range x.tokens() {
			if follower(token) == row {
				values[token] = gain
			}
		}
	}
	return s.file(name, x, weights{
		embedding: f32(identity), output: f32(output), read: f32(leaveZero), write: f32(leaveZero),
	})
}

// headWidth is the width of an attention head of [lookup].
const headWidth = 32

// follower returns the next token of a model that recites the alphabet: the next letter after a letter,
// the result of afterZ after z and Z, and an a after all other tokens.
func follower(token int, afterZ func(letter int) int) int {
	switch {
	case token == 'z' || token == 'Z':
		return afterZ(token)
	case token >= 'a' && token < 'z', token >= 'A' && token < 'Z':
		return token + 1
	default:
		return 'a'
	}
}

// tiny is a llama with random weights: all bytes are about equally likely (8 bits of
// entropy at temperature 1), its text depends on the whole context, and in practice it
// never ends its turn.
func tiny(name string) *gguf.File {
	s := shape{embd: 64, layers: 3, ff: 128, heads: 4, kvHeads: 2, context: contextLength, fileType: allF32}
	return s.file(name, &lexicon{template: chatML}, babble(rand.NewPCG(1, 2)))
}

// babble returns random weights that make all bytes about equally likely.
func babble(r *rand.PCG) weights {
	return weights{
		embedding: f32(func(_ int, values []float32) {
			fillF32(r, values, 1)
			values[quiet] = 4
		}),
		output: f32(func(row int, values []float32) {
			if isControl(row) {
				values[quiet] = -16
				return
			}
			fillF32(r, values, 1.0/64) // σ is 0.018
		}),
		read: f32(func(_ int, values []float32) { fillF32(r, values, 1.0/8) }),
		write: f32(func(row int, values []float32) {
			if row != quiet {
				fillF32(r, values, 1.0/8)
			}
		}),
	}
}

// Big writes a model for benchmarks: a llama with 348 million random weights in Q8_0 (316
// million of which take part in every token), 370 MB. It has 32,000 tokens of up to five
// characters and, like tiny, never ends its turn. It never generates a part of a character:
// each token is text that can be sent at once.
func Big(w io.Writer) error {
	const tokens = 32000
	words := make([]string, tokens-vocabulary)
	for i := range words {
		letter := func(n int) byte { return 'a' + byte(n%26) }
		words[i] = string(byteRunes()[' ']) + string([]byte{letter(i), letter(i / 26), letter(i / 26 / 26), letter(i / 26 / 26 / 26)})
	}
	s := shape{embd: 1024, layers: 24, ff: 2816, heads: 16, kvHeads: 8, context: contextLength, fileType: mostlyQ8}
	r := rand.NewPCG(3, 4)
	// Scales of blocks: powers of two, as 16-bit floats. The 8-bit numbers that they multiply have a σ of 52.
	const (
		two2  uint16 = (15 - 2) << 10  // 2^-2
		two6  uint16 = (15 - 6) << 10  // 2^-6
		two11 uint16 = (15 - 11) << 10 // 2^-11
	)
	f := s.file("big", &lexicon{template: chatML, words: words}, weights{
		embedding: q8(func(_ int, blocks []gguf.Block) {
			fillQ8(r, blocks, two6)
			blocks[0].Q[quiet] = 127
		}),
		output: q8(func(row int, blocks []gguf.Block) {
			if isControl(row) || row >= utf8.RuneSelf && row < beginning {
				blocks[0].Scale = two2
				blocks[0].Q[quiet] = -127
				return
			}
			fillQ8(r, blocks, two11)
		}),
		read: q8(func(_ int, blocks []gguf.Block) { fillQ8(r, blocks, two11) }),
		write: q8(func(row int, blocks []gguf.Block) {
			if row != quiet {
				fillQ8(r, blocks, two11)
			}
		}),
	})
	if _, err := f.WriteTo(w); err != nil {
		return fmt.Errorf("write big model: %w", err)
	}
	return nil
}

// quiet is a dimension that has the same value in every token's embedding and that no layer writes.
// A negative output weight on it makes a token unlikely in any context.
const quiet = 0

func isControl(token int) bool { return token >= beginning && token < vocabulary }

// A shape has the dimensions of a llama.
type shape struct {
	embd, layers, ff, heads, kvHeads uint64
	context                          uint32
	fileType                         uint32
}

// Values of general.file_type: the type of most tensors.
const (
	allF32   uint32 = 0
	mostlyQ8 uint32 = 7
)

// A matrix adds a tensor to f, with the given number of rows of width numbers each.
type matrix func(f *gguf.File, name string, width, rows uint64)

func f32(fill func(row int, values []float32)) matrix {
	return func(f *gguf.File, name string, width, rows uint64) { f.F32(name, fill, width, rows) }
}

func q8(fill func(row int, blocks []gguf.Block)) matrix {
	return func(f *gguf.File, name string, width, rows uint64) { f.Q8(name, fill, width, rows) }
}

// weights are the weights of a llama, except its norms, which are all 1.
type weights struct {
	embedding, output matrix
	read              matrix // q, k, v, gate and up: their input is the residual stream
	write             matrix // attention's output and down: they add to it
}

// file returns a complete llama. If a fill function has state, the file can be written
// only once.
func (s shape) file(name string, x *lexicon, w weights) *gguf.File {
	f := new(gguf.File)
	f.String("general.architecture", "llama")
	f.String("general.name", "builtin-"+name)
	f.Uint32("general.file_type", s.fileType)
	f.Uint32("general.quantization_version", 2)
	f.Uint32("llama.context_length", s.context)
	f.Uint32("llama.embedding_length", uint32(s.embd))
	f.Uint32("llama.block_count", uint32(s.layers))
	f.Uint32("llama.feed_forward_length", uint32(s.ff))
	f.Uint32("llama.attention.head_count", uint32(s.heads))
	f.Uint32("llama.attention.head_count_kv", uint32(s.kvHeads))
	f.Float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
	x.add(f)

	tokens := uint64(x.tokens())
	kv := s.embd / s.heads * s.kvHeads
	w.embedding(f, "token_embd.weight", s.embd, tokens)
	for l := range s.layers {
		block := fmt.Sprintf("blk.%d.", l)
		f.F32(block+"attn_norm.weight", always(1), s.embd)
		w.read(f, block+"attn_q.weight", s.embd, s.embd)
		w.read(f, block+"attn_k.weight", s.embd, kv)
		w.read(f, block+"attn_v.weight", s.embd, kv)
		w.write(f, block+"attn_output.weight", s.embd, s.embd)
		f.F32(block+"ffn_norm.weight", always(1), s.embd)
		w.read(f, block+"ffn_gate.weight", s.embd, s.ff)
		w.read(f, block+"ffn_up.weight", s.embd, s.ff)
		w.write(f, block+"ffn_down.weight", s.ff, s.embd)
	}
	f.F32("output_norm.weight", always(1), s.embd)
	w.output(f, "output.weight", s.embd, tokens)
	return f
}

// always returns a function that fills rows with a constant.
func always(value float32) func(row int, values []float32) {
	return func(_ int, values []float32) {
		for i := range values {
			values[i] = value
		}
	}
}

// fillF32 fills values with scale, a power of two, times nearly normal numbers with a σ of
// 1.15: sums of four integers. Nothing is rounded, so every platform gets the same bits.
func fillF32(r *rand.PCG, values []float32, scale float32) {
	for i := range values {
		u := r.Uint64()
		sum := int32(int16(u)) + int32(int16(u>>16)) + int32(int16(u>>32)) + int32(int16(u>>48))
		values[i] = float32(sum) * (scale / (1 << 15))
	}
}

// fillQ8 fills blocks with numbers from -127 to 127 with a σ of 52. They are means of two random
// bytes, which are cheap to compute, so numbers near zero are the most frequent.
func fillQ8(r *rand.PCG, blocks []gguf.Block, scale uint16) {
	for i := range blocks {
		b := &blocks[i]
		b.Scale = scale
		for j := 0; j < len(b.Q); j += 4 {
			u := r.Uint64()
			for n := range 4 {
				sum := int(u>>(16*n)&0xff) + int(u>>(16*n+8)&0xff)
				b.Q[j+n] = int8(max(sum/2-128, -127))
			}
		}
	}
}
