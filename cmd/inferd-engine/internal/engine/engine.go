// Package engine answers requests with a model. To generate, it renders a conversation as tokens,
// decodes their continuation in a batch loop, and converts the new tokens to text; for vectors and
// scores it tokenises the texts and computes them in an encode loop. The package is independent of the
// daemon, and handles each request independently of the others.
package engine

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/batch"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/budget"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/chat"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/constraint"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/llama"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/speech"
	"github.com/inferd-go/inferd/internal/infer"
)

// Kind is the kind of backend that an engine reports in its answers.
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
	// Dialect describes how the model's answers spell thoughts and calls. If it is nil, answers are
	// parsed as text alone.
	Dialect *dialect.Dialect
	// Markers are the control tokens of the model, and Ends its end tokens.
	Markers *speech.Markers
	Ends    []llama.Token
	// LongestToken is the maximum number of bytes in a token's text; 0 is unknown.
	LongestToken int
	// Rendering bounds the CPU time of rendering one conversation, because a model's template is a
	// program. Nil means no bound.
	Rendering *budget.CPU
	// Counter runs the requests to count tokens. If it is nil, each is run in the goroutine of its
	// call, with no bound on CPU time.
	Counter *Counter
}

var _ Handler = (*Engine)(nil)

// Abilities returns the tasks and features that this package offers with the model. Infill depends
// on the vocabulary, thinking and tools on the dialect. Calls have the spelling of the template or,
// if the template has none, a spelling that a system message describes.
func (e *Engine) Abilities() infer.Abilities {
	_, fills := e.Model.Marks()
	can := infer.Abilities{
		Generate: true, Grammar: true, JSONObject: true, JSONSchema: true, Logprobs: true, Prompt: true, Infill: fills, Count: true,
	}
	if d := e.Dialect; d != nil {
		can.Thinking = d.Thinking.Has()
		if can.Tools = d.Shape != dialect.NoCalls; can.Tools {
			can.ToolsDialect = d.Name
		}
	}
	return can
}

// Handle answers a request to generate or to count. Features beyond [Engine.Abilities] are refused
// first. The error for a request that does not fit the model is [infer.Invalid] and has the reason;
// for a prompt too long to count it is [infer.TooLarge], for other tasks [infer.Unsupported].
func (e *Engine) Handle(ctx context.Context, req *infer.Request, emit infer.Sink) error {
	if err := e.Abilities().Check(req.Task); err != nil {
		return err
	}
	switch t := req.Task.(type) {
	case *infer.Generate:
		return e.generate(ctx, req, t, emit)
	case *infer.Count:
		return e.count(ctx, t, emit)
	case *infer.Embed, *infer.Rerank:
	}
	return infer.Errorf(infer.Unsupported, "this model only generates")
}

