package builtin

import (
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/inferd-go/inferd/internal/gguf"
)

// Scripted describes a model that writes given tokens with any borders between them, control tokens
// included, for tests of what follows a model. Unlike the model of [Script] it may write a token twice: which
// one comes next depends on the distance from a control token of the prompt, see [Recital]. Its tokenizer turns
// text into bytes, one token each, and the spellings of control tokens into these.
//
// A token that a mask forbids is replaced by the likeliest of the others, and the script goes on behind it: the end
// of the turn, then the characters that close a value of JSON, then any other.
type Scripted struct {
	// Template is a chat template in Jinja; empty is none.
	Template string
	// Controls are control tokens besides <|bos|>, <|im_start|>, <|im_end|> and <|pad|>. llama.cpp
	// knows by their spelling which of them end an answer.
	Controls []string
	// Unused are tokens that no text has.
	Unused []string
	// Defined are tokens that users define: they have a text, and the tokenizer finds them in any text.
	Defined []string
	// Recitals are what the model writes, each behind a token of its own: less than 1,287 tokens in all.
	Recitals []Recital
	// Wrong are tokens that are always likelier than the right one.
	Wrong []string
	// Random replaces the script by random weights, under which all tokens but the four common control tokens
	// are about equally likely; the tokens of the script stay in the vocabulary. 0 is no such model.
	Random uint64
}

