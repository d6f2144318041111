package builtin

import (
	"fmt"
	"math/rand/v2"

	"github.com/inferd-go/inferd/internal/gguf"
)

// The vocabulary of embed and rerank: pairs of letters, single letters, digits and the other
// printable ASCII characters, each at the start of a word and inside one. Characters outside
// ASCII, after the removal of accents, are [UNK].
const (
	unknownPiece = iota
	classPiece   // [CLS], where a text begins
	separatorPiece
	paddingPiece
	firstPiece // the first piece of text
)

// Values of bert.pooling_type.
const (
	pooledMean uint32 = 1
	pooledRank uint32 = 4
)

const (
	bertContext = 512 // tokens of context
	bertWidth   = 64  // length of a vector
)

// pieces returns the vocabulary. U+2581 marks the start of a word.
func pieces() []string {
	all := []string{"[UNK]", "[CLS]", "[SEP]", "[PAD]"}
	for _, start := range []string{"\u2581", ""} {
		for b := byte('!'); b <= '~'; b++ {
			if b < 'A' || b > 'Z' { // text becomes lower case
				all = append(all, start+string(rune(b)))
			}
		}
		for a := 'a'; a <= 'z'; a++ {
			for b := 'a'; b <= 'z'; b++ {
				all = append(all, start+string(a)+string(b))
			}
		}
	}
	return all
}

// embed returns a model that maps a text to the sum of random vectors, one per piece of its words. The
// vectors of texts with words in common are close to each other; others are about orthogonal.
func embed(name string) *gguf.File {
	f := newBERT(name, pooledMean, 1)
	r := rand.NewPCG(5, 6)
	f.F32("token_embd.weight", func(row int, values []float32) {
		if isText(row) { // other pieces add nothing
			signs(r, values)
		}
	}, bertWidth, uint64(len(pieces())))
	addInput(f)
	addLayer(f, 0, bertLayer{})
	return f
}

// Parameters of rerank. The first four are dimensions that are 0 in the embeddings of all pieces of text.
const (
	markClass    = bertWidth - 4 // set in [CLS] only; in the end, its value falls with the number of repeated pieces
	markSpecial  = bertWidth - 3 // set in [CLS] and [SEP]
	balance      = bertWidth - 2 // makes the mean of the embeddings of [CLS] and [SEP] 0
	uniqueness   = bertWidth - 1 // attention of a piece to [CLS]: large if no other piece is equal
	textual      = bertWidth - 4 // number of dimensions for pieces of text
	bertEpsilon  = 1e-12
	spike        = 4 // the value of [CLS] and [SEP] in their marks
	likeStrength = 1.25
	markStrength = 20
)

// rerank returns a model that scores a document by the number of pieces that occur more than once in
// query and document together.
//
// In the first layer a piece attends equally to each piece equal to it, itself included, and to
// [CLS]: its attention to [CLS] is a half if it occurs once, a third if twice. It copies that share
// of the mark of [CLS]. In the second layer [CLS] takes the mean of these shares over all pieces,
// and the classification head inverts it.
func rerank(name string) *gguf.File {
	f := newBERT(name, pooledRank, 2)
	r := rand.NewPCG(7, 8)
	f.F32("token_embd.weight", func(row int, values []float32) {
		switch {
		case isText(row):
			signs(r, values[:textual])
		case row == classPiece:
			values[markClass], values[markSpecial], values[balance] = spike, spike, -2*spike
		case row == separatorPiece:
			values[markSpecial], values[balance] = spike, -spike
		}
	}, bertWidth, uint64(len(pieces())))
	addInput(f)

	same := func(row int, values []float32) { values[row] = 1 }
	addLayer(f, 0, bertLayer{
		query: func(row int, values []float32) {
			if row < textual {
				values[row] = likeStrength
			}
		},
		queryBias: func(values []float32) { values[markClass] = markStrength },
		key: func(row int, values []float32) {
			if row <= markClass {
				values[row] = 1
			}
		},
		value: func(row int, values []float32) {
			if row == uniqueness {
				values[markClass] = 1
			}
		},
		output: same,
	})
	addLayer(f, 1, bertLayer{
		queryBias: func(values []float32) { values[markSpecial] = -markStrength },
		key: func(row int, values []float32) {
			if row == markSpecial {
				values[row] = 1
			}
		},
		value: func(row int, values []float32) {
			if row == markClass {
				values[uniqueness] = 1
			}
		},
		output: same,
	})
	f.F32("cls.weight", func(row int, values []float32) {
		if row == 0 {
			values[markClass] = -8
		}
	}, bertWidth, bertWidth)
	f.F32("cls.bias", func(_ int, values []float32) { values[0] = 26 }, bertWidth) // a mark of 3.25, half way in its range, scores 0
	f.F32("cls.output.weight", func(_ int, values []float32) { values[0] = 8 }, bertWidth, 1)
	f.F32("cls.output.bias", leaveZero, 1)
	return f
}

