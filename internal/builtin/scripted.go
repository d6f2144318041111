package builtin

import (
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/inferd-go/inferd/internal/gguf"
)

// Scripted describes a model that writes given tokens, for tests of the code that reads the output of
// a model. The tokens may include control tokens, and may divide the text anywhere. Unlike the model
// of [Script] it may write a token twice: the next token depends on the distance from a control token
// of the prompt, see [Recital]. Its tokenizer turns each byte of text into one token, and the spelling
// of a control token into that token.
//
// If a mask forbids the token of the script, the model writes the likeliest other token instead, and
// continues with the next token of the script. Of the other tokens, the end of the turn is likeliest,
// then come the characters that close a JSON value, and then all remaining tokens.
type Scripted struct {
	// Template is a chat template in Jinja; empty is none.
	Template string
	// Controls are control tokens besides <|bos|>, <|im_start|>, <|im_end|> and <|pad|>. llama.cpp
	// decides by their spelling which of them end an answer.
	Controls []string
	// Unused are tokens of the type "unused": the tokenizer never makes them from text.
	Unused []string
	// Defined are tokens of the type "user-defined": they are text, and the tokenizer finds them in
	// any text.
	Defined []string
	// Recitals are the answers of the model, each after a control token of its own. They have at most
	// 1,287 tokens in all, including the end of each answer.
	Recitals []Recital
	// Wrong are tokens that are always likelier than the token of the script.
	Wrong []string
	// Random, if not 0, is the seed of random weights that replace the script. With them, all tokens but
	// the four common control tokens are about equally likely. The tokens of the script stay in the
	// vocabulary.
	Random uint64
}

// A Recital is an answer and its position in a conversation.
type Recital struct {
	// After is a control token that occurs once in the prompt. The answer begins Skip tokens after
	// it.
	After string
	Skip  int
	// Tokens are the answer: spellings of control tokens or of unused ones, or texts of one or more
	// bytes. The model writes <|im_end|> after them.
	Tokens []string
}

// Write writes the file of the model.
func (s *Scripted) Write(w io.Writer) error {
	f, err := s.file()
	if err != nil {
		return err
	}
	if _, err := f.WriteTo(w); err != nil {
		return fmt.Errorf("write scripted model: %w", err)
	}
	return nil
}

func (s *Scripted) file() (*gguf.File, error) {
	x := &lexicon{template: s.Template, marks: s.Controls, unused: s.Unused, defined: s.Defined}
	p := &scriptBuilder{x: x, first: make(map[int]int), slots: make(map[int]int)}
	for _, text := range s.Wrong {
		x.include(text)
	}
	for _, r := range s.Recitals {
		for i, text := range r.Tokens {
			if text == "" {
				return nil, fmt.Errorf("scripted model: token %d of an answer has no text", i)
			}
			x.include(text)
		}
	}
	for _, r := range s.Recitals {
		if err := p.add(&r); err != nil {
			return nil, err
		}
	}
	if len(p.script) > maxScript {
		return nil, fmt.Errorf("scripted model: the answers with their ends have %d tokens, at most %d are possible", len(p.script), maxScript)
	}
	for _, text := range s.Wrong {
		p.wrong = append(p.wrong, x.find(text))
	}
	if s.Random != 0 {
		small := shape{embd: scriptWidth, layers: 2, ff: 128, heads: 1, kvHeads: 1, context: contextLength, fileType: allF32}
		return small.file("scripted", x, babble(rand.NewPCG(s.Random, 2))), nil
	}
	return p.file(), nil
}

// add adds an answer to the script.
func (p *scriptBuilder) add(r *Recital) error {
	after := p.x.find(r.After)
	_, again := p.first[after]
	switch {
	case r.Skip < 0 || len(r.Tokens) == 0:
		return fmt.Errorf("scripted model: the answer after %q has %d tokens and skips %d: want at least 1 token, and 0 or more to skip", r.After, len(r.Tokens), r.Skip)
	case after < beginning || after >= vocabulary+len(p.x.marks):
		return fmt.Errorf("scripted model: %q is no control token", r.After)
	case again:
		return fmt.Errorf("scripted model: two answers after %q", r.After)
	}
	p.anchors = append(p.anchors, after)
	p.first[after] = len(p.script) - r.Skip
	for _, text := range r.Tokens {
		p.script = append(p.script, p.x.find(text))
	}
	p.script = append(p.script, endOfTurn)
	for _, token := range p.script {
		if _, ok := p.slots[token]; !ok {
			p.slots[token] = len(p.slots)
		}
	}
	return nil
}

