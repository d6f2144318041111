package llama

import (
	"slices"
	"strconv"
	"strings"

	yzma "github.com/hybridgroup/yzma/pkg/llama"

	"github.com/inferd-go/inferd/internal/vocab"
)

// Vocabulary returns the tokens of the model as text, and the ids of those that end an answer, which
// are control tokens there. It calls yield, which may be nil, every few tokens: of a large vocabulary
// the call takes more than 100 ms.
func (m *Model) Vocabulary(yield func()) (tokens []vocab.Token, ends []int32) {
	const often = 128
	tokens = make([]vocab.Token, m.size)
	var piece []byte
	for tok := range Token(m.size) {
		if yield != nil && tok%often == 0 {
			yield()
		}
		if m.isEOG(tok) {
			tokens[tok].Control = true
			ends = append(ends, tok)
			continue
		}
		piece = m.AppendPiece(piece[:0], tok)
		tokens[tok] = vocab.Token{
			Bytes:   slices.Clone(piece),
			Control: len(piece) == 0 || m.attr(tok)&(yzma.TokenAttrControl|yzma.TokenAttrUnknown|yzma.TokenAttrUnused) != 0,
		}
	}
	return tokens, ends
}

// Markers returns the control tokens by their spelling, as far as they have one.
func (m *Model) Markers() map[string]Token {
	all := make(map[string]Token)
	for tok := range Token(m.size) {
		if m.isEOG(tok) || m.attr(tok)&(yzma.TokenAttrControl|yzma.TokenAttrUnknown|yzma.TokenAttrUnused) != 0 {
			if text := m.TokenText(tok); text != "" {
				all[text] = tok
			}
		}
	}
	return all
}

// ByName returns the token that a grammar names: by its spelling, as in <think>, or by its id, as in
// <[5]>.
func (m *Model) ByName(name string) (Token, bool) {
	if digits, ok := strings.CutPrefix(name, "<["); ok {
		id, err := strconv.ParseUint(strings.TrimSuffix(digits, "]>"), 10, 31)
		return Token(id), err == nil && m.valid(Token(id))
	}
	tokens, err := m.Tokenize(name, true)
	if err != nil || len(tokens) != 1 {
		return 0, false
	}
	return tokens[0], true
}
