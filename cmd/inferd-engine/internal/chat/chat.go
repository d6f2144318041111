// Package chat renders a conversation as a prompt, with the model's own template or, for a model without one, as a
// transcript. It knows text and the spellings of special tokens; it does not know tokens. No text of a client becomes a
// special token, even if it spells one: neither the text of messages nor the names, descriptions and values of tools,
// calls and results.
//
// When a template is compiled, probes are rendered with it. They show how the model's answers spell thoughts and calls
// (a [dialect.Dialect]), and which conversations the template accepts (its [dialect.Traits]). Before a conversation is
// rendered, each result is paired with its call, and messages that the template refuses or leaves out are folded into
// messages that it accepts. A late system message, for example, becomes a part of the user's next message. If a
// template ignores tools, a system message describes them.
//
// Before rendering, an unguessable mark is inserted into every spelling of a special token in the text of clients.
// After rendering, the text is cut at the marks, and they are removed. In the resulting segments all special tokens are
// the template's own. Text without such spellings is not changed and is one segment.
//
// A spelling can also form where two texts meet: two messages, or a message and the template. A text whose beginning or
// end could be part of a spelling gets another mark there, at which the text is cut only if it ends up inside a
// spelling. Templates that change the letters of a message are not covered.
package chat

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/jinja"
)

// A Template renders conversations. It may be used by several goroutines at once.
type Template struct {
	compiled *jinja.Template // nil: a transcript
	specials specials
	bos, eos string
	stops    []string
	dialect  *dialect.Dialect
	traits   dialect.Traits
}

// New compiles the template of a model and reads its dialect. A source of white space alone means
// that the model has none: its conversations are rendered as transcripts. specials are the
// spellings of the model's special tokens; bos and eos are two of them, for the template's use, and
// may be empty.
func New(source string, specials []string, bos, eos string) (*Template, error) {
	t := &Template{specials: index(specials), bos: bos, eos: eos}
	if strings.TrimSpace(source) == "" {
		t.stops = markers()
		t.dialect = dialect.Generic()
		t.dialect.Text.Lead = transcriptLead
		t.traits = dialect.Traits{System: true, Systems: true, LateSystem: true, Repeats: true, Answers: true}
		return t, nil
	}
	err := guarded(func() (err error) {
		t.compiled, err = jinja.Compile(source)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("chat template: %w", err)
	}
	t.dialect, t.traits = dialect.Read(t.prober(), source)
	if stop := t.dialect.Stop; stop != "" && !slices.Contains(specials, stop) {
		t.stops = []string{stop}
	}
	return t, nil
}

// probeSteps limits the interpreter steps of all probes of a template together: half a second of CPU time. Further
// probes count as refused by the template.
const probeSteps = 1_000_000

// prober returns a function that renders probes until probeSteps are used up, and then fails.
func (t *Template) prober() dialect.Render {
	left := probeSteps
	return func(p *dialect.Probe) (text string, err error) {
		if left <= 0 {
			return "", errors.New("the probes of the template take too many steps")
		}
		err = guarded(func() (err error) {
			var steps int
			text, steps, err = t.compiled.RenderWithin(t.probeValues(p), left)
			left -= steps + probeSteps/1000
			return err
		})
		return text, err
	}
}

// guarded turns a panic of the template engine into an error: templates are untrusted, like
// the rest of the model's file.
func guarded(f func() error) (err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("the template engine failed")
		}
	}()
	return f()
}

// maxText is the maximum length of a prompt in bytes, marks included: more than fits into
// any context.
const maxText = 32 << 20

// Transcript reports whether the model has no template of its own, so that conversations
// are rendered as transcripts.
func (t *Template) Transcript() bool { return t.compiled == nil }

// Stops returns the texts that end a turn, besides the model's own end-of-turn tokens: the markers of a transcript, or the
// template's marker behind an answer if the vocabulary does not have it as a token.
func (t *Template) Stops() []string { return t.stops }

// Dialect returns the spelling of thoughts and calls, as read from the template. It is never nil, and must not be
// changed.
func (t *Template) Dialect() *dialect.Dialect { return t.dialect }