// include adds a text to the vocabulary unless it already has a token. It adds no merge, so the
// tokenizer never yields the new token.
func (x *lexicon) include(text string) {
	if text != "" && x.find(text) < 0 {
		x.words = append(x.words, spelling(text))
	}
}

// find returns the token with a text, or -1 if there is none.
func (x *lexicon) find(text string) int {
	if i := slices.Index(commonControls[:], text); i >= 0 {
		return beginning + i
	}
	if i := slices.Index(x.marks, text); i >= 0 {
		return vocabulary + i
	}
	if i := slices.Index(x.unused, text); i >= 0 {
		return vocabulary + len(x.marks) + len(x.words) + i
	}
	if i := slices.Index(x.defined, text); i >= 0 {
		return vocabulary + len(x.marks) + len(x.words) + len(x.unused) + i
	}
	if len(text) == 1 {
		return int(text[0])
	}
	if i := slices.Index(x.words, spelling(text)); i >= 0 {
		return vocabulary + len(x.marks) + i
	}
	return -1
}

// spelling returns the spelling of a text in the vocabulary; see byteRunes.
func spelling(text string) string {
	runes := byteRunes()
	all := make([]rune, len(text))
	for i := range len(text) {
		all[i] = runes[text[i]]
	}
	return string(all)
}

// periods are divisors. The remainders that they leave identify a distance: they are pairwise coprime,
// so all distances below their product differ in a remainder. Remainders are written in binary.
var periods = [...]int{9, 11, 13}

// scriptWidth is the width of an attention head of a scripted model. On a processor with AVX-512,
// llama.cpp computes narrower heads number by number, which takes three times as long.
const scriptWidth = 64

const (
	maxScript = 9 * 11 * 13
	digitBits = 4             // of a remainder
	signBits  = digitBits * 3 // of all remainders
	heads     = signBits + 1
)

// A scriptBuilder is a scripted model under construction. Its answers, one after the other, form one
// script. The control token after which an answer begins is an anchor.
//
// All tokens have the same embedding, except that an anchor's embedding also identifies the anchor.
// Attention has one head for each bit of each remainder, and one for the anchor alone. The rotation
// of a pair of dimensions by position makes the score of the anchor depend on the distance to it. A
// head has pairs with the frequencies of its period, so its score is a Fourier series, which is high
// where its bit is set and low elsewhere. In this way the heads write the bits of the remainders, as
// 1 or -1. Each neuron of the feed-forward network stands for an index of the script: it is active if
// all bits are those of the index, and writes the token at that index.
type scriptBuilder struct {
	x       *lexicon
	script  []int       // tokens
	anchors []int       // see Recital.After
	slots   map[int]int // numbers of the distinct tokens of the script, by token
	first   map[int]int // by anchor: index in the script of the token right after it
	wrong   []int
}

// The first dimensions of the residual stream. The dimensions of the anchors, of the bits and of the
// tokens of the script follow.
const (
	present   = iota // 1 for all tokens
	liking           // written for all tokens: output weights on it make some tokens likelier than others
	firstFlag        // the first of the dimensions that identify anchors
)

func (p *scriptBuilder) sign(bit int) int { return firstFlag + len(p.anchors) + bit }

// token returns the dimension of a token, or -1 if the script does not have it.
func (p *scriptBuilder) token(token int) int {
	if i, ok := p.slots[token]; ok {
		return p.sign(signBits) + i
	}
	return -1
}

// Magnitudes of the values in the residual stream.
const (
	signSize    = 4.0   // of the bits
	writtenSize = 100.0 // of the tokens and of liking
	activity    = 30.0  // of an active neuron
	sharpness   = 30.0  // score of an anchor if the bit is set, and minus its score if not
	gain        = 4.0   // of the output
)

