// Package engine answers requests with a model: it renders a conversation, tokenizes the
// prompt, submits it to a batch loop and turns the generated tokens into text. It does not
// know the daemon, nor other requests.
package engine

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/batch"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/budget"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/chat"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/llama"
	"github.com/inferd-go/inferd/internal/infer"
)

// Kind is the kind of backend in an engine's answers.
const Kind = "llamacpp"

// An Engine is a Handler over one loaded model.
type Engine struct {
	Model    *llama.Model
	Context  *llama.Context
	Template *chat.Template
	Loop     *batch.Loop // decodes on Context
	// LongestToken is the maximum length of a token in bytes; 0 is unknown.
	LongestToken int
	// Rendering limits the CPU time of rendering one conversation: a model's template is a
	// program. Nil means no limit.
	Rendering *budget.CPU
}

var _ infer.Handler = (*Engine)(nil)

// Handle answers req, which must be an [infer.Generate]. It returns [infer.Invalid] with the
// reason if the model cannot answer it.
func (e *Engine) Handle(ctx context.Context, req *infer.Request, emit infer.Sink) error {
	gen, ok := req.Task.(*infer.Generate)
	if !ok {
		return infer.Errorf(infer.Unsupported, "this model only generates")
	}
	if least := e.leastTokens(gen.Messages); least > e.Loop.Room() {
		return infer.Errorf(infer.Invalid, "the prompt has more than %d tokens, the context holds %d", least, e.Loop.Room())
	}
	prompt, err := e.prompt(gen.Messages)
	if err != nil {
		return err
	}
	room := e.Loop.Room() - len(prompt)
	if room < 1 {
		return infer.Errorf(infer.Invalid, "the prompt has %d tokens, the context holds %d", len(prompt), e.Loop.Room())
	}
	sampler, err := llama.NewSampler(e.Model, llama.SamplerOptions{Sampling: gen.Sampling, Grammar: gen.Format.Grammar})
	if err != nil {
		return infer.Errorf(infer.Invalid, "%w", err)
	}
	defer sampler.Free()

	text := e.answer(gen)
	var (
		ev     infer.Text
		piece  []byte
		likely infer.Logprob // of the last token, if logprobs are requested
		lost   error         // of the first failed emit
	)
	send := func(delta []byte) {
		ev.Logprobs = text.withoutTrimmed(ev.Logprobs)
		switch {
		case lost != nil:
		case len(delta) > 0:
			ev.Delta = delta
			lost = emit(&ev)
			ev.Tokens, ev.Cost, ev.Logprobs = 0, 0, ev.Logprobs[:0]
		case ev.Tokens >= maxUnreported:
			lost = emit(&infer.Text{Tokens: ev.Tokens, Cost: ev.Cost})
			ev.Tokens, ev.Cost = 0, 0
		}
	}
	if !req.Deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, req.Deadline, errLate)
		defer cancel()
	}
	var paused atomic.Bool
	stop := req.Pause.Preempted.OnChange(func(on bool) {
		paused.Store(on)
		e.Loop.Wake()
	})
	defer stop()
	seq := batch.Sequence{
		Call:   callOf(req),
		Owner:  req.Peer.User,
		Held:   paused.Load,
		Prompt: prompt,
		Max:    min(gen.MaxTokens, room),
		Sample: func(i int) (batch.Token, error) {
			tok, err := sampler.Sample(e.Context, i)
			if err == nil && gen.Logprobs > 0 {
				likely, err = e.Model.Logprobs(e.Context, i, tok, gen.Logprobs)
			}
			return tok, err
		},
		Ends: e.Model.IsEOG,
		Emit: func(tok batch.Token, cost int) bool {
			ev.Tokens++
			ev.Cost += cost
			if gen.Logprobs > 0 {
				ev.Logprobs = append(ev.Logprobs, likely)
			}
			piece = e.Model.AppendPiece(piece[:0], tok)
			delta, stopped := text.add(piece)
			send(delta)
			return !stopped && lost == nil
		},
	}
	if gen.Format.Grammar != "" { // sampling may take longer than a step
		seq.Detach = func(i int) (func() (batch.Token, error), error) {
			return func() (batch.Token, error) {
				tok, err := sampler.Choose()
				if err == nil && gen.Logprobs > 0 {
					likely, err = sampler.Logprobs(tok, gen.Logprobs)
				}
				return tok, err
			}, sampler.Detach(e.Context, i)
		}
	}
	result, err := e.Loop.Do(ctx, seq)
	done := infer.Done{In: len(prompt), Cached: result.Cached, Out: result.Out, By: Kind, Model: e.Model.Name()}
	late := errors.Is(err, errLate)
	switch {
	case late:
	case errors.Is(err, budget.ErrExceeded):
		return errSlowGrammar
	case err != nil:
		return err
	}
	send(text.end())
	if lost != nil {
		return lost
	}
	switch {
	case late:
		done.Reason = infer.Canceled
	case text.stopped:
		done.Reason = text.reason
	case result.End == batch.Reached:
		done.Reason = infer.Length
	default:
		done.Reason = infer.EndOfTurn
	}
	return emit(&done)
}

