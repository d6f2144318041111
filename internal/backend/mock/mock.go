// Package mock is a backend without a model, for the tests of inferd and of clients: it answers
// with a fixed list of tokens and fails on demand. Its vectors, scores and revealed prompts depend on
// the request; everything else, such as attachments and constraints, is accepted and ignored.
package mock

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/inferd-go/inferd/internal/infer"
)

// kind is the name of this kind of backend. The answers of a mock also give it as their backend and
// model.
const kind = "mock"

// A Backend answers every request in the same way. The zero value answers with the single token
// "mock-response".
type Backend struct {
	Tokens     []string      // the answer; nil means the single token "mock-response"
	TokenDelay time.Duration // wait before every token
	// PreStream is the failure of every request before its first token: "not_ready",
	// "invalid_request", "unavailable" or "internal"; empty means no failure.
	PreStream string
	DropAfter int    // tokens after which the answer ends without a terminal event; 0 means never
	ToolUse   string // name of a tool to call instead of writing text, if the client accepts calls; empty means none
	ToolInput []byte // input of the call, a JSON object; nil means {}
	// ToolOnce limits the call to requests that offer the tool and contain no result of a tool. Other
	// requests are answered with text, so that a client that runs tools does not loop for ever.
	ToolOnce bool
	// Thoughts are tokens of thinking before the answer, if the request asks for thinking and
	// the client accepts it.
	Thoughts   []string
	FailFirst  int // number of requests, from the first on, that fail as unavailable
	Dimensions int // of vectors; 0 means DefaultDimensions
	// PromptTokens is the reported size of every prompt. It is reported to requests that count tokens
	// and at the end of an answer; also at its beginning, if it is not 0 or the prompt is revealed.
	PromptTokens int
	CachedTokens int // how many of PromptTokens are reported as cached; not for requests that count tokens
	// NotReadyAfter is the number of requests after which the mock is no longer ready; 0 means no
	// limit.
	NotReadyAfter int
	// NoEmbed and NoRerank make embedding and reranking fail, whatever abilities the entry has.
	NoEmbed, NoRerank bool
	// NoV2 makes a request fail if its client accepts more than text. The error contains Name.
	NoV2 bool
	Name string // of the entry

	requests atomic.Int64
}

var _ infer.Handler = (*Backend)(nil)

// failures maps the values of Backend.PreStream to errors.
var failures = map[string]error{
	"not_ready":       infer.Errorf(infer.Unavailable, "backend not ready"),
	"invalid_request": infer.Errorf(infer.Invalid, "mock"),
	"unavailable":     infer.Errorf(infer.Unavailable, "mock"),
	"internal":        infer.Errorf(infer.Internal, "mock"),
}

// Ready reports whether fewer than NotReadyAfter requests have arrived; it is true without a limit.
func (b *Backend) Ready() bool {
	return b.NotReadyAfter == 0 || b.requests.Load() < int64(b.NotReadyAfter)
}

// Handle answers req as the fields of b determine. A generated answer ends early, as canceled, at
// the request's deadline.
func (b *Backend) Handle(ctx context.Context, req *infer.Request, emit infer.Sink) error {
	n := b.requests.Add(1)
	switch {
	case b.NotReadyAfter > 0 && n > int64(b.NotReadyAfter):
		return failures["not_ready"]
	case n <= int64(b.FailFirst):
		return failures["unavailable"]
	case b.PreStream != "":
		return failures[b.PreStream]
	}
	switch t := req.Task.(type) {
	case *infer.Embed:
		return b.embed(t, emit)
	case *infer.Rerank:
		return b.rerank(t, emit)
	case *infer.Generate:
		if !req.Deadline.IsZero() {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadlineCause(ctx, req.Deadline, errLate)
			defer cancel()
		}
		return b.generate(ctx, t, emit)
	case *infer.Count:
		if b.NoV2 {
			return b.noV2()
		}
		if t.Of.Reveal != (infer.Reveal{}) {
			if err := b.reveal(t.Of, emit); err != nil {
				return err
			}
		}
		return emit(&infer.Done{Reason: infer.EndOfTurn, In: b.PromptTokens, Backend: kind, Model: kind})
	}
	return infer.Errorf(infer.Internal, "the mock does not know a %T", req.Task)
}

