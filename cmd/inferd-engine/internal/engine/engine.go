// Package engine answers requests with a model. To generate, it renders a conversation as tokens,
// decodes their continuation in a batch loop, and converts the new tokens to text; for vectors and
// scores it tokenises the texts and computes them in an encode loop. The package does not know the
// daemon, and handles a request without regard to the requests beside it.
package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/batch"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/budget"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/chat"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/constraint"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/llama"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/speech"
	"github.com/inferd-go/inferd/internal/infer"
)

// Kind is the kind of backend in the answers of an engine.
const Kind = "llamacpp"

// A Handler answers the requests within its abilities.
type Handler interface {
	infer.Handler
	Abilities() infer.Abilities
}

// An Engine is a Handler over one loaded model that generates.
type Engine struct {
	Model    *llama.Model
	Context  *llama.Context
	Template *chat.Template
	Loop     *batch.Loop // decodes on Context
	Formats  *constraint.Compiler
	// Dialect is how the answers of the model spell thoughts and calls; nil is text alone.
	Dialect *dialect.Dialect
	// Markers are the control tokens of the model by their spelling.
	Markers map[string]llama.Token
	// LongestToken is the maximum number of bytes in a token's text; 0 is unknown.
	LongestToken int
	// Rendering bounds the CPU time of rendering one conversation: a model's template is a
	// program. Nil is no bound.
	Rendering *budget.CPU
	// Counter counts the tokens of prompts for requests that only ask for that; nil counts in
	// the goroutine of the call, without bounds.
	Counter *Counter
}

var _ Handler = (*Engine)(nil)

// Abilities returns the abilities of the engine. Every model can call tools, as its template spells calls
// or as a system message describes them; thoughts depend on the template.
func (e *Engine) Abilities() infer.Abilities {
	return infer.Abilities{
		Generate: true, Grammar: true, JSONObject: true, JSONSchema: true, Logprobs: true, Prompt: true, Count: true,
		Tools: e.Dialect != nil && e.Dialect.Shape != dialect.NoCalls, Thinking: e.Dialect != nil && e.Dialect.Thinking.Has(),
	}
}

// Handle answers req, which must be to generate or to count. A request that the model cannot
// take is [infer.Invalid] and says why; so is one beyond [Engine.Abilities].
func (e *Engine) Handle(ctx context.Context, req *infer.Request, emit infer.Sink) error {
	if err := e.Abilities().Check(req.Task); err != nil {
		return err
	}
	switch t := req.Task.(type) {
	case *infer.Generate:
		return e.generate(ctx, req, t, emit)
	case *infer.Count:
		return e.count(ctx, t.Of, emit)
	case *infer.Embed, *infer.Rerank:
	}
	return infer.Errorf(infer.Unsupported, "this model only generates")
}

func (e *Engine) generate(ctx context.Context, req *infer.Request, gen *infer.Generate, emit infer.Sink) error {
	prompt, tail, err := e.fit(ctx, gen)
	if err != nil {
		return err
	}
	spoken, err := e.speech(gen, tail)
	if err != nil {
		return err
	}
	format, err := e.compile(ctx, req, spoken)
	if err != nil {
		return err
	}
	if format != nil {
		defer format.Release()
	}
	most := e.Loop.Room() - len(prompt)
	if gen.MaxTokens > 0 {
		most = min(most, gen.MaxTokens)
	}
	if format != nil && most < format.Least() {
		return errTooShort(spoken.Member(), format.Least(), gen.MaxTokens, most)
	}
	if err := emit(&infer.Prompt{Tokens: len(prompt)}); err != nil {
		return err
	}
	sampler, err := llama.NewSampler(e.Model, llama.SamplerOptions{Sampling: gen.Sampling, Masked: format != nil})
	if err != nil {
		return infer.Errorf(infer.Invalid, "%w", err)
	}
	defer sampler.Free()
	if !req.Deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, req.Deadline, errLate)
		defer cancel()
	}
	g := &generation{engine: e, gen: gen, sampler: sampler, emit: emit, text: e.answer(gen)}
	seq := g.sequence()
	if format != nil {
		if g.allowed, err = format.Open(most); err != nil {
			return err
		}
		defer g.allowed.Close()
		g.understand(spoken)
		seq.Spent = format.TakeCost()
	}
	stop := req.Pause.Preempted.OnChange(g.pause)
	defer stop()
	seq.Call, seq.Prompt, seq.Max = callOf(req), prompt, most
	seq.Owner, seq.Part, seq.Uncached = req.Peer.User, req.CachePart(), !req.Peer.Owns()
	result, err := e.Loop.Do(ctx, seq)
	return g.finish(result, len(prompt), err)
}