// A Recital is an answer and its place in a conversation.
type Recital struct {
	// After is a control token that the prompt has once: the answer begins Skip tokens behind it.
	After string
	Skip  int
	// Tokens are the answer: the spelling of a control token or of an unused one, else a text of one or more bytes.
	// Behind them comes <|im_end|>.
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
	p := &play{x: x, first: make(map[int]int), slots: make(map[int]int)}
	for _, text := range s.Wrong {
		x.include(text)
	}
	for _, r := range s.Recitals {
		for i, text := range r.Tokens {
			if text == "" {
				return nil, fmt.Errorf("scripted model: a token of an answer with no text: %d", i)
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
		return nil, fmt.Errorf("scripted model: %d tokens and ends, %d are possible", len(p.script), maxScript)
	}
	for _, text := range s.Wrong {
		p.wrong = append(p.wrong, x.find(text))
	}
	if s.Random != 0 {
		small := shape{embd: 64, layers: 2, ff: 128, heads: 4, kvHeads: 2, context: contextLength, fileType: allF32}
		return small.file("scripted", x, babble(rand.NewPCG(s.Random, 2))), nil
	}
	return p.file(), nil
}

// add adds an answer to the script.
func (p *play) add(r *Recital) error {
	after := p.x.find(r.After)
	_, again := p.first[after]
	switch {
	case r.Skip < 0 || len(r.Tokens) == 0:
		return fmt.Errorf("scripted model: %d tokens behind %q, %d to skip", len(r.Tokens), r.After, r.Skip)
	case after < beginning || after >= vocabulary+len(p.x.marks):
		return fmt.Errorf("scripted model: %q is no control token", r.After)
	case again:
		return fmt.Errorf("scripted model: two answers behind %q", r.After)
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

// include adds a text to the vocabulary unless it is a token. No merge leads to it, so that no text becomes it.
func (x *lexicon) include(text string) {
	if text != "" && x.find(text) < 0 {
		x.words = append(x.words, spelling(text))
	}
}

// find returns the token with a text; negative is none.
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

// spelling returns a text as it stands in a vocabulary.
func spelling(text string) string {
	runes := byteRunes()
	all := make([]rune, len(text))
	for i := range len(text) {
		all[i] = runes[text[i]]
	}
	return string(all)
}

// periods are the numbers of which a distance is known by its remainders: they have no common divisor, so
// all distances below their product are told apart. The remainders are binary numbers.
var periods = [...]int{9, 11, 13}

const (
	maxScript = 9 * 11 * 13
	digitBits = 4             // of a remainder
	signBits  = digitBits * 3 // of all remainders
	heads     = signBits + 1
)

// A play is a scripted model in the making. All of its answers stand in one script, one behind the other.
//
// The embedding of a token says only that it is a token, and which anchor it is. Attention has one head for each
// bit of each remainder, and one for the anchor alone. The rotation of a pair of dimensions by position makes the score
// of the anchor depend on the distance to it: a head has pairs with the frequencies of its period, so that its score is a
// Fourier series, high where its bit is set and low where it is not. So the heads write the bits of the remainders,
// as 1 or -1. Each neuron of the feed-forward network is a place in the script: it is active if all bits
// are its own, and writes the token of that place.
type play struct {
	x       *lexicon
	script  []int       // tokens
	anchors []int       // tokens behind which an answer begins
	slots   map[int]int // of the tokens of the script: their number among its different ones
	first   map[int]int // of an anchor, the place in the script of the token right behind it
	wrong   []int
}

// Dimensions of the residual stream. Behind them come the anchors, the bits and the tokens of the script.
const (
	present   = iota // 1 for all tokens
	liking           // written for all tokens: output weights on it say which tokens are likelier than others
	firstFlag        // of the anchors
)

func (p *play) sign(bit int) int { return firstFlag + len(p.anchors) + bit }

// token returns the dimension of a token of the script; negative is none.
func (p *play) token(token int) int {
	if i, ok := p.slots[token]; ok {
		return p.sign(signBits) + i
	}
	return -1
}

// Magnitudes of the residual stream.
const (
	signSize    = 4.0   // of the bits
	writtenSize = 100.0 // of the tokens and of liking
	activity    = 30.0  // of an active neuron
	sharpness   = 30.0  // score of an anchor where a bit is set; else it is the negative
	gain        = 4.0   // of the output
)

func (p *play) file() *gguf.File {
	embd := (p.sign(signBits) + len(p.slots) + headWidth - 1) / headWidth * headWidth
	root := math.Sqrt(float64(embd))
	f := new(gguf.File)
	p.metadata(f, uint32(embd))
	f.F32("rope_freqs.weight", func(_ int, values []float32) { copy(values, factors()) }, headWidth/2)
	n, tokens, ff := uint64(embd), uint64(p.x.tokens()), uint64(len(p.script)+1)
	f.F32("token_embd.weight", func(row int, values []float32) {
		values[present] = 1
		if i := slices.Index(p.anchors, row); i >= 0 {
			values[firstFlag+i] = 1
		}
	}, n, tokens)
	f.F32("blk.0.attn_norm.weight", always(1), n)
	// A norm makes the only value √n, and √(n/2) each of two.
	f.F32("blk.0.attn_q.weight", func(row int, values []float32) {
		values[present] = float32(query(row/headWidth, row%headWidth) * math.Sqrt(headWidth) / root)
	}, n, heads*headWidth)
	f.F32("blk.0.attn_k.weight", func(row int, values []float32) {
		for i, anchor := range p.anchors {
			values[firstFlag+i] = float32(key(row, p.first[anchor]) * math.Sqrt2 / root)
		}
	}, n, headWidth)
	f.F32("blk.0.attn_v.weight", func(row int, values []float32) {
		if row == 0 {
			for i := range p.anchors {
				values[firstFlag+i] = float32(math.Sqrt2 / root)
			}
		}
	}, n, headWidth)
	f.F32("blk.0.attn_output.weight", func(row int, values []float32) {
		if bit := row - p.sign(0); bit >= 0 && bit < signBits {
			values[bit*headWidth] = 2 * signSize
			values[signBits*headWidth] = -signSize
		}
	}, heads*headWidth, n)
	p.places(f, root, n, ff)
	f.F32("output_norm.weight", always(1), n)
	f.F32("output.weight", p.output, n, tokens)
	return f
}

// places adds the feed-forward network: a neuron for each place, and one that is always active.
func (p *play) places(f *gguf.File, root float64, n, ff uint64) {
	norm := math.Sqrt(1+signBits*signSize*signSize) / root // of what attention leaves
	f.F32("blk.0.ffn_norm.weight", always(1), n)
	f.F32("blk.0.ffn_gate.weight", func(row int, values []float32) {
		if row == len(p.script) {
			values[present] = float32(activity * norm)
			return
		}
		size := activity * norm / signSize
		values[present] = float32(-size * signSize * (signBits - 1)) // the next best place has two less
		for bit := range signBits {
			values[p.sign(bit)] = float32(size * sign(row, bit))
		}
	}, n, ff)
	f.F32("blk.0.ffn_up.weight", func(_ int, values []float32) { values[present] = float32(norm) }, n, ff)
	f.F32("blk.0.ffn_down.weight", func(row int, values []float32) {
		if row == liking {
			values[len(p.script)] = writtenSize / activity
		}
		for place, token := range p.script {
			if p.token(token) == row {
				values[place] = writtenSize / activity
			}
		}
	}, ff, n)
}

// output is a row of the output matrix. The token of the script is ahead of those that are only liked.
func (p *play) output(token int, values []float32) {
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

func (p *play) metadata(f *gguf.File, embd uint32) {
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
	f.Uint32("llama.attention.key_length", headWidth)
	f.Uint32("llama.attention.value_length", headWidth)
	f.Uint32("llama.rope.dimension_count", headWidth)
	f.Float32("llama.rope.freq_base", ropeBase)
	f.Float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
	p.x.add(f)
}

const ropeBase = 10000

// sign returns a bit of the remainders of a place, as 1 or -1.
func sign(place, bit int) float64 {
	if place%periods[bit/digitBits]>>(bit%digitBits)&1 == 1 {
		return 1
	}
	return -1
}

// pairs calls each for the pairs of dimensions that rotate, with the period and the frequency of each, in
// radians a token. The last pair of a head does not rotate.
func pairs(each func(pair, period int, frequency float64)) {
	pair := 0
	for i, period := range periods {
		for harmonic := 1; harmonic <= period/2; harmonic++ {
			each(pair, i, 2*math.Pi*float64(harmonic)/float64(period))
			pair++
		}
	}
}

// still is the first dimension of the pair that does not rotate.
const still = headWidth - 2

// factors divide llama's frequencies, so that those of [pairs] are left.
func factors() []float32 {
	all := slices.Repeat([]float32{1e12}, headWidth/2)
	pairs(func(pair, _ int, frequency float64) {
		all[pair] = float32(math.Pow(ropeBase, -2*float64(pair)/headWidth) / frequency)
	})
	return all
}

// query returns a dimension of the query of a head: a coefficient of the Fourier series of its bit.
func query(head, dimension int) (value float64) {
	if head == signBits {
		if dimension == still {
			value = sharpness
		}
		return value
	}
	period := periods[head/digitBits]
	if dimension == still {
		for remainder := range period {
			value += sharpness * sign(remainder, head) / float64(period)
		}
	}
	pairs(func(pair, own int, frequency float64) {
		if own != head/digitBits || dimension/2 != pair {
			return
		}
		for remainder := range period {
			sin, cos := math.Sincos(float64(remainder) * frequency)
			if dimension%2 == 1 {
				cos = -sin
			}
			value += 2 * sharpness * sign(remainder, head) * cos / float64(period)
		}
	})
	return value
}

// key returns a dimension of the key of an anchor, which seems to stand first tokens earlier than it does.
func key(dimension, first int) (value float64) {
	if dimension == still {
		return 1
	}
	pairs(func(pair, _ int, frequency float64) {
		switch dimension {
		case 2 * pair:
			value = math.Cos(-float64(first) * frequency)
		case 2*pair + 1:
			value = math.Sin(-float64(first) * frequency)
		}
	})
	return value
}