func (b *Backend) generate(ctx context.Context, t *infer.Generate, emit infer.Sink) error {
	if b.NoV2 && t.Blocks {
		return b.noV2()
	}
	if err := b.reveal(t, emit); err != nil {
		return err
	}
	thought := 0
	if t.Thinking == infer.ThinkOn && t.Blocks {
		var err error
		if thought, err = b.think(ctx, emit); err != nil {
			return b.cut(err, thought, emit)
		}
	}
	if b.calls(t) {
		if err := pause(ctx, b.TokenDelay); err != nil {
			return b.cut(err, thought, emit)
		}
		call := infer.ToolCall{ID: "mock-call-1", Name: b.ToolUse, Input: slices.Clone(b.ToolInput), Tokens: 1}
		if call.Input == nil {
			call.Input = []byte("{}")
		}
		if err := emit(&call); err != nil {
			return err
		}
		return emit(b.done(infer.CalledTool, thought+1))
	}
	tokens := b.Tokens
	if tokens == nil {
		tokens = []string{"mock-response"}
	}
	drops := b.DropAfter > 0 && b.DropAfter <= len(tokens)
	if drops {
		tokens = tokens[:b.DropAfter]
	}
	ev := infer.Text{Tokens: 1}
	for i, token := range tokens {
		if err := pause(ctx, b.TokenDelay); err != nil {
			return b.cut(err, thought+i, emit)
		}
		ev.Delta = append(ev.Delta[:0], token...)
		ev.More = b.TokenDelay <= 0 || i == len(tokens)-1
		if len(token) == 0 {
			continue // an event must have text
		}
		if err := emit(&ev); err != nil {
			return err
		}
	}
	if drops {
		return nil
	}
	done := b.done(infer.EndOfTurn, thought+len(tokens))
	done.Unsatisfied = t.Choice.Mode == infer.ToolRequired || t.Choice.Mode == infer.ToolNamed
	return emit(done)
}

// calls reports whether t is answered with a call of the tool.
func (b *Backend) calls(t *infer.Generate) bool {
	if b.ToolUse == "" || !t.Blocks {
		return false
	}
	if !b.ToolOnce {
		return true
	}
	for _, m := range t.Messages {
		for _, p := range m.Content {
			if _, ran := p.(*infer.ResultPart); ran {
				return false
			}
		}
	}
	return slices.ContainsFunc(t.Tools, func(tool infer.Tool) bool { return tool.Name == b.ToolUse })
}

// reveal emits the prompt. Each byte of its text is one token with the byte as its id; the text of a
// conversation is that of its messages, joined. If t gives token ids, ids outside 0 to 255 have no
// text. Without t.Reveal, only the size is emitted, and nothing if PromptTokens is 0.
func (b *Backend) reveal(t *infer.Generate, emit infer.Sink) error {
	of := t.Reveal
	if of == (infer.Reveal{}) {
		if b.PromptTokens == 0 {
			return nil
		}
		return emit(&infer.Prompt{Tokens: b.PromptTokens, Cached: b.CachedTokens})
	}
	var text []byte
	if t.Prompt != nil {
		text = append(text, *t.Prompt...)
	}
	for _, m := range t.Messages {
		text = append(text, m.Text()...)
	}
	ids := t.Tokens
	if ids == nil {
		for _, c := range text {
			ids = append(ids, int32(c))
		}
	}
	ev := &infer.Prompt{Tokens: b.PromptTokens, Cached: b.CachedTokens, IDs: ids}
	for _, id := range ids {
		var piece []byte
		if id >= 0 && id < 256 {
			piece = []byte{byte(id)}
		}
		ev.Pieces = append(ev.Pieces, piece)
		ev.Text = append(ev.Text, piece...)
	}
	return emit(ev)
}