func leaveZero(int, []float32) {}

// isText reports whether a piece is text, and not [CLS], [SEP] or [PAD].
func isText(piece int) bool { return piece == unknownPiece || piece >= firstPiece }

// signs fills values with equal numbers of 1 and -1, in random order.
func signs(r *rand.PCG, values []float32) {
	for i := range values {
		values[i] = float32(i%2*2 - 1)
	}
	//nolint:gosec // a model that is the same every time
	rand.New(r).Shuffle(len(values), func(i, j int) { values[i], values[j] = values[j], values[i] })
}

// newBERT returns a BERT without tensors.
func newBERT(name string, pooling, layers uint32) *gguf.File {
	f := new(gguf.File)
	f.String("general.architecture", "bert")
	f.String("general.name", "builtin-"+name)
	f.Uint32("general.file_type", allF32)
	f.Uint32("bert.context_length", bertContext)
	f.Uint32("bert.embedding_length", bertWidth)
	f.Uint32("bert.block_count", layers)
	f.Uint32("bert.feed_forward_length", bertWidth)
	f.Uint32("bert.attention.head_count", 1)
	f.Float32("bert.attention.layer_norm_epsilon", bertEpsilon)
	f.Bool("bert.attention.causal", false)
	f.Uint32("bert.pooling_type", pooling)

	words := pieces()
	kinds := make([]int32, len(words))
	for i := range kinds {
		kinds[i] = normalToken
		if i < firstPiece {
			kinds[i] = controlToken
		}
	}
	f.String("tokenizer.ggml.model", "bert")
	f.String("tokenizer.ggml.pre", "jina-v2-en") // the usual split into words
	f.Strings("tokenizer.ggml.tokens", words)
	f.Int32s("tokenizer.ggml.token_type", kinds)
	f.Uint32("tokenizer.ggml.token_type_count", 1)
	f.Uint32("tokenizer.ggml.unknown_token_id", unknownPiece)
	f.Uint32("tokenizer.ggml.cls_token_id", classPiece)
	f.Uint32("tokenizer.ggml.bos_token_id", classPiece)
	f.Uint32("tokenizer.ggml.seperator_token_id", separatorPiece) // sic: llama.cpp spells the key so
	f.Uint32("tokenizer.ggml.eos_token_id", separatorPiece)
	f.Uint32("tokenizer.ggml.padding_token_id", paddingPiece)
	return f
}

// addInput adds the embeddings of token types and positions, which are 0, and the norm of the
// input embeddings.
func addInput(f *gguf.File) {
	f.F32("token_types.weight", leaveZero, bertWidth, 1)
	f.F32("position_embd.weight", leaveZero, bertWidth, bertContext)
	addNorm(f, "token_embd_norm")
}

func addNorm(f *gguf.File, name string) {
	f.F32(name+".weight", func(_ int, values []float32) {
		for i := range values {
			values[i] = 1
		}
	}, bertWidth)
	f.F32(name+".bias", leaveZero, bertWidth)
}

// A bertLayer is the attention of a layer of a BERT. Each function fills the rows of a matrix, or a
// bias; these are 0 if the function is nil. The feed-forward network of the layer adds nothing.
type bertLayer struct {
	query, key, value, output func(row int, values []float32)
	queryBias                 func(values []float32)
}

func addLayer(f *gguf.File, n int, l bertLayer) {
	block := fmt.Sprintf("blk.%d.", n)
	matrix := func(name string, fill func(int, []float32)) {
		if fill == nil {
			fill = leaveZero
		}
		f.F32(block+name+".weight", fill, bertWidth, bertWidth)
	}
	matrix("attn_q", l.query)
	matrix("attn_k", l.key)
	matrix("attn_v", l.value)
	if l.queryBias != nil {
		f.F32(block+"attn_q.bias", func(_ int, values []float32) { l.queryBias(values) }, bertWidth)
		f.F32(block+"attn_k.bias", leaveZero, bertWidth)
		f.F32(block+"attn_v.bias", leaveZero, bertWidth)
	}
	matrix("attn_output", l.output)
	addNorm(f, block+"attn_output_norm")
	matrix("ffn_up", nil)
	matrix("ffn_down", nil)
	addNorm(f, block+"layer_output_norm")
}