// maxUnreported is the number of tokens without text after which they are reported alone, so
// that admission charges them.
const maxUnreported = 32

// answer returns an empty answer to gen. A grammar defines the whole text: then nothing is
// trimmed, and markers of turns are text like any other.
func (e *Engine) answer(gen *infer.Generate) answer {
	var a answer
	for _, text := range gen.Stop {
		a.stops = append(a.stops, stop{text, infer.StopSequence})
	}
	if gen.Format.Grammar == "" {
		for _, text := range e.Template.Stops() {
			a.stops = append(a.stops, stop{text, infer.EndOfTurn})
		}
		a.trim = e.Template.Transcript()
	}
	return a
}

// errLate ends a sequence at its deadline.
var errLate = errors.New("the deadline has passed")

// Failures of calls that exceed their CPU time.
var (
	errSlowGrammar  = infer.Errorf(infer.Invalid, "the grammar takes too long: one token took more than 5 s of CPU time")
	errSlowTemplate = infer.Errorf(infer.Invalid, "chat template: rendering this conversation took more than 5 s of CPU time")
)

// callOf returns the number of the call, which is the ID that the link assigns; 0 is none.
func callOf(req *infer.Request) uint64 {
	call, _ := strconv.ParseUint(req.ID, 10, 64) // 0 for any other ID
	return call
}

// Share prefills the common prefix of all conversations with the given system message and
// pins it in the cache, for all users.
func (e *Engine) Share(ctx context.Context, text string) error {
	// The tokens at the end of the text depend on the text after it: the prefix is the part
	// that two conversations have in common.
	var prompts [2][]batch.Token
	for i, next := range []string{"a", "b"} {
		var err error
		prompts[i], err = e.prompt([]infer.Message{infer.TextMessage(infer.System, text), infer.TextMessage(infer.User, next)})
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
		Prompt: prompts[0][:n], Max: 1, ForAll: true,
		Sample: func(int) (batch.Token, error) { return 0, nil },
		Ends:   func(batch.Token) bool { return true },
	})
	return err
}

// leastTokens is a lower bound on the number of tokens of a conversation. Tokenizing takes a
// second per 100 KB of the worst text, so a prompt that cannot fit is not tokenized.
func (e *Engine) leastTokens(messages []infer.Message) int {
	if e.LongestToken == 0 {
		return 0
	}
	bytes := 0
	for _, m := range messages {
		bytes += len(m.Text())
	}
	return bytes / e.LongestToken
}

// render renders a conversation within its limit of CPU time.
func (e *Engine) render(messages []infer.Message) ([]chat.Segment, error) {
	if e.Rendering == nil {
		return e.Template.Render(messages)
	}
	var out struct { // not the results: an abandoned rendering may still write to it
		segments []chat.Segment
		err      error
	}
	if e.Rendering.Do(func() { out.segments, out.err = e.Template.Render(messages) }) != nil {
		return nil, errSlowTemplate
	}
	return out.segments, out.err
}

// prompt returns the tokens of a conversation. The only special tokens are the template's.
func (e *Engine) prompt(messages []infer.Message) ([]batch.Token, error) {
	segments, err := e.render(messages)
	if err != nil {
		return nil, err
	}
	var tokens []batch.Token
	if bos, ok := e.Model.BOS(); ok && e.Model.AddBOS() {
		// Most templates write the token themselves.
		if len(segments) == 0 || !strings.HasPrefix(segments[0].Text, e.Model.Spelling(bos)) {
			tokens = append(tokens, bos)
		}
	}
	for _, s := range segments {
		more, err := e.Model.Tokenize(s.Text, s.Special)
		if err != nil {
			return nil, infer.Errorf(infer.Internal, "tokenize: %w", err)
		}
		tokens = append(tokens, more...)
	}
	if len(tokens) == 0 { // an empty prompt: the model still needs one token
		bos, ok := e.Model.BOS()
		if !ok {
			return nil, infer.Errorf(infer.Invalid, "the prompt has no tokens")
		}
		tokens = append(tokens, bos)
	}
	return tokens, nil
}
