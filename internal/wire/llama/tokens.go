package llama

import (
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// Tokens is a request for the tokens of a text or of a conversation, for the text of tokens, or for
// the text of a conversation in the model's template.
type Tokens struct {
	Task  *infer.Count
	Model string // as the client spells it; may be empty
	// Messages is a conversation in OpenAI's form, and Tools are its tools; nil means none. The
	// caller decodes them and adds them to Task.
	Messages, Tools jsontext.Value
	// Strict means that an unknown model is refused, as by vLLM.
	Strict bool
	// NCtx is the size of the context in tokens, for the answer.
	NCtx int

	body   func(*Tokens) []byte
	answer infer.Prompt
}

// ReadTokenize decodes the body of /tokenize. The caller must have checked it with [wire.Weigh].
// A body with content has llama.cpp's form; one with prompt or messages has vLLM's form.
func ReadTokenize(body []byte) (*Tokens, error) {
	var m struct {
		Content      *string `json:"content"`
		AddSpecial   bool    `json:"add_special"`
		ParseSpecial *bool   `json:"parse_special"`
		WithPieces   bool    `json:"with_pieces"`

		Model            string         `json:"model"`
		Prompt           *string        `json:"prompt"`
		Messages         jsontext.Value `json:"messages"`
		AddGeneration    *bool          `json:"add_generation_prompt"`
		AddSpecialTokens *bool          `json:"add_special_tokens"`
		TokenStrings     bool           `json:"return_token_strs"`
		Continue         bool           `json:"continue_final_message"`
		Template         string         `json:"chat_template"`
		Tools            jsontext.Value `json:"tools"`
	}
	if err := wire.Unmarshal(body, &m); err != nil {
		return nil, err
	}
	gen := &infer.Generate{Blocks: true}
	t := &Tokens{Task: &infer.Count{Of: gen}, Model: m.Model}
	gen.Reveal.IDs = true
	switch {
	case m.Content != nil:
		gen.Prompt, gen.Reveal.Pieces = m.Content, m.WithPieces
		t.Task.Bare, t.Task.Literal = !m.AddSpecial, !wire.ValueOr(m.ParseSpecial, true)
		t.body = (*Tokens).ids
		if m.WithPieces {
			t.body = (*Tokens).pairs
		}
		return t, nil
	case m.Prompt != nil:
		gen.Prompt = m.Prompt
		t.Task.Bare = !wire.ValueOr(m.AddSpecialTokens, true)
	case !web.Present(m.Messages):
		return nil, web.Invalid("content", "content is missing (or prompt, or messages)")
	case m.Continue:
		return nil, web.Invalid("continue_final_message", "continue_final_message is not supported")
	case m.Template != "":
		return nil, web.Invalid("chat_template", "chat_template is not supported: the model's own is used")
	default:
		t.Messages, t.Tools, t.Task.History = m.Messages, m.Tools, !wire.ValueOr(m.AddGeneration, true)
		t.Task.Bare = !wire.ValueOr(m.AddSpecialTokens, false)
	}
	t.Strict, gen.Reveal.Pieces, t.body = true, m.TokenStrings, (*Tokens).counted
	return t, nil
}

// ReadDetokenize decodes the body of /detokenize. The caller must have checked it with
// [wire.Weigh].
func ReadDetokenize(body []byte) (*Tokens, error) {
	var m struct {
		Model  string         `json:"model"`
		Tokens jsontext.Value `json:"tokens"`
	}
	if err := wire.Unmarshal(body, &m); err != nil {
		return nil, err
	}
	if !web.Present(m.Tokens) {
		return nil, web.Invalid("tokens", "tokens are missing")
	}
	gen := &infer.Generate{Blocks: true, Reveal: infer.Reveal{Text: true}}
	if err := web.Decode("tokens", m.Tokens, &gen.Tokens); err != nil {
		return nil, web.Invalid("tokens", "tokens must be a list of token ids")
	}
	return &Tokens{Task: &infer.Count{Of: gen, Bare: true}, Model: m.Model, body: (*Tokens).text}, nil
}

// ReadTemplate decodes the body of /apply-template. The caller must have checked it with
// [wire.Weigh].
func ReadTemplate(body []byte) (*Tokens, error) {
	var m struct {
		Model         string         `json:"model"`
		Messages      jsontext.Value `json:"messages"`
		AddGeneration *bool          `json:"add_generation_prompt"`
		Tools         jsontext.Value `json:"tools"`
	}
	if err := wire.Unmarshal(body, &m); err != nil {
		return nil, err
	}
	if !web.Present(m.Messages) {
		return nil, web.Invalid("messages", "messages are missing")
	}
	gen := &infer.Generate{Blocks: true, Reveal: infer.Reveal{Text: true}}
	task := &infer.Count{Of: gen, Bare: true, History: !wire.ValueOr(m.AddGeneration, true)}
	return &Tokens{Task: task, Model: m.Model, Messages: m.Messages, Tools: m.Tools, body: (*Tokens).prompt}, nil
}

// Collect takes an event of the answer. For the Done it returns the body of the answer, otherwise
// nil.
func (t *Tokens) Collect(ev infer.Event) ([]byte, error) {
	switch ev := ev.(type) {
	case *infer.Admitted:
	case *infer.Prompt:
		t.answer = *ev
	case *infer.Done:
		return t.body(t), nil
	default:
		return nil, infer.Errorf(infer.Internal, "tokens cannot encode a %T", ev)
	}
	return nil, nil
}

// ids returns the body with the IDs of the tokens.
func (t *Tokens) ids() []byte { return append(t.appendIDs([]byte(`{"tokens":`)), '}') }

func (t *Tokens) appendIDs(dst []byte) []byte {
	dst = append(dst, '[')
	for i, id := range t.answer.IDs {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendInt(dst, int64(id), 10)
	}
	return append(dst, ']')
}

// pairs returns the body with the IDs and the texts of the tokens. A text that is not UTF-8 is an
// array of bytes.
func (t *Tokens) pairs() []byte {
	dst := []byte(`{"tokens":[`)
	for i, id := range t.answer.IDs {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"id":`...)
		dst = strconv.AppendInt(dst, int64(id), 10)
		dst = append(dst, `,"piece":`...)
		if piece := t.answer.Pieces[i]; utf8.Valid(piece) {
			dst = wire.AppendString(dst, piece)
		} else {
			dst = wire.AppendBytes(dst, piece)
		}
		dst = append(dst, '}')
	}
	return append(dst, "]}"...)
}

// counted returns the body in vLLM's form, with the number of tokens.
func (t *Tokens) counted() []byte {
	dst := append([]byte(nil), `{"count":`...)
	dst = strconv.AppendInt(dst, int64(len(t.answer.IDs)), 10)
	dst = append(dst, `,"max_model_len":`...)
	dst = strconv.AppendInt(dst, int64(t.NCtx), 10)
	dst = append(dst, `,"tokens":`...)
	dst = t.appendIDs(dst)
	dst = append(dst, `,"token_strs":`...)
	if t.Task.Of.Reveal.Pieces {
		dst = append(dst, '[')
		for i, piece := range t.answer.Pieces {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = wire.AppendString(dst, piece)
		}
		return append(dst, "]}"...)
	}
	return append(dst, "null}"...)
}

// text returns the body with the text of tokens, in llama.cpp's member content and in vLLM's member
// prompt.
func (t *Tokens) text() []byte {
	dst := wire.AppendString([]byte(`{"content":`), t.answer.Text)
	dst = append(dst, `,"prompt":`...)
	return append(wire.AppendString(dst, t.answer.Text), '}')
}

// prompt returns the body with the text of a conversation in the model's template.
func (t *Tokens) prompt() []byte {
	return append(wire.AppendString([]byte(`{"prompt":`), t.answer.Text), '}')
}
