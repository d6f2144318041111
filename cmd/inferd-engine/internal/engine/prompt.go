package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/batch"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/chat"
	"github.com/inferd-go/inferd/internal/infer"
)

// A prompt is the input of a sequence.
type prompt struct {
	tokens []batch.Token
	text   []byte // the rendered text; if nil, it is the text of the tokens
	tail   string // the template's text behind the last text of a client; empty without a template
}

// promptOptions are the options for making a prompt.
type promptOptions struct {
	render   renderer
	maxBytes int  // maximum number of rendered bytes to tokenise; 0 is no bound
	room     int  // maximum number of tokens of a prompt for infill; 0 means that files may fill the room of the loop
	bare     bool // as in [infer.Count]
	literal  bool // as in [infer.Count]
}

// fit returns a prompt that leaves room for at least one token of the answer. The error for a
// prompt that is too long is an [infer.PromptError].
func (e *Engine) fit(ctx context.Context, gen *infer.Generate) (prompt, error) {
	room := e.Loop.Room()
	if least := e.leastTokens(gen); least > room {
		return prompt{}, infer.Errorf(infer.Invalid, "%w", &infer.PromptError{Tokens: least, AtLeast: true, Most: room})
	}
	answer := gen.MaxTokens
	if answer == 0 {
		answer = room / filesLeave
	}
	p, err := e.prompt(ctx, gen, promptOptions{render: e.render, maxBytes: e.LongestToken * room, room: max(room-answer, 1)})
	if long, ok := errors.AsType[*sizeError](err); ok {
		return prompt{}, infer.Errorf(infer.Invalid, "%w", &infer.PromptError{Tokens: long.size / e.LongestToken, AtLeast: true, Most: room})
	}
	if err != nil {
		return prompt{}, err
	}
	if len(p.tokens) >= room {
		return prompt{}, infer.Errorf(infer.Invalid, "%w", &infer.PromptError{Tokens: len(p.tokens), Most: room})
	}
	return p, nil
}

// filesLeave is a divisor: the files of a prompt leave 1/filesLeave of the context to an answer
// without max_tokens.
const filesLeave = 4

// leastTokens returns a lower bound for the number of tokens of a prompt. Exact counting takes a
// second per 100 KB of the worst text; the bound avoids it for a prompt that cannot fit.
func (e *Engine) leastTokens(gen *infer.Generate) int {
	if e.LongestToken == 0 {
		return len(gen.Tokens)
	}
	return len(gen.Tokens) + textBytes(gen)/e.LongestToken
}

// textBytes returns the number of bytes of the text that becomes a prompt. It counts neither the
// template's text, nor thinking and files, which may be left out.
func textBytes(gen *infer.Generate) (n int) {
	if gen.Prompt != nil {
		n = len(*gen.Prompt)
	}
	if gen.Suffix != nil {
		n += len(*gen.Suffix)
	}
	for _, m := range gen.Messages {
		n += len(m.Text())
	}
	return n
}

// optionalBytes returns the number of bytes of the thinking and the files of a request.
func optionalBytes(gen *infer.Generate) (n int) {
	for _, m := range gen.Messages {
		for _, part := range m.Content {
			if t, ok := part.(*infer.ThinkingPart); ok {
				n += len(t.Text)
			}
		}
	}
	for _, f := range gen.Files {
		n += len(f.Name) + len(f.Text)
	}
	return n
}

// render renders a conversation within its budget of CPU time.
func (e *Engine) render(c *chat.Conversation) ([]chat.Segment, error) {
	if e.Rendering == nil {
		return e.Template.Prompt(c)
	}
	var out struct { // a variable of its own, because an abandoned rendering may still write to it
		segments []chat.Segment
		err      error
	}
	if e.Rendering.Do(func() { out.segments, out.err = e.Template.Prompt(c) }) != nil {
		return nil, errSlowTemplate(e.Rendering)
	}
	return out.segments, out.err
}