// speech returns what the answer to a prompt may be; nil is any text. tail is the end of the prompt,
// as far as the template wrote it.
func (e *Engine) speech(gen *infer.Generate, tail string) (*speech.Speech, error) {
	o := speech.Options{
		Dialect: e.Dialect, Markers: e.Markers, Ends: e.ends(),
		Tools: gen.Tools, Choice: gen.Choice, OneCall: gen.OneCall,
	}
	if o.Dialect == nil || gen.Prompt != nil {
		o.Dialect = new(dialect.Dialect)
	}
	if constraint.Has(&gen.Format) {
		o.Format = &gen.Format
	}
	o.Place = o.Dialect.Thinking.Place(tail)
	o.NoThoughts = gen.Thinking == infer.ThinkOff && o.Dialect.Thinking.CanStop()
	if !speech.Needed(&o) {
		return nil, nil //nolint:nilnil // any text is no error
	}
	return speech.New(o)
}

// ends returns the tokens that end an answer.
func (e *Engine) ends() (ids []llama.Token) {
	for _, id := range e.Markers {
		if e.Model.IsEOG(id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// compile compiles what an answer may be; nil is any text.
func (e *Engine) compile(ctx context.Context, req *infer.Request, s *speech.Speech) (*constraint.Constraint, error) {
	if s == nil {
		return nil, nil //nolint:nilnil // any text is no error
	}
	owner := ""
	if req.Peer.Owns() {
		owner = req.Peer.User + "\x00" + req.CachePart()
	}
	return e.Formats.Compile(ctx, owner, s)
}

// errTooShort refuses an answer that could not end as a whole within most tokens; 0 of asked is not
// said.
func errTooShort(member string, least, asked, most int) error {
	if asked == 0 || most < asked {
		return infer.Errorf(infer.Invalid, "%s: the shortest answer has %d tokens, the context has room for %d behind the prompt", member, least, most)
	}
	return infer.Errorf(infer.Invalid, "%s: the shortest answer has %d tokens: max_tokens must be at least that, it is %d", member, least, asked)
}

// answer returns an empty answer to gen. A response format defines the whole text: neither stop
// sequences nor markers of turns end it. It and a prompt without the template have no turns: then
// nothing is trimmed, and markers of turns are text like any other.
func (e *Engine) answer(gen *infer.Generate) answer {
	var a answer
	if constraint.Has(&gen.Format) {
		return a
	}
	for _, text := range gen.Stop {
		a.stops = append(a.stops, stop{text, infer.StopSequence})
	}
	if gen.Prompt == nil {
		for _, text := range e.Template.Stops() {
			a.stops = append(a.stops, stop{text, infer.EndOfTurn})
		}
		a.trim = e.Template.Transcript()
	}
	return a
}

// errLate ends a sequence at its deadline.
var errLate = errors.New("the deadline has passed")

// errSlowTemplate is the failure of a rendering over its budget of CPU time.
var errSlowTemplate = infer.Errorf(infer.Invalid, "chat template: rendering this conversation took more than 5 s of CPU time")

// callOf is the number of a call, which the link sets as the ID of its request; 0 is none.
func callOf(req *infer.Request) uint64 {
	call, _ := strconv.ParseUint(req.ID, 10, 64) // 0 for an ID of another kind
	return call
}

// Share prefills the common beginning of all conversations with text as their system message, and
// pins it for the prompts of all users.
func (e *Engine) Share(ctx context.Context, text string) error {
	// The tokens at the end of the text depend on the next message: the prefix is the common
	// part of two conversations.
	var prompts [2][]batch.Token
	for i, next := range []string{"a", "b"} {
		var err error
		prompts[i], err = e.prompt(ctx, &infer.Generate{Messages: []infer.Message{infer.TextMessage(infer.System, text), infer.TextMessage(infer.User, next)}}, 0, e.render)
		if err != nil {
			return err
		}
	}
	n := 0
	for n < min(len(prompts[0]), len(prompts[1])) && prompts[0][n] == prompts[1][n] {
		n++
	}
	if n == 0 {
		return infer.Errorf(infer.Invalid, "the model's template does not begin with it")
	}
	if n > e.Loop.Room()/2 {
		return infer.Errorf(infer.Invalid, "it has %d tokens, which is more than half of the context's %d", n, e.Loop.Room())
	}
	_, err := e.Loop.Do(ctx, batch.Sequence{
		Prompt: prompts[0][:n], Max: 1, Pinned: true,
		Sample: func(int) (batch.Token, error) { return 0, nil },
		Ends:   func(batch.Token) bool { return true },
	})
	return err
}

// fit returns the tokens of a prompt that leaves room for an answer, and the end of its text as far as the
// template wrote it.
func (e *Engine) fit(ctx context.Context, gen *infer.Generate) (prompt []batch.Token, tail string, err error) {
	if least := e.leastTokens(gen); least > e.Loop.Room() {
		return nil, "", infer.Errorf(infer.Invalid, "%w", &infer.PromptError{Tokens: least, AtLeast: true, Most: e.Loop.Room()})
	}
	prompt, err = e.prompt(ctx, gen, e.LongestToken*e.Loop.Room(), func(messages []infer.Message) ([]chat.Segment, error) {
		segments, err := e.render(messages)
		if n := len(segments); n > 0 && segments[n-1].Special {
			tail = segments[n-1].Text
		}
		return segments, err
	})
	if long, ok := errors.AsType[*sizeError](err); ok {
		return nil, "", infer.Errorf(infer.Invalid, "%w", &infer.PromptError{Tokens: long.size / e.LongestToken, AtLeast: true, Most: e.Loop.Room()})
	}
	if err != nil {
		return nil, "", err
	}
	if len(prompt) >= e.Loop.Room() {
		return nil, "", infer.Errorf(infer.Invalid, "%w", &infer.PromptError{Tokens: len(prompt), Most: e.Loop.Room()})
	}
	return prompt, tail, nil
}

// leastTokens is a lower bound of the tokens of a prompt. Exact counting takes a second per
// 100 KB of the worst text, which is not spent on a prompt that cannot fit.
func (e *Engine) leastTokens(gen *infer.Generate) int {
	if e.LongestToken == 0 {
		return 0
	}
	return textBytes(gen) / e.LongestToken
}

// textBytes is the length of the text that becomes a prompt, without that of the template, and
// without thinking, which templates may leave out.
func textBytes(gen *infer.Generate) (n int) {
	if gen.Prompt != nil {
		n = len(*gen.Prompt)
	}
	for _, m := range gen.Messages {
		n += len(m.Text())
	}
	return n
}

// thinkingBytes is the length of the thinking in a conversation.
func thinkingBytes(gen *infer.Generate) (n int) {
	for _, m := range gen.Messages {
		for _, part := range m.Content {
			if t, ok := part.(*infer.ThinkingPart); ok {
				n += len(t.Text)
			}
		}
	}
	return n
}

// render renders a conversation within its budget of CPU time.
func (e *Engine) render(messages []infer.Message) ([]chat.Segment, error) {
	if e.Rendering == nil {
		return e.Template.Render(messages)
	}
	var out struct { // no result variables: an abandoned rendering may still write here
		segments []chat.Segment
		err      error
	}
	if e.Rendering.Do(func() { out.segments, out.err = e.Template.Render(messages) }) != nil {
		return nil, errSlowTemplate
	}
	return out.segments, out.err
}

// A sizeError says that a rendered prompt is too long to tokenise, in bytes.
type sizeError struct{ size, most int }

func (e *sizeError) Error() string {
	return fmt.Sprintf("the prompt has %d bytes with its template, at most %d are tokenised", e.size, e.most)
}

// prompt returns the tokens of a prompt. Of a conversation, which render renders, only text of
// the template becomes special tokens. More than most rendered bytes are refused before they are
// tokenised; 0 is no bound.
func (e *Engine) prompt(ctx context.Context, gen *infer.Generate, most int, render renderer) ([]batch.Token, error) {
	var segments []chat.Segment
	if gen.Prompt != nil {
		segments = []chat.Segment{{Text: *gen.Prompt, Special: true}}
	} else {
		var err error
		if segments, err = render(gen.Messages); err != nil {
			return nil, err
		}
	}
	size := 0
	for _, s := range segments {
		size += len(s.Text)
	}
	if most > 0 && size > most {
		return nil, &sizeError{size, most}
	}
	var tokens []batch.Token
	if bos, ok := e.Model.BOS(); ok && e.Model.AddBOS() {
		// Most templates already begin with BOS.
		if len(segments) == 0 || !strings.HasPrefix(segments[0].Text, e.Model.TokenText(bos)) {
			tokens = append(tokens, bos)
		}
	}
	for _, s := range segments {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		more, err := e.Model.Tokenize(s.Text, s.Special)
		if err != nil {
			return nil, infer.Errorf(infer.Internal, "tokenize: %w", err)
		}
		tokens = append(tokens, more...)
	}
	if len(tokens) == 0 { // an empty prompt: decoding needs at least one token
		bos, ok := e.Model.BOS()
		if !ok {
			return nil, infer.Errorf(infer.Invalid, "the prompt has no tokens")
		}
		tokens = append(tokens, bos)
	}
	return tokens, nil
}
