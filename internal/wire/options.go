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
	maxSalt         = 64  // bytes
	maxGrammar      = 64 << 10
	maxAlternatives = 4096
	maxNumber       = 1e6 // above any sensible value, and exact in single precision
)

// minTopP replaces a top_p of 0. On the wire 0 allows only the most likely token, but in
// [infer.Sampling] it means no limit.
const minTopP = 1e-6

// Defaults returns the values that v1 and v2 use for the missing members of a request to generate.
// maxTokens is the dialect's default for max_tokens.
func Defaults(maxTokens int) infer.Defaults {
	return infer.Defaults{MaxTokens: maxTokens, Sampling: infer.Sampling{Temperature: new(1.0), TopP: new(0.95), TopK: new(64)}}
}

// priorities maps the values of priority to [infer.Request.Background].
var priorities = map[string]bool{"normal": false, "background": true}

// Options are the members of generation requests that v1 and v2 share. A dialect embeds them
// in its request.
type Options struct {
	Temperature *Number  `json:"temperature,omitzero"`
	TopP        *Number  `json:"top_p,omitzero"`
	TopK        *Integer `json:"top_k,omitzero"`
	MaxTokens   *Integer `json:"max_tokens,omitzero"`
	Stream      *bool    `json:"stream,omitzero"`

	// Extensions to the protocol of the reference daemon.
	Stop             []*string `json:"stop,omitzero"` // elements must not be null
	Seed             *Integer  `json:"seed,omitzero"`
	MinP             *Number   `json:"min_p,omitzero"`
	RepeatPenalty    *Number   `json:"repeat_penalty,omitzero"`
	PresencePenalty  *Number   `json:"presence_penalty,omitzero"`
	FrequencyPenalty *Number   `json:"frequency_penalty,omitzero"`
	Model            string    `json:"model,omitzero"`
	Priority         string    `json:"priority,omitzero"`
	Client           string    `json:"client,omitzero"`
	DeadlineMS       *Integer  `json:"deadline_ms,omitzero"` // since the arrival of the request
}

// Shape completes the decoding: it returns an error if an element of stop is null. An error ends the
// connection.
func (o *Options) Shape() error {
	if i := slices.Index(o.Stop, nil); i >= 0 {
		return Decodef("stop[%d] is null", i)
	}
	return nil
}

// Streams reports whether the answer is to be sent in pieces, which is the default.
func (o *Options) Streams() bool { return ValueOr(o.Stream, true) }

// Apply checks the values of the members and copies them to req and gen. maxTokens is the default
// for max_tokens.
func (o *Options) Apply(req *infer.Request, gen *infer.Generate, maxTokens int) error {
	gen.Model = o.Model
	gen.Defaults = Defaults(maxTokens)
	for _, s := range o.Stop {
		gen.Stop = append(gen.Stop, *s)
	}
	req.Client = o.Client
	req.Background = priorities[o.Priority]
	if err := o.integers(req, gen); err != nil {
		return err
	}
	if err := o.numbers(&gen.Sampling); err != nil {
		return err
	}
	return o.check(gen)
}

// integers checks and copies the integer members.
func (o *Options) integers(req *infer.Request, gen *infer.Generate) (err error) {
	if o.MaxTokens != nil {
		if gen.MaxTokens, err = o.MaxTokens.Within("max_tokens", 1); err != nil {
			return err
		}
	}
	if o.TopK != nil {
		k, err := o.TopK.Within("top_k", 0)
		if err != nil {
			return err
		}
		gen.Sampling.TopK = &k
	}
	if o.Seed != nil {
		seed, err := o.Seed.Seed()
		if err != nil {
			return err
		}
		gen.Sampling.Seed = &seed
	}
	if o.DeadlineMS != nil {
		ms, err := o.DeadlineMS.Within("deadline_ms", 1)
		if err != nil {
			return err
		}
		req.Deadline = time.Now().Add(time.Duration(ms) * time.Millisecond)
	}
	return nil
}

// numbers checks and copies the members that may have a fraction.
func (o *Options) numbers(s *infer.Sampling) error {
	for _, number := range []struct {
		name     string
		value    *Number
		min, max float64
		to       **float64
	}{
		{"temperature", o.Temperature, 0, maxNumber, &s.Temperature},
		{"top_p", o.TopP, 0, maxNumber, &s.TopP}, // a value above 1 means no limit; it was never refused
		{"min_p", o.MinP, 0, 1, &s.MinP},
		{"repeat_penalty", o.RepeatPenalty, 0, maxNumber, &s.RepeatPenalty},
		{"presence_penalty", o.PresencePenalty, -maxNumber, maxNumber, &s.PresencePenalty},
		{"frequency_penalty", o.FrequencyPenalty, -maxNumber, maxNumber, &s.FrequencyPenalty},
	} {
		if number.value == nil {
			continue
		}
		value := float64(*number.value)
		if value < number.min || value > number.max {
			return Invalid("%s must be between %.0f and %.0f", number.name, number.min, number.max)
		}
		*number.to = &value
	}
	if s.TopP != nil {
		*s.TopP = max(*s.TopP, minTopP)
	}
	return nil
}

func (o *Options) check(gen *infer.Generate) error {
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
	return nil
}

// OptionsOf is the inverse of [Options.Apply], for clients: Apply would copy the result to an equal
// request and task. The deadline becomes the time left, at least 1 ms.
func OptionsOf(req *infer.Request, gen *infer.Generate, stream bool) Options {
	s := gen.Sampling
	o := Options{
		Temperature: numberOf(s.Temperature), TopP: numberOf(s.TopP), Stream: &stream,
		MinP: numberOf(s.MinP), RepeatPenalty: numberOf(s.RepeatPenalty),
		PresencePenalty: numberOf(s.PresencePenalty), FrequencyPenalty: numberOf(s.FrequencyPenalty),
		Model: gen.Model, Client: req.Client,
	}
	if o.TopP != nil && *o.TopP == 0 {
		o.TopP = new(Number(1)) // on the wire 1 means no limit
	}
	if s.TopK != nil {
		o.TopK = new(IntegerOf(*s.TopK))
	}
	if gen.MaxTokens != 0 {
		o.MaxTokens = new(IntegerOf(gen.MaxTokens))
	}
	if s.Seed != nil {
		seed := IntegerOf(int(*s.Seed))
		o.Seed = &seed
	}
	if req.Background {
		o.Priority = "background"
	}
	if !req.Deadline.IsZero() {
		left := IntegerOf(int(min(max(time.Until(req.Deadline).Milliseconds(), 1), math.MaxUint32)))
		o.DeadlineMS = &left
	}
	for _, text := range gen.Stop {
		o.Stop = append(o.Stop, &text)
	}
	return o
}

func numberOf(x *float64) *Number {
	if x == nil {
		return nil
	}
	return new(Number(*x))
}

// CheckSalt returns an error if a cache_salt is too long.
func CheckSalt(salt string) error {
	if len(salt) > maxSalt {
		return Invalid("cache_salt has %d bytes, at most %d are allowed", len(salt), maxSalt)
	}
	return nil
}

// CheckGrammar returns an error if a GBNF grammar is too large, contains a NUL, or has too many
// alternatives.
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

// Invalid returns the error for a well-formed request with invalid values. The connection stays
// open.
func Invalid(format string, args ...any) error {
	return infer.Errorf(infer.Invalid, "invalid request: "+format, args...)
}

// ValueOr returns *p, or fallback if p is nil.
func ValueOr[T any](p *T, fallback T) T {
	if p == nil {
		return fallback
	}
	return *p
}