func (b *Backend) done(reason infer.Reason, out int) *infer.Done {
	return &infer.Done{Reason: reason, In: b.PromptTokens, Cached: b.CachedTokens, Out: out, Backend: kind, Model: kind}
}

func (b *Backend) noV2() error {
	return infer.Errorf(infer.Internal, "backend %q does not advertise v2 capability", b.Name)
}

// think emits the thoughts. It returns the number of tokens so far, also on an error.
func (b *Backend) think(ctx context.Context, emit infer.Sink) (tokens int, err error) {
	ev := infer.Thinking{Tokens: 1}
	for _, token := range b.Thoughts {
		if err := pause(ctx, b.TokenDelay); err != nil {
			return tokens, err
		}
		tokens++
		ev.Delta = append(ev.Delta[:0], token...)
		if len(token) == 0 {
			continue // an event must have text
		}
		if err := emit(&ev); err != nil {
			return tokens, err
		}
	}
	return tokens, nil
}

// errLate is the cause of a context that has ended at the deadline of its request.
var errLate = errors.New("the deadline has passed")

// cut ends an answer after n tokens: with a Done if the deadline has passed, else with err.
func (b *Backend) cut(err error, n int, emit infer.Sink) error {
	if !errors.Is(err, errLate) {
		return err
	}
	return emit(b.done(infer.Canceled, n))
}

// embed emits a vector for each text. The numbers of the vector depend only on the length of the
// text in bytes.
func (b *Backend) embed(t *infer.Embed, emit infer.Sink) error {
	if b.NoEmbed {
		return infer.Errorf(infer.Unsupported, "embed not supported by this backend")
	}
	dimensions := cmp.Or(b.Dimensions, DefaultDimensions)
	if t.Dimensions > 0 {
		dimensions = min(t.Dimensions, MaxDimensions)
	}
	ev := infer.Vectors{Values: make([][]float32, len(t.Inputs))}
	total := 0
	for i, input := range t.Inputs {
		ev.Values[i] = make([]float32, dimensions)
		for j := range ev.Values[i] {
			ev.Values[i][j] = float32(j+1) / float32(len(input)+1)
		}
		total += len(input)
	}
	if err := emit(&ev); err != nil {
		return err
	}
	return emit(&infer.Done{Reason: infer.EndOfTurn, In: total, Backend: kind, Model: kind})
}

// DefaultDimensions is the default length of a vector.
const DefaultDimensions = 8

// MaxDimensions bounds the length of a vector, and so the memory that a mock allocates for each
// text of a request.
const MaxDimensions = 8192

// rerank emits the score of each document: the share of the query's words that the document contains,
// without regard to case.
func (b *Backend) rerank(t *infer.Rerank, emit infer.Sink) error {
	if b.NoRerank {
		return infer.Errorf(infer.Unsupported, "rerank not supported by this backend")
	}
	words := strings.Fields(strings.ToLower(t.Query))
	ev := infer.Scores{Values: make([]float64, len(t.Documents))}
	total := 0
	for i, doc := range t.Documents {
		lower := strings.ToLower(doc)
		found := 0
		for _, w := range words {
			if strings.Contains(lower, w) {
				found++
			}
		}
		ev.Values[i] = float64(found) / float64(max(len(words), 1))
		total += len(t.Query) + len(doc)
	}
	if err := emit(&ev); err != nil {
		return err
	}
	return emit(&infer.Done{Reason: infer.EndOfTurn, In: total, Backend: kind, Model: kind})
}

// pause waits d. It returns the cause of ctx if that has ended or ends first.
func pause(ctx context.Context, d time.Duration) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
