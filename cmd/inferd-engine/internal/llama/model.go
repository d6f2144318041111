package llama

import (
	"cmp"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	yzma "github.com/hybridgroup/yzma/pkg/llama"
)

// Token is an index into a model's vocabulary.
type Token = int32

// Options are the options of Load.
type Options struct {
	GPULayers int // layers to compute on a GPU, if there is one; a negative number means all
	// Files are the files to read, one for each part of the model, in order. If there are none, Load
	// reads the file at its path, and further parts that llama.cpp finds by the name of that file.
	Files []string
	// Name is the model's name if its file has none. If Name is empty, too, it is the name of the
	// file at the path, without extension.
	Name string
	// Exact must be set for contexts with [ContextOptions.Exact]. Variant is the CPU variant, the
	// result of [OpenBackends].
	Exact   bool
	Variant string
}

// A Model is a model in memory. Its methods may be called from any goroutine.
type Model struct {
	handle   yzma.Model
	vocab    yzma.Vocab
	size     int  // tokens in the vocabulary
	layers   int  // computed on a device other than the CPU
	rowByRow bool // see RowByRow
	stem     string
	symbols  symbols
	scratch  sync.Pool // of *[]yzma.TokenData with an entry per token, for Sampler.Choose
	wedge    wedge     // faults on demand; empty without the tag wedge
}