func (p *scriptBuilder) file() *gguf.File {
	embd := (p.sign(signBits) + len(p.slots) + scriptWidth - 1) / scriptWidth * scriptWidth
	root := math.Sqrt(float64(embd))
	f := new(gguf.File)
	p.metadata(f, uint32(embd))
	f.F32("rope_freqs.weight", func(_ int, values []float32) { copy(values, factors()) }, scriptWidth/2)
	n, tokens, ff := uint64(embd), uint64(p.x.tokens()), uint64(len(p.script)+1)
	f.F32("token_embd.weight", func(row int, values []float32) {
		values[present] = 1
		if i := slices.Index(p.anchors, row); i >= 0 {
			values[firstFlag+i] = 1
		}
	}, n, tokens)
	f.F32("blk.0.attn_norm.weight", always(1), n)
	// The norm scales a single value of 1 to √n, and each of two to √(n/2).
	f.F32("blk.0.attn_q.weight", func(row int, values []float32) {
		values[present] = float32(query(row/scriptWidth, row%scriptWidth) * math.Sqrt(scriptWidth) / root)
	}, n, heads*scriptWidth)
	f.F32("blk.0.attn_k.weight", func(row int, values []float32) {
		for i, anchor := range p.anchors {
			values[firstFlag+i] = float32(key(row, p.first[anchor]) * math.Sqrt2 / root)
		}
	}, n, scriptWidth)
	f.F32("blk.0.attn_v.weight", func(row int, values []float32) {
		if row == 0 {
			for i := range p.anchors {
				values[firstFlag+i] = float32(math.Sqrt2 / root)
			}
		}
	}, n, scriptWidth)
	f.F32("blk.0.attn_output.weight", func(row int, values []float32) {
		if bit := row - p.sign(0); bit >= 0 && bit < signBits {
			values[bit*scriptWidth] = 2 * signSize
			values[signBits*scriptWidth] = -signSize
		}
	}, heads*scriptWidth, n)
	p.addFeedForward(f, root, n, ff)
	f.F32("output_norm.weight", always(1), n)
	f.F32("output.weight", p.output, n, tokens)
	return f
}

// addFeedForward adds the feed-forward network: a neuron for each index of the script, and a last neuron, which
// is always active.
func (p *scriptBuilder) addFeedForward(f *gguf.File, root float64, n, ff uint64) {
	norm := math.Sqrt(1+signBits*signSize*signSize) / root // of the residual stream after the attention
	f.F32("blk.0.ffn_norm.weight", always(1), n)
	f.F32("blk.0.ffn_gate.weight", func(row int, values []float32) {
		if row == len(p.script) {
			values[present] = float32(activity * norm)
			return
		}
		size := activity * norm / signSize
		values[present] = float32(-size * signSize * (signBits - 1)) // the bits of any other index sum to at least 2 * signSize less
		for bit := range signBits {
			values[p.sign(bit)] = float32(size * sign(row, bit))
		}
	}, n, ff)
	f.F32("blk.0.ffn_up.weight", func(_ int, values []float32) { values[present] = float32(norm) }, n, ff)
	f.F32("blk.0.ffn_down.weight", func(row int, values []float32) {
		if row == liking {
			values[len(p.script)] = writtenSize / activity
		}
		for index, token := range p.script {
			if p.token(token) == row {
				values[index] = writtenSize / activity
			}
		}
	}, ff, n)
}

// output fills the row of a token in the output matrix. The weights make the token of the script
// likelier than any other except those in p.wrong.
func (p *scriptBuilder) output(token int, values []float32) {
	if at := p.token(token); at >= 0 {
		values[at] = 2 * gain
	}
	switch {
	case slices.Contains(p.wrong, token):
		values[liking] = 4 * gain
	case token == endOfTurn:
		values[liking] = 0.9 * gain
	default:
		closing := []int{'(', '0', ')', ']', '}', '"'}
		values[liking] = float32(slices.Index(closing, token)+1) * gain / 8
	}
}

func (p *scriptBuilder) metadata(f *gguf.File, embd uint32) {
	f.String("general.architecture", "llama")
	f.String("general.name", "builtin-scripted")
	f.Uint32("general.file_type", allF32)
	f.Uint32("general.quantization_version", 2)
	f.Uint32("llama.context_length", contextLength)
	f.Uint32("llama.embedding_length", embd)
	f.Uint32("llama.block_count", 1)
	f.Uint32("llama.feed_forward_length", uint32(len(p.script)+1))
	f.Uint32("llama.attention.head_count", heads)
	f.Uint32("llama.attention.head_count_kv", 1)
	f.Uint32("llama.attention.key_length", scriptWidth)
	f.Uint32("llama.attention.value_length", scriptWidth)
	f.Uint32("llama.rope.dimension_count", scriptWidth)
	f.Float32("llama.rope.freq_base", ropeBase)
	f.Float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
	p.x.add(f)
}