// A Segment is a piece of a prompt. Segments are tokenized one by one.
type Segment struct {
	Text    string
	Special bool // spellings of special tokens in Text are the template's own, and are tokenized as these tokens
}

// A Conversation is the input for rendering a prompt.
type Conversation struct {
	Messages []infer.Message
	Tools    []infer.Tool
	// Think switches thinking on or off, if the template supports that; nil leaves it to the template.
	Think *bool
	// Budget is the maximum number of tokens of thinking, for templates that state it to the model; 0 is no limit.
	Budget int
	// History ends the prompt behind the last message, without the beginning of the model's answer.
	History bool
}

// Render is [Template.Prompt] for messages without tools or options.
func (t *Template) Render(messages []infer.Message) ([]Segment, error) {
	return t.Prompt(&Conversation{Messages: messages})
}

// Prompt renders a conversation up to the beginning of the model's answer. It returns [infer.Invalid] if a result has
// no call, if the input of a call or the schema of a declared tool is not JSON, if the template refuses the
// conversation or fails, or if a bound is exceeded.
func (t *Template) Prompt(c *Conversation) ([]Segment, error) {
	turns, err := pairResults(c.Messages)
	if err != nil {
		return nil, err
	}
	for {
		w := &writer{Template: t, nonce: newNonce()}
		text, err := t.render(w, c, turns)
		if w.collision { // a text already contains the marks: draw new ones
			continue
		}
		if err == nil && len(text) > maxText {
			err = fmt.Errorf("the prompt has more than %d bytes", maxText)
		}
		if err != nil {
			return nil, infer.Errorf(infer.Invalid, "chat template: %s", w.nonce.strip(err.Error()))
		}
		return t.specials.cut(w.nonce.unescaped(text), w.nonce), nil
	}
}

// render returns the prompt, with the marks of w.nonce in it. If the template refuses the conversation with declared
// tools, render tries again with a system message that describes them.
func (t *Template) render(w *writer, c *Conversation, turns []turn) (text string, err error) {
	if t.compiled == nil {
		return transcript(t.fold(c, turns, true), !c.History, w.guard), nil
	}
	left := maxSteps
	for _, described := range []bool{false, true} {
		values, tail, valuesErr := t.values(w, c, turns, described)
		if valuesErr != nil {
			return "", valuesErr
		}
		err = guarded(func() (err error) {
			var steps int
			text, steps, err = t.compiled.RenderWithin(values, left)
			left -= steps
			return err
		})
		if err == nil || len(c.Tools) == 0 || !t.traits.Tools || left <= 0 {
			return text + tail, err
		}
	}
	return "", err
}

// maxSteps limits the interpreter steps of rendering one conversation.
const maxSteps = 5_000_000

// values returns the template's variables, and a text to put behind the prompt. Tools are declared in a variable or, if
// described is set or the template ignores tools, described in a system message.
func (t *Template) values(w *writer, c *Conversation, turns []turn, described bool) (values map[string]jinja.Value, tail string, err error) {
	described = described || !t.traits.Tools
	tools := c.Tools
	if described {
		tools = nil
	}
	values, err = w.conversation(t.fold(c, turns, described), tools)
	if err != nil {
		return nil, "", err
	}
	if c.History {
		values["add_generation_prompt"] = jinja.NewBool(false)
		return values, "", nil
	}
	return values, t.think(c, values), nil
}

// think switches thinking on or off as c requests: it sets the template's variable in values, or returns a text to put
// behind the prompt.
func (t *Template) think(c *Conversation, values map[string]jinja.Value) (tail string) {
	th := &t.dialect.Thinking
	if c.Think == nil || !th.Has() {
		return ""
	}
	value := th.On
	if !*c.Think {
		value = th.Off
		if value == nil {
			value = th.Low
		}
	} else if c.Budget > 0 && th.Variable == "thinking_budget" {
		value = c.Budget
	}
	switch {
	case th.Variable != "" && value != nil:
		values[th.Variable] = jinja.FromGoValue(value)
	case th.Variable == "" && th.Word == "" && !*c.Think && th.CanStop():
		return th.Closed
	}
	return ""
}