func (e *Engine) generate(ctx context.Context, req *infer.Request, gen *infer.Generate, emit infer.Sink) error {
	input, err := e.fit(ctx, gen)
	if err != nil {
		return err
	}
	source, err := e.speech(gen, input.tail)
	if err != nil {
		return err
	}
	prompt := input.tokens
	most := e.Loop.Room() - len(prompt)
	if gen.MaxTokens > 0 {
		most = min(most, gen.MaxTokens)
	}
	format, spent, err := e.compile(ctx, req, source)
	if format != nil {
		defer format.Release()
		if most < format.Least() {
			err = errTooShort(source.Member(), format.Least(), gen.MaxTokens, most)
		}
	}
	if err != nil {
		return e.charge(spent, emit, err)
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
	g := &generation{engine: e, gen: gen, prompt: e.reveal(gen.Reveal, input), sampler: sampler, emit: emit, text: e.newAnswer(gen)}
	seq := g.sequence()
	if format != nil {
		if g.constrained, err = format.Open(most); err != nil {
			return err
		}
		defer g.constrained.Close()
		g.attachParser(format)
		seq.Spent = spent
	}
	stop := req.Pause.Preempted.OnChange(g.pause)
	defer stop()
	seq.Call, seq.Prompt, seq.Max = callOf(req), prompt, most
	seq.Owner, seq.Part, seq.Uncached = req.Peer.Owner(), req.CachePart(), !req.Peer.Owns()
	result, err := e.Loop.Do(ctx, seq)
	return g.finish(result, err)
}

// compile compiles the constraint of an answer, or returns nil if any text is allowed. It also
// returns the time that compiling took, even with an error.
func (e *Engine) compile(ctx context.Context, req *infer.Request, s *speech.Speech) (*constraint.Constraint, time.Duration, error) {
	if s == nil {
		return nil, 0, nil
	}
	owner := ""
	if req.Peer.Owns() {
		owner = req.Peer.Owner() + "\x00" + req.CachePart()
	}
	return e.Formats.Compile(ctx, owner, s)
}

// charge reports the cost of a refused format, so that admission charges it, and returns the refusal.
func (e *Engine) charge(spent time.Duration, emit infer.Sink, refusal error) error {
	if cost := e.Loop.Cost(spent); cost > 0 {
		if err := emit(&infer.Text{Cost: cost}); err != nil {
			return err
		}
	}
	return refusal
}

// errTooShort returns the error of a request if its shortest answer has least tokens, more than the
// limit of most. maxTokens is max_tokens of the request, or 0.
func errTooShort(member string, least, maxTokens, most int) error {
	if maxTokens == 0 || most < maxTokens {
		return infer.Refusef(member, "%s: the shortest answer has %d tokens, the context has room for %d behind the prompt", member, least, most)
	}
	return infer.Refusef(member, "%s: the shortest answer has %d tokens: max_tokens must be at least that, it is %d", member, least, maxTokens)
}

// newAnswer returns an empty answer to gen. If a response format defines the whole text, neither stop
// sequences nor markers of turns end it, and nothing is trimmed. If the prompt is rendered without
// the template, there are no turns: only stop sequences end the text, and nothing is trimmed.
func (e *Engine) newAnswer(gen *infer.Generate) answer {
	var a answer
	if gen.Format.Constrains() {
		return a
	}
	for _, text := range gen.Stop {
		a.stops = append(a.stops, stop{text, infer.StopSequence})
	}
	if !gen.Raw() {
		for _, text := range e.Template.Stops() {
			a.stops = append(a.stops, stop{text, infer.EndOfTurn})
		}
		a.trim = e.Template.Dialect().Text.Lead != ""
	}
	return a
}

// errLate ends a sequence at its deadline.
var errLate = errors.New("the deadline has passed")

// errSlowTemplate returns the error of a rendering that exceeds its budget of CPU time.
func errSlowTemplate(cpu *budget.CPU) error {
	return infer.Errorf(infer.Invalid, "chat template: rendering this conversation took more than %g s of CPU time", cpu.Max().Seconds())
}

// callOf returns the number of a call, which the link sets as the ID of the request, or 0 if it has
// none.
func callOf(req *infer.Request) uint64 {
	call, _ := strconv.ParseUint(req.ID, 10, 64) // 0 for an ID of another kind
	return call
}

// Share prefills the common beginning of all conversations with text as their system message, and
// pins it for the prompts of all users.
func (e *Engine) Share(ctx context.Context, text string) error {
	// The tokens at the end of the text depend on the next message. So the prefix is the common part
	// of two conversations.
	var prompts [2][]batch.Token
	for i, next := range []string{"a", "b"} {
		gen := &infer.Generate{Messages: []infer.Message{infer.TextMessage(infer.System, text), infer.TextMessage(infer.User, next)}}
		p, err := e.prompt(ctx, gen, promptOptions{render: e.render})
		if err != nil {
			return err
		}
		prompts[i] = p.tokens
	}
	n := 0
	for n < min(len(prompts[0]), len(prompts[1])) && prompts[0][n] == prompts[1][n] {
		n++
	}
	if n == 0 {
		return infer.Errorf(infer.Invalid, "the model's chat template writes no common beginning for conversations with this system message")
	}
	if n > e.Loop.Room()/2 {
		return infer.Errorf(infer.Invalid, "the prefix has %d tokens, which is more than half of the context's %d", n, e.Loop.Room())
	}
	_, err := e.Loop.Do(ctx, batch.Sequence{
		Prompt: prompts[0][:n], Max: 1, Pinned: true,
		Sample: func(int) (batch.Token, error) { return 0, nil },
		Ends:   func(batch.Token) bool { return true },
	})
	return err
}
