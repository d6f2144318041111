// Package engine answers requests with a model: it renders a conversation, turns it
// into tokens, has them continued by a batch loop, and turns what comes back into text.
// It knows nothing of the daemon that asks, nor of other requests that run beside one.
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

// Kind is what an engine calls itself in its answers.
const Kind = "llamacpp"

// An Engine is a Handler over one loaded model.
type Engine struct {
	Model    *llama.Model
	Context  *llama.Context
	Template *chat.Template
	Loop     *batch.Loop // decodes on Context
	// LongestToken is how many bytes a token can stand for; 0 is not known.
	LongestToken int
	// Rendering bounds the CPU time of rendering one conversation: a model's template is a
	// program. Nil is no bound.
	Rendering *budget.CPU
}

var _ infer.Handler = (*Engine)(nil)

// Handle answers req, which must be to generate. A request that the model cannot take
// is [infer.Invalid] and says why.
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

	text := answer{stops: append(e.Template.Stops(), gen.Stop...)}
	var (
		ev     infer.Text
		piece  []byte
		likely infer.Logprob // of the token that was chosen last, if that is to be told
		lost   error         // of the first emit that failed
	)
	send := func(delta []byte) {
		if len(delta) > 0 && lost == nil {
			ev.Delta = delta
			lost = emit(&ev)
			ev.Tokens, ev.Cost, ev.Logprobs = 0, 0, ev.Logprobs[:0]
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
		Paused: paused.Load,
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
	if gen.Format.Grammar != "" { // which may take longer than a step
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
	done := infer.Done{Reason: reason(result.End), In: len(prompt), Cached: result.Cached, Out: result.Out, By: Kind, Model: e.Model.Name()}
	switch {
	case errors.Is(err, errLate):
		done.Reason = infer.Canceled
	case errors.Is(err, budget.ErrExceeded):
		return errSlowGrammar
	case err != nil:
		return err
	}
	send(text.end())
	if lost != nil {
		return lost
	}
	return emit(&done)
}

// errLate ends a sequence whose deadline has come.
var errLate = errors.New("the deadline has passed")

// Failures of calls over their budget of CPU time.
var (
	errSlowGrammar  = infer.Errorf(infer.Invalid, "the grammar takes too long: one token took more than 5 s of CPU time")
	errSlowTemplate = infer.Errorf(infer.Invalid, "chat template: rendering this conversation took more than 5 s of CPU time")
)

// callOf is the number of a call, which the link gives it as its ID; 0 is none.
func callOf(req *infer.Request) uint64 {
	call, _ := strconv.ParseUint(req.ID, 10, 64) // 0 for an ID of another kind
	return call
}

// Share reads the beginning of all conversations that begin with a system message of that
// text, and keeps it for everybody.
func (e *Engine) Share(ctx context.Context, text string) error {
	// What is behind the text depends on what follows it: the prefix is what two
	// conversations have in common.
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
		Prompt: prompts[0][:n], Max: 1, Pinned: true,
		Sample: func(int) (batch.Token, error) { return 0, nil },
		Ends:   func(batch.Token) bool { return true },
	})
	return err
}

func reason(end batch.End) infer.Reason {
	switch end {
	case batch.Reached:
		return infer.Length
	case batch.Stopped:
		return infer.StopSequence
	default:
		return infer.EndOfTurn
	}
}

// leastTokens is how many tokens a conversation has at least. Counting them takes a second
// per 100 KB of the worst text: what cannot fit is not even looked at.
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

// render renders a conversation within the budget for that.
func (e *Engine) render(messages []infer.Message) ([]chat.Segment, error) {
	if e.Rendering == nil {
		return e.Template.Render(messages)
	}
	var out struct { // apart from the results: an abandoned rendering may still write to it
		segments []chat.Segment
		err      error
	}
	if e.Rendering.Do(func() { out.segments, out.err = e.Template.Render(messages) }) != nil {
		return nil, errSlowTemplate
	}
	return out.segments, out.err
}

// prompt returns the tokens of a conversation. Special tokens are only those that the
// template wrote.
func (e *Engine) prompt(messages []infer.Message) ([]batch.Token, error) {
	segments, err := e.render(messages)
	if err != nil {
		return nil, err
	}
	var tokens []batch.Token
	if bos, ok := e.Model.BOS(); ok && e.Model.AddBOS() {
		// Most templates write it themselves.
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
	if len(tokens) == 0 { // an empty prompt: the model still needs something to go on from
		bos, ok := e.Model.BOS()
		if !ok {
			return nil, infer.Errorf(infer.Invalid, "the prompt has no tokens")
		}
		tokens = append(tokens, bos)
	}
	return tokens, nil
}