// conversation returns the conversation of a request in the form that the template takes. Tools
// that may not be called are declared, too, because earlier calls refer to them.
func conversation(gen *infer.Generate) *chat.Conversation {
	c := &chat.Conversation{Messages: gen.Messages, Tools: gen.Tools, Budget: gen.ThinkingBudget}
	switch gen.Thinking {
	case infer.ThinkOn:
		c.Think = new(true)
	case infer.ThinkOff:
		c.Think = new(false)
	case infer.ThinkAuto:
	}
	return c
}

// A sizeError reports a rendered prompt with too many bytes to tokenise.
type sizeError struct{ size, most int }

func (e *sizeError) Error() string {
	return fmt.Sprintf("the prompt has %d bytes with its template, more than the %d that may be tokenised", e.size, e.most)
}

// prompt returns the tokens of a prompt, at least one unless it is bare. In a conversation, only
// text of the template becomes special tokens. A text of more than r.maxBytes rendered bytes is
// refused before it is tokenised.
func (e *Engine) prompt(ctx context.Context, gen *infer.Generate, r promptOptions) (p prompt, err error) {
	switch {
	case gen.Tokens != nil:
		p.tokens, err = e.checkTokens(gen.Tokens)
	case gen.Suffix != nil:
		p.tokens, err = e.infillPrompt(ctx, gen, r)
	default:
		p, err = e.textPrompt(ctx, gen, r)
	}
	if err != nil || len(p.tokens) > 0 || r.bare {
		return p, err
	}
	bos, ok := e.Model.BOS() // an empty prompt: decoding needs at least one token
	if !ok {
		return p, infer.Errorf(infer.Invalid, "the prompt has no tokens")
	}
	p.tokens = []batch.Token{bos}
	return p, nil
}

// checkTokens returns tokens, or an error if one of them is not in the vocabulary.
func (e *Engine) checkTokens(tokens []int32) ([]batch.Token, error) {
	for i, tok := range tokens {
		if !e.Model.Has(tok) {
			return nil, infer.Errorf(infer.Invalid, "token %d, at position %d, is not in the vocabulary of %d tokens", tok, i, e.Model.NTokens())
		}
	}
	return tokens, nil
}

// textPrompt makes a prompt of a text, or of a rendered conversation.
func (e *Engine) textPrompt(ctx context.Context, gen *infer.Generate, r promptOptions) (p prompt, err error) {
	var segments []chat.Segment
	if gen.Prompt != nil {
		segments = []chat.Segment{{Text: *gen.Prompt, Special: !r.literal}}
	} else if segments, err = r.render(conversation(gen)); err != nil {
		return p, err
	}
	if n := len(segments); n > 0 && segments[n-1].Special && gen.Prompt == nil {
		p.tail = segments[n-1].Text
	}
	size := 0
	for _, s := range segments {
		size += len(s.Text)
	}
	if r.maxBytes > 0 && size > r.maxBytes {
		return p, &sizeError{size, r.maxBytes}
	}
	if bos, ok := e.Model.BOS(); ok && e.Model.AddBOS() && !r.bare {
		// Most templates already begin with BOS.
		if len(segments) == 0 || !segments[0].Special || !strings.HasPrefix(segments[0].Text, e.Model.TokenText(bos)) {
			p.tokens = append(p.tokens, bos)
		}
	}
	for _, s := range segments {
		if p.tokens, err = e.tokenize(ctx, p.tokens, s.Text, s.Special); err != nil {
			return p, err
		}
		if gen.Reveal.Text {
			p.text = append(p.text, s.Text...)
		}
	}
	return p, nil
}

// tokenize appends the tokens of a text. If special is set, spellings of special tokens in the text
// become these tokens.
func (e *Engine) tokenize(ctx context.Context, tokens []batch.Token, text string, special bool) ([]batch.Token, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	more, err := e.Model.Tokenize(text, special)
	if err != nil {
		return nil, infer.Errorf(infer.Internal, "tokenize: %w", err)
	}
	return append(tokens, more...), nil
}

