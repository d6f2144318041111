package llama

import (
	"fmt"
	"math"
	"os"
	"strings"

	yzma "github.com/hybridgroup/yzma/pkg/llama"
)

// Token is an index into a model's vocabulary.
type Token = int32

// Options say how a model is loaded.
type Options struct {
	GPULayers int // layers to compute on a GPU, if there is one
}

// A Model is a model in memory. Its methods may be called from any goroutine.
type Model struct {
	handle yzma.Model
	vocab  yzma.Vocab
	size   int // tokens in the vocabulary
}

// Load brings the model of a GGUF file into memory. Progress is called with a fraction
// from 0 to 1 as it goes; false ends the load. It may be nil. The error says what
// llama.cpp says.
func Load(path string, opt Options, progress func(fraction float64) bool) (*Model, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	params := yzma.ModelDefaultParams()
	params.NGpuLayers = int32(min(max(opt.GPULayers, 0), math.MaxInt32))
	if progress != nil {
		params.SetProgressCallback(func(fraction float32, _ uintptr) uint8 {
			if progress(float64(fraction)) {
				return 1
			}
			return 0
		})
	}
	handle, err := yzma.ModelLoadFromFile(path, params)
	if err != nil {
		return nil, messages.drain(err.Error())
	}
	m := &Model{handle: handle, vocab: yzma.ModelGetVocab(handle)}
	m.size = int(yzma.VocabNTokens(m.vocab))
	if m.size == 0 {
		m.Close()
		return nil, fmt.Errorf("the model has no vocabulary")
	}
	return m, nil
}

// Close gives the model's memory back. Its contexts and samplers must be closed before.
func (m *Model) Close() { _ = yzma.ModelFree(m.handle) }

// Name is what the model calls itself, or what llama.cpp calls its kind.
func (m *Model) Name() string {
	if name, ok := yzma.ModelMetaValStr(m.handle, "general.name"); ok && name != "" {
		return name
	}
	return yzma.ModelDesc(m.handle)
}

// ContextTrained is how many tokens of context the model was made for.
func (m *Model) ContextTrained() int { return int(yzma.ModelNCtxTrain(m.handle)) }

// Generates reports whether the model writes text: one that only encodes does not.
func (m *Model) Generates() bool {
	if !yzma.ModelHasDecoder(m.handle) || yzma.ModelHasEncoder(m.handle) {
		return false
	}
	causal, ok := yzma.ModelMetaValStr(m.handle, m.architecture()+".attention.causal")
	return !ok || causal != "false"
}

func (m *Model) architecture() string {
	name, _ := yzma.ModelMetaValStr(m.handle, "general.architecture")
	return name
}

// ChatTemplate is the Jinja source of the model's template, empty if it has none.
func (m *Model) ChatTemplate() string { return yzma.ModelChatTemplate(m.handle, "") }

// BOS is the token that a text begins with, if the model has one.
func (m *Model) BOS() (Token, bool) { return m.has(yzma.VocabBOS(m.vocab)) }

// EOS is the token that a text ends with, if the model has one.
func (m *Model) EOS() (Token, bool) { return m.has(yzma.VocabEOS(m.vocab)) }

func (m *Model) has(tok yzma.Token) (Token, bool) {
	return Token(tok), tok >= 0 && int(tok) < m.size
}

// AddBOS reports whether a prompt should begin with BOS.
func (m *Model) AddBOS() bool { return yzma.VocabGetAddBOS(m.vocab) }

// IsEOG reports whether a token ends an answer.
func (m *Model) IsEOG(tok Token) bool { return yzma.VocabIsEOG(m.vocab, yzma.Token(tok)) }

// Spelling is how a token is written in the vocabulary, control tokens included.
func (m *Model) Spelling(tok Token) string {
	if _, ok := m.has(yzma.Token(tok)); !ok {
		return ""
	}
	return yzma.VocabGetText(m.vocab, yzma.Token(tok))
}

// Specials are the spellings that [Model.Tokenize] turns into control tokens when it is
// told to look for them.
func (m *Model) Specials() []string {
	var all []string
	for tok := range Token(m.size) {
		control := yzma.VocabGetAttr(m.vocab, yzma.Token(tok))&(yzma.TokenAttrControl|yzma.TokenAttrUnknown) != 0
		if control || m.IsEOG(tok) {
			if text := m.Spelling(tok); text != "" {
				all = append(all, text)
			}
		}
	}
	return all
}

// Tokenize cuts text into tokens. With special, spellings of control tokens become those;
// without, they are text like any other. BOS is never added.
func (m *Model) Tokenize(text string, special bool) ([]Token, error) {
	if text == "" {
		return nil, nil
	}
	if len(text) > math.MaxInt32/2 {
		return nil, fmt.Errorf("a text of %d bytes", len(text))
	}
	var tokens []Token
	// The binding takes a C string: what follows a NUL would be lost.
	for i, part := range strings.Split(text, "\x00") {
		if i > 0 {
			tokens = append(tokens, m.nul()...)
		}
		for _, tok := range yzma.Tokenize(m.vocab, part, false, special) {
			tokens = append(tokens, Token(tok))
		}
	}
	return tokens, nil
}

// nul returns the token of the byte 0, if the vocabulary has one.
func (m *Model) nul() []Token {
	var buf [8]byte
	for tok := range Token(m.size) {
		if n := yzma.TokenToPiece(m.vocab, yzma.Token(tok), buf[:], 0, false); n == 1 && buf[0] == 0 {
			return []Token{tok}
		}
	}
	return nil
}

// AppendPiece appends the bytes that a token stands for: any bytes, not always whole
// characters. Control tokens stand for none.
func (m *Model) AppendPiece(dst []byte, tok Token) []byte {
	const most = 64 // bytes of nearly every token
	for room := most; ; {
		if cap(dst)-len(dst) < room {
			dst = append(make([]byte, 0, len(dst)+2*room), dst...)
		}
		n := int(yzma.TokenToPiece(m.vocab, yzma.Token(tok), dst[len(dst):cap(dst)], 0, false))
		if n >= 0 {
			return dst[:len(dst)+n]
		}
		room = -n
	}
}