// Load loads the model of the GGUF file at path into memory. If opt has Files, path only names the
// model. Load calls progress, which may be nil, with a fraction from 0 to 1; a result of false
// cancels the load. Errors have llama.cpp's text, with path in place of the names of Files.
func Load(path string, opt Options, progress func(fraction float64) bool) (*Model, error) {
	files := opt.Files
	if len(files) == 0 {
		files = []string{path}
	}
	for _, f := range files {
		if _, err := os.Stat(f); err != nil {
			return nil, err
		}
	}
	messages.forget()
	messages.name(path, opt.Files)
	params := paramsOf(opt, progress)
	var handle yzma.Model
	var err error
	if len(opt.Files) == 0 {
		handle, err = yzma.ModelLoadFromFile(path, params)
	} else {
		handle, err = yzma.ModelLoadFromSplits(opt.Files, params)
	}
	if err != nil {
		return nil, messages.drain(err.Error())
	}
	m := &Model{handle: handle, vocab: yzma.ModelGetVocab(handle), layers: offloaded(handle, opt.GPULayers), rowByRow: computesRowByRow(opt.Variant)}
	m.stem = cmp.Or(opt.Name, strings.TrimSuffix(filepath.Base(path), filepath.Ext(path)))
	m.size = int(yzma.VocabNTokens(m.vocab))
	if m.size == 0 {
		m.Close()
		return nil, errors.New("the model has no vocabulary")
	}
	m.scratch.New = func() any {
		all := make([]yzma.TokenData, m.size)
		return &all
	}
	if m.symbols, err = findSymbols(); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// paramsOf returns llama.cpp's parameters for loading a model.
func paramsOf(opt Options, progress func(fraction float64) bool) yzma.ModelParams {
	params := yzma.ModelDefaultParams()
	params.NGpuLayers = int32(min(opt.GPULayers, math.MaxInt32))
	if opt.GPULayers < 0 {
		params.NGpuLayers = math.MaxInt32
	}
	if opt.Exact && !computesRowByRow(opt.Variant) {
		params.UseExtraBufts = 0 // the kernels for repacked weights compute four rows at a time, and remaining rows differently
	}
	if progress != nil {
		params.SetProgressCallback(func(fraction float32, _ uintptr) uint8 {
			if progress(float64(fraction)) {
				return 1
			}
			return 0
		})
	}
	return params
}

// offloaded returns the number of a model's layers on a device other than the CPU. wanted is the
// requested number; a negative one means all.
func offloaded(handle yzma.Model, wanted int) int {
	if !yzma.SupportsGpuOffload() { // there is no device but the CPU
		return 0
	}
	all := int(yzma.ModelNLayer(handle)) + 1 // the output layer
	if wanted < 0 {
		return all
	}
	return min(wanted, all)
}

// RowByRow reports whether the CPU computes all layers, with kernels that compute each row of a batch
// separately.
func (m *Model) RowByRow() bool { return m.rowByRow && m.layers == 0 }

// GPULayers returns the number of layers computed on a device other than the CPU.
func (m *Model) GPULayers() int { return m.layers }

// HasPooling reports whether the model's file names a pooling method other than none.
func (m *Model) HasPooling() bool {
	architecture, _ := m.Metadata("general.architecture")
	kind, ok := m.Metadata(architecture + ".pooling_type")
	return ok && kind != "0"
}

// Close frees the model. Its contexts and samplers must be closed first.
func (m *Model) Close() { _ = yzma.ModelFree(m.handle) }

// Name is the model's name in its file, or if the file has none, [Options.Name] or the file's name
// without extension.
func (m *Model) Name() string {
	if name, ok := m.Metadata("general.name"); ok && name != "" {
		return name
	}
	return m.stem
}

// Metadata returns the value of a key of the GGUF file as text, and reports whether the file has the
// key. A key with an array as its value counts as missing.
func (m *Model) Metadata(key string) (string, bool) { return yzma.ModelMetaValStr(m.handle, key) }

// Params is the number of weights.
func (m *Model) Params() uint64 { return yzma.ModelNParams(m.handle) }

// Size is the size of all weights in bytes.
func (m *Model) Size() uint64 { return yzma.ModelSize(m.handle) }

// Architecture is the name of the model's architecture in its file, such as "llama".
func (m *Model) Architecture() string {
	name, _ := m.Metadata("general.architecture")
	return name
}

// Quantization is the name of the format of most weights, such as "Q4_K_M". It is empty if the file
// names none, or an unknown one.
func (m *Model) Quantization() string {
	kind, _ := m.Metadata("general.file_type")
	return quantizations[kind]
}

// quantizations maps general.file_type to the names that llama.cpp's tools use.
var quantizations = map[string]string{
	"0": "F32", "1": "F16", "2": "Q4_0", "3": "Q4_1", "7": "Q8_0", "8": "Q5_0", "9": "Q5_1",
	"10": "Q2_K", "11": "Q3_K_S", "12": "Q3_K_M", "13": "Q3_K_L", "14": "Q4_K_S", "15": "Q4_K_M",
	"16": "Q5_K_S", "17": "Q5_K_M", "18": "Q6_K", "19": "IQ2_XXS", "20": "IQ2_XS", "21": "Q2_K_S",
	"22": "IQ3_XS", "23": "IQ3_XXS", "24": "IQ1_S", "25": "IQ4_NL", "26": "IQ3_S", "27": "IQ3_M",
	"28": "IQ2_S", "29": "IQ2_M", "30": "IQ4_XS", "31": "IQ1_M", "32": "BF16", "36": "TQ1_0",
	"37": "TQ2_0", "38": "MXFP4",
}

// NTokens is the number of tokens in the vocabulary.
func (m *Model) NTokens() int { return m.size }

// ContextTrained is the number of tokens of context for which the model was trained.
func (m *Model) ContextTrained() int { return int(yzma.ModelNCtxTrain(m.handle)) }

// bidirectional lists the architectures that have bidirectional attention even if the file does not declare
// it (attention.causal): models for embeddings, and models that generate by diffusion.
var bidirectional = []string{"gemma-embedding", "dream", "llada", "llada-moe", "rnd1"}

// IsGenerative reports whether the model generates text. Models with an encoder, and models with
// bidirectional attention, do not.
func (m *Model) IsGenerative() bool {
	if !yzma.ModelHasDecoder(m.handle) || yzma.ModelHasEncoder(m.handle) {
		return false
	}
	architecture, _ := m.Metadata("general.architecture")
	if slices.Contains(bidirectional, architecture) {
		return false
	}
	causal, ok := m.Metadata(architecture + ".attention.causal")
	return !ok || causal != "false"
}

// CanTruncate reports whether a sequence in the cache can be truncated, or copied in part.
// Recurrent and hybrid models keep only their latest state: their sequences can only be copied
// or dropped whole.
func (m *Model) CanTruncate() bool {
	architecture, _ := m.Metadata("general.architecture")
	return !yzma.ModelIsRecurrent(m.handle) && !yzma.ModelIsHybrid(m.handle) && architecture != archDeepSeek4
}

// archDeepSeek4 is an architecture with sums over several tokens in its cache: llama.cpp ends the
// process when a part of a sequence is copied.
const archDeepSeek4 = "deepseek4"

// ChatTemplate is the Jinja source of the chat template in the model's file, or empty if the file has
// none. For such a file llama.cpp may return the name of a template of its own, which is not Jinja source.
func (m *Model) ChatTemplate() string {
	if _, ok := m.Metadata("tokenizer.chat_template"); !ok {
		return ""
	}
	return yzma.ModelChatTemplate(m.handle, "")
}

// BOS is the token at the beginning of a text, if the model has one.
func (m *Model) BOS() (Token, bool) {
	tok := Token(yzma.VocabBOS(m.vocab))
	return tok, m.valid(tok)
}

// EOS is the token at the end of a text, if the model has one.
func (m *Model) EOS() (Token, bool) {
	tok := Token(yzma.VocabEOS(m.vocab))
	return tok, m.valid(tok)
}

// valid reports whether a token is in the vocabulary: llama.cpp ends the process if it gets any
// other token.
func (m *Model) valid(tok Token) bool { return tok >= 0 && int(tok) < m.size }

// AddBOS reports whether a prompt should begin with BOS.
func (m *Model) AddBOS() bool { return yzma.VocabGetAddBOS(m.vocab) }

// IsEOG reports whether a token ends an answer.
func (m *Model) IsEOG(tok Token) bool { return m.valid(tok) && m.isEOG(tok) }

// controls are the attributes of tokens without text.
const controls = yzma.TokenAttrControl | yzma.TokenAttrUnknown

// IsControl reports whether a token is a control or unknown token, which has no text.
func (m *Model) IsControl(tok Token) bool {
	return m.valid(tok) && m.attr(tok)&controls != 0
}

// TokenText is the spelling of a token in the vocabulary, also of a control token. It is empty for a
// token outside the vocabulary.
func (m *Model) TokenText(tok Token) string {
	if !m.valid(tok) {
		return ""
	}
	return yzma.VocabGetText(m.vocab, yzma.Token(tok))
}

// Tokenize splits text into tokens. If special is set, the spelling of a control token becomes that
// token; otherwise it is ordinary text. BOS is never added.
func (m *Model) Tokenize(text string, special bool) ([]Token, error) {
	return m.tokenize(text, special, false)
}

// TokenizeWhole splits text into tokens, and adds the tokens that the model puts at the beginning and
// the end of a text. Spellings of control tokens are ordinary text.
func (m *Model) TokenizeWhole(text string) ([]Token, error) { return m.tokenize(text, false, true) }

// TokenizePair makes one sequence of a query and a document, as in the training of rerankers: BOS, then
// each of the two texts, followed by the end token, the separator or both. Each of these tokens is there
// only if the model adds it to texts.
func (m *Model) TokenizePair(query, document string) ([]Token, error) {
	var tokens []Token
	add := func(tok yzma.Token, wanted bool) {
		if wanted && m.valid(Token(tok)) {
			tokens = append(tokens, Token(tok))
		}
	}
	addEOS, addSEP := yzma.VocabGetAddEOS(m.vocab), yzma.VocabGetAddSEP(m.vocab)
	eos := yzma.VocabEOS(m.vocab)
	if !m.valid(Token(eos)) {
		eos = yzma.VocabSEP(m.vocab)
	}
	add(yzma.VocabBOS(m.vocab), m.AddBOS())
	for i, text := range []string{query, document} {
		cut, err := m.tokenize(text, false, false)
		if err != nil {
			return nil, err
		}
		tokens = append(tokens, cut...)
		add(eos, addEOS)
		// A model with both EOS and SEP has both between query and document, but only EOS at the end.
		add(yzma.VocabSEP(m.vocab), addSEP && (i == 0 || !addEOS))
	}
	return tokens, nil
}

// Width is the number of values in an embedding vector of the model.
func (m *Model) Width() int { return int(yzma.ModelNEmbdOut(m.handle)) }

// IsReranker reports whether the model was trained to score pairs of texts.
func (m *Model) IsReranker() bool {
	architecture, _ := m.Metadata("general.architecture")
	pooling, _ := m.Metadata(architecture + ".pooling_type")
	return pooling == rankPooling
}

// rankPooling is the value of pooling_type in files of rerankers.
const rankPooling = "4"

// AppendPiece appends the bytes of a token's text to dst; they need not be whole characters. For a
// control token, or one outside the vocabulary, it appends none. It allocates only if dst lacks room.
func (m *Model) AppendPiece(dst []byte, tok Token) []byte {
	if !m.valid(tok) {
		return dst
	}
	const most = 64 // bytes; enough for nearly every token
	for room := most; ; {
		if cap(dst)-len(dst) < room {
			dst = append(make([]byte, 0, len(dst)+2*room), dst...)
		}
		n := m.piece(tok, dst[len(dst):cap(dst)])
		if n >= 0 {
			return dst[:len(dst)+n]
		}
		room = -n
	}
}