// infillPrompt returns the prompt to fill the gap between Prompt and Suffix:
//
//	project and files ─▶ prefix mark, text before ─▶ suffix mark, text behind ─▶ middle mark
//
// Nothing in the texts becomes a special token.
func (e *Engine) infillPrompt(ctx context.Context, gen *infer.Generate, r promptOptions) ([]batch.Token, error) {
	marks, ok := e.Model.Marks()
	if !ok || gen.Prompt == nil {
		return nil, infer.Errorf(infer.Internal, "infill: the model has no tokens for it, or the request has no prompt")
	}
	around, err := e.tokenize(ctx, []batch.Token{marks.Prefix}, *gen.Prompt, false)
	if err == nil {
		around, err = e.tokenize(ctx, append(around, marks.Suffix), *gen.Suffix, false)
	}
	if err != nil {
		return nil, err
	}
	around = append(around, marks.Middle)
	var before []batch.Token
	if bos, ok := e.Model.BOS(); ok && e.Model.AddBOS() && !r.bare {
		before = append(before, bos)
	}
	room := r.room - len(before) - len(around)
	if r.room == 0 {
		room = e.Loop.Room()
	}
	files, err := e.files(ctx, gen.Files, room)
	if err != nil {
		return nil, err
	}
	return append(append(before, files...), around...), nil
}

// Names of a project and of the file with the gap, for models that expect them. Requests do not
// have such names.
const (
	projectName = "project"
	presentName = "present"
)

// files returns the tokens of the last files, as many as fit into room tokens, in order. If the model
// marks files, a name for the file with the gap follows them; if it also marks projects, a name for
// the project precedes them.
func (e *Engine) files(ctx context.Context, files []infer.File, room int) ([]batch.Token, error) {
	if len(files) == 0 {
		return nil, nil
	}
	marks, _ := e.Model.Marks()
	one := func(mark batch.Token, text string) ([]batch.Token, error) {
		if e.LongestToken > 0 && len(text)/e.LongestToken > room {
			return nil, nil // it cannot fit
		}
		var tokens []batch.Token
		if mark >= 0 {
			tokens = append(tokens, mark)
		}
		return e.tokenize(ctx, tokens, text, false)
	}
	var first, last []batch.Token
	var err error
	if marks.File >= 0 {
		if last, err = one(marks.File, presentName+"\n"); err != nil {
			return nil, err
		}
		if marks.Project >= 0 {
			if first, err = one(marks.Project, projectName+"\n"); err != nil {
				return nil, err
			}
		}
	}
	room -= len(first) + len(last)
	var chosen [][]batch.Token
	for _, f := range slices.Backward(files) {
		tokens, err := one(marks.File, f.Name+"\n"+f.Text+"\n")
		if err != nil {
			return nil, err
		}
		if len(tokens) == 0 || len(tokens) > room {
			break
		}
		room -= len(tokens)
		chosen = append(chosen, tokens)
	}
	if len(chosen) == 0 {
		return nil, nil
	}
	slices.Reverse(chosen)
	return slices.Concat(first, slices.Concat(chosen...), last), nil
}

// reveal returns the event about a prompt, with the parts that the request asks for.
func (e *Engine) reveal(want infer.Reveal, p prompt) *infer.Prompt {
	ev := &infer.Prompt{Tokens: len(p.tokens)}
	if want.IDs {
		ev.IDs = append(make([]int32, 0, len(p.tokens)), p.tokens...)
	}
	if want.Pieces {
		ev.Pieces = make([][]byte, len(p.tokens))
		for i, tok := range p.tokens {
			ev.Pieces[i] = e.Model.AppendSpelling(nil, tok)
		}
	}
	if want.Text {
		ev.Text = p.text
		if ev.Text == nil {
			ev.Text = []byte{}
			for _, tok := range p.tokens {
				ev.Text = e.Model.AppendSpelling(ev.Text, tok)
			}
		}
	}
	return ev
}
