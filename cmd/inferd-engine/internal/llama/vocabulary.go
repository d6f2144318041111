package llama

import (
	"slices"
	"strconv"
	"strings"

	yzma "github.com/hybridgroup/yzma/pkg/llama"

	"github.com/inferd-go/inferd/internal/vocab"
)

// Vocabulary returns the tokens of the model by id, and the ids of its end tokens, which are marked as control
// tokens. For a large vocabulary it takes more than 100 ms, so it calls yield, which may be nil, every 128
// tokens.
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
			Control: len(piece) == 0 || m.noText(tok),
		}
	}
	return tokens, ends
}

// Texts are spellings of a vocabulary's tokens, and facts about them.
type Texts struct {
	// Specials are spellings that [Model.Tokenize] turns into one token each: those of control and end
	// tokens, if its parameter special is set; and always those of user-defined tags in the chat template,
	// such as <tool_call>.
	Specials []string
	Markers  map[string]Token // by spelling: the tokens without text, such as control tokens, and the end tokens
	Ends     []Token          // the markers that end an answer
	Longest  int              // bytes of the longest token
}

// TokenTexts returns the Texts of the model. It scans the whole vocabulary.
func (m *Model) TokenTexts() Texts {
	t := Texts{Markers: make(map[string]Token)}
	template := m.ChatTemplate()
	for tok := range Token(m.size) {
		text := m.TokenText(tok)
		t.Longest = max(t.Longest, len(text))
		end := m.isEOG(tok)
		if text == "" || !end && !m.noText(tok) {
			if m.attr(tok)&yzma.TokenAttrUserDef != 0 && isTag(text) && strings.Contains(template, text) {
				t.Specials = append(t.Specials, text)
			}
			continue
		}
		t.Markers[text] = tok
		if end {
			t.Ends = append(t.Ends, tok)
		}
		if end || m.attr(tok)&yzma.TokenAttrUnused == 0 {
			t.Specials = append(t.Specials, text)
		}
	}
	return t
}

// noText reports whether a token is not text but a control token, an unused token or a marker. llama.cpp may treat a
// marker like <|channel|> as a user-defined token, which has a text, and which llama.cpp recognises in any text.
func (m *Model) noText(tok Token) bool {
	attr := m.attr(tok)
	if attr&(controls|yzma.TokenAttrUnused) != 0 {
		return true
	}
	return attr&yzma.TokenAttrUserDef != 0 && isMarker(m.TokenText(tok))
}

// isTag reports whether a text, which must not be empty, is one word in brackets, such as <think> or [INST].
func isTag(text string) bool {
	first, last := text[0], text[len(text)-1]
	return len(text) > 2 && (first == '<' && last == '>' || first == '[' && last == ']') && !strings.ContainsAny(text, " \t\r\n")
}

// isMarker reports whether a text is spelt like a control token: <|a|>, <|a>, <a|>, or the same with
// full-width bars.
func isMarker(text string) bool {
	inner, begun := strings.CutPrefix(text, "<")
	inner, ended := strings.CutSuffix(inner, ">")
	if !begun || !ended || strings.ContainsAny(inner, " \t\r\n<>") {
		return false
	}
	for _, bar := range []string{"|", "｜"} {
		if len(inner) > 2*len(bar) && (strings.HasPrefix(inner, bar) || strings.HasSuffix(inner, bar)) {
			return true
		}
	}
	return false
}

// ByName returns the token with a name from a grammar: its spelling, such as <think>, or its id, such as <[5]>.
// It reports false if there is no such token.
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

// AppendSpelling appends the spelling of a control token, or the bytes of another token's text; see
// [Model.AppendPiece].
func (m *Model) AppendSpelling(dst []byte, tok Token) []byte {
	if m.IsControl(tok) {
		return append(dst, m.TokenText(tok)...)
	}
	return m.AppendPiece(dst, tok)
}

// Has reports whether a token is in the vocabulary.
func (m *Model) Has(tok Token) bool { return m.valid(tok) }

// Marks are the tokens that mark the parts of a prompt for a model that was trained to fill a gap in a text.
type Marks struct {
	Prefix, Suffix, Middle Token // precede the text before the gap, the text behind the gap, and the answer
	Project, File          Token // precede the names of a project and of each file; negative if the model has none
}

// Marks returns the marks of the model. It reports false if Prefix, Suffix or Middle is missing.
func (m *Model) Marks() (Marks, bool) {
	one := func(tok yzma.Token) Token {
		if !m.valid(Token(tok)) {
			return -1
		}
		return Token(tok)
	}
	marks := Marks{
		Prefix: one(yzma.VocabFIMPre(m.vocab)), Suffix: one(yzma.VocabFIMSuf(m.vocab)), Middle: one(yzma.VocabFIMMid(m.vocab)),
		Project: one(yzma.VocabFIMRep(m.vocab)), File: one(yzma.VocabFIMSep(m.vocab)),
	}
	return marks, min(marks.Prefix, marks.Suffix, marks.Middle) >= 0
}
