package wire

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/inferd-go/inferd/internal/infer"
)

// Limits of the members of [Options].
const (
	maxStops        = 16
	maxStop         = 256 // bytes
	maxClient       = 64  // bytes
	maxGrammar      = 64 << 10
	maxAlternatives = 4096
	maxNumber       = 1e6 // far beyond sense, and safe in single precision
)

// leastTopP stands for a top_p of 0, which lets only the likeliest token through: in
// [infer.Sampling] 0 is no limit.
const leastTopP = 1e-6

// Defaults of a request to generate.
const (
	defaultTemperature = 1.0
	defaultTopP        = 0.95
	defaultTopK        = 64
)

// priorities are the values of priority: whether they mean the background.
var priorities = map[string]bool{"normal": false, "background": true}

// Options are the members that both generations of the wire have when they ask to
// generate. A dialect embeds them in its request.
type Options struct {
	Temperature *float64 `json:"temperature,omitzero"`
	TopP        *float64 `json:"top_p,omitzero"`
	TopK        *uint32  `json:"top_k,omitzero"`
	MaxTokens   *uint32  `json:"max_tokens,omitzero"`
	Stream      *bool    `json:"stream,omitzero"`

	// Beyond the reference.
	Stop             []*string `json:"stop,omitzero"` // elements must not be null
	Seed             *uint32   `json:"seed,omitzero"`
	MinP             float64   `json:"min_p,omitzero"`
	RepeatPenalty    float64   `json:"repeat_penalty,omitzero"`
	PresencePenalty  float64   `json:"presence_penalty,omitzero"`
	FrequencyPenalty float64   `json:"frequency_penalty,omitzero"`
	Model            string    `json:"model,omitzero"`
	Priority         string    `json:"priority,omitzero"`
	Client           string    `json:"client,omitzero"`
	DeadlineMS       *uint32   `json:"deadline_ms,omitzero"` // from the arrival of the request
}

// Shape reports what makes a request with these members no request at all: that ends
// the connection.
func (o *Options) Shape() error {
	if i := slices.Index(o.Stop, nil); i >= 0 {
		return Decodef("stop[%d] is null", i)
	}
	return nil
}

// Streams reports whether the answer is to come in pieces.
func (o *Options) Streams() bool { return Or(o.Stream, true) }

// Apply puts the members into req and gen, its task, or says why they cannot be. A
// request that does not say how many tokens it wants gets maxTokens.
func (o *Options) Apply(req *infer.Request, gen *infer.Generate, maxTokens uint32) error {
	gen.Model = o.Model
	gen.MaxTokens = int(Or(o.MaxTokens, maxTokens))
	gen.Sampling.Temperature = Or(o.Temperature, defaultTemperature)
	gen.Sampling.TopK = int(Or(o.TopK, defaultTopK))
	gen.Sampling.TopP = max(Or(o.TopP, defaultTopP), leastTopP)
	gen.Sampling.MinP = o.MinP
	gen.Sampling.RepeatPenalty = o.RepeatPenalty
	gen.Sampling.PresencePenalty = o.PresencePenalty
	gen.Sampling.FrequencyPenalty = o.FrequencyPenalty
	gen.Sampling.Seed = o.Seed
	for _, s := range o.Stop {
		gen.Stop = append(gen.Stop, *s)
	}
	req.Client = o.Client
	req.Background = priorities[o.Priority]
	if o.DeadlineMS != nil {
		req.Deadline = time.Now().Add(time.Duration(*o.DeadlineMS) * time.Millisecond)
	}
	return o.check(gen)
}

func (o *Options) check(gen *infer.Generate) error {
	if gen.MaxTokens < 1 {
		return Invalid("max_tokens must be at least 1")
	}
	for _, number := range []struct {
		name          string
		value         float64
		least, utmost float64
	}{
		{"temperature", Or(o.Temperature, 0), 0, maxNumber},
		{"top_p", Or(o.TopP, 0), 0, maxNumber}, // over 1 is no limit either, and was never refused
		{"min_p", o.MinP, 0, 1},
		{"repeat_penalty", o.RepeatPenalty, 0, maxNumber},
		{"presence_penalty", o.PresencePenalty, -maxNumber, maxNumber},
		{"frequency_penalty", o.FrequencyPenalty, -maxNumber, maxNumber},
	} {
		if number.value < number.least || number.value > number.utmost {
			return Invalid("%s must be between %.0f and %.0f", number.name, number.least, number.utmost)
		}
	}
	if len(gen.Stop) > maxStops {
		return Invalid("stop has %d strings, at most %d are allowed", len(gen.Stop), maxStops)
	}
	for i, s := range gen.Stop {
		if len(s) == 0 || len(s) > maxStop {
			return Invalid("stop[%d] has %d bytes, it must have 1 to %d", i, len(s), maxStop)
		}
	}
	if _, ok := priorities[o.Priority]; !ok && o.Priority != "" {
		return Invalid("priority must be one of: normal, background")
	}
	if len(o.Client) > maxClient {
		return Invalid("client has %d bytes, at most %d are allowed", len(o.Client), maxClient)
	}
	if o.DeadlineMS != nil && *o.DeadlineMS == 0 {
		return Invalid("deadline_ms must be at least 1")
	}
	return nil
}

// OptionsOf is the other way round, for clients: Apply of the result makes the same
// request and task again.
func OptionsOf(req *infer.Request, gen *infer.Generate, stream bool) Options {
	var (
		s         = gen.Sampling
		topK      = uint32(s.TopK)
		maxTokens = uint32(gen.MaxTokens)
	)
	if s.TopP == 0 {
		s.TopP = 1 // no limit, in the words of the wire
	}
	o := Options{
		Temperature: &s.Temperature, TopP: &s.TopP, TopK: &topK, MaxTokens: &maxTokens, Stream: &stream,
		Seed: s.Seed, MinP: s.MinP, RepeatPenalty: s.RepeatPenalty,
		PresencePenalty: s.PresencePenalty, FrequencyPenalty: s.FrequencyPenalty,
		Model: gen.Model, Client: req.Client,
	}
	if req.Background {
		o.Priority = "background"
	}
	if !req.Deadline.IsZero() {
		left := uint32(min(max(time.Until(req.Deadline).Milliseconds(), 1), math.MaxUint32))
		o.DeadlineMS = &left
	}
	for _, text := range gen.Stop {
		o.Stop = append(o.Stop, &text)
	}
	return o
}

// CheckGrammar refuses a GBNF grammar that is too large, or would be cut short where it is
// parsed.
func CheckGrammar(grammar string) error {
	if n := len(grammar); n > maxGrammar {
		return Invalid("grammar has %d bytes, at most %d are allowed", n, maxGrammar)
	}
	if i := strings.IndexByte(grammar, 0); i >= 0 {
		return Invalid("grammar has a NUL at byte %d", i)
	}
	if n := strings.Count(grammar, "|"); n > maxAlternatives {
		return Invalid("grammar has %d alternatives, at most %d are allowed", n, maxAlternatives)
	}
	return nil
}

// Invalid makes the error of a request that is well formed and yet cannot be.
func Invalid(format string, args ...any) error {
	return infer.Errorf(infer.Invalid, "invalid request: "+format, args...)
}

// Or returns *p, or fallback if there is none.
func Or[T any](p *T, fallback T) T {
	if p == nil {
		return fallback
	}
	return *p
}
