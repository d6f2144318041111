// Package v1 is the first dialect: text messages in, tokens out, and the whole answer
// once more at the end. It is frozen: its bytes are exact, and what is new is members
// that others ignore. [Codec] is the server half and [Ask] the client half; neither
// knows who is at the other end, or what computes an answer.
package v1

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// Limits of a request.
const (
	maxStops        = 16
	maxStop         = 256 // bytes
	maxGrammar      = 64 << 10
	maxAlternatives = 4096
	maxNumber       = 1e6 // far beyond sense, and safe in single precision
)

// leastTopP stands for a top_p of 0, which lets only the likeliest token through: in
// [infer.Sampling] 0 is no limit.
const leastTopP = 1e-6

// Defaults of a request.
const (
	defaultTemperature = 1.0
	defaultTopP        = 0.95
	defaultTopK        = 64
	defaultMaxTokens   = 1000
)

// The values of image_token_budget. Requests of v1 have no images, so it has no effect.
var budgets = []uint32{70, 140, 280, 560, 1120}

// request is the message that asks. A member that is null reads as one that is missing.
type request struct {
	ID               string    `json:"id,omitzero"`
	Messages         []message `json:"messages"` // must be there
	Temperature      *float64  `json:"temperature,omitzero"`
	TopP             *float64  `json:"top_p,omitzero"`
	TopK             *uint32   `json:"top_k,omitzero"`
	MaxTokens        *uint32   `json:"max_tokens,omitzero"`
	Stream           *bool     `json:"stream,omitzero"`
	ImageTokenBudget *uint32   `json:"image_token_budget,omitzero"`
	Grammar          string    `json:"grammar,omitzero"`

	// Beyond the reference.
	Stop             []*string `json:"stop,omitzero"` // elements must not be null
	Seed             *uint32   `json:"seed,omitzero"`
	MinP             float64   `json:"min_p,omitzero"`
	RepeatPenalty    float64   `json:"repeat_penalty,omitzero"`
	PresencePenalty  float64   `json:"presence_penalty,omitzero"`
	FrequencyPenalty float64   `json:"frequency_penalty,omitzero"`
	Model            string    `json:"model,omitzero"`

	// Known, and refused by name until admission is fair: to ignore them would break
	// a promise that nobody notices.
	Priority   jsontext.Value `json:"priority,omitzero"`
	Client     jsontext.Value `json:"client,omitzero"`
	DeadlineMS jsontext.Value `json:"deadline_ms,omitzero"`
}

type message struct {
	Role    infer.Role `json:"role"`    // must be there
	Content *string    `json:"content"` // must be there
}

// shape reports what makes m no request at all: that ends the connection.
func (m *request) shape() error {
	if m.Messages == nil {
		return wire.Missing("messages")
	}
	for i, msg := range m.Messages {
		switch msg.Role {
		case infer.System, infer.User, infer.Assistant:
		default:
			return wire.Decodef("messages[%d].role is not one of system, user, assistant", i)
		}
		if msg.Content == nil {
			return wire.Missing(fmt.Sprintf("messages[%d].content", i))
		}
	}
	if i := slices.Index(m.Stop, nil); i >= 0 {
		return wire.Decodef("stop[%d] is null", i)
	}
	return nil
}

// generate returns what m asks for, or why that cannot be.
func (m *request) generate() (*infer.Generate, error) {
	if len(m.Messages) == 0 {
		return nil, invalid("messages must not be empty")
	}
	if b := m.ImageTokenBudget; b != nil && !slices.Contains(budgets, *b) {
		return nil, invalid("image_token_budget %d not in [70, 140, 280, 560, 1120]", *b)
	}
	gen := &infer.Generate{
		Model:     m.Model,
		Messages:  make([]infer.Message, len(m.Messages)),
		MaxTokens: int(or(m.MaxTokens, defaultMaxTokens)),
		Grammar:   m.Grammar,
		Sampling: infer.Sampling{
			Temperature:      or(m.Temperature, defaultTemperature),
			TopK:             int(or(m.TopK, defaultTopK)),
			TopP:             max(or(m.TopP, defaultTopP), leastTopP),
			MinP:             m.MinP,
			RepeatPenalty:    m.RepeatPenalty,
			PresencePenalty:  m.PresencePenalty,
			FrequencyPenalty: m.FrequencyPenalty,
			Seed:             m.Seed,
		},
	}
	for i, msg := range m.Messages {
		gen.Messages[i] = infer.Message{Role: msg.Role, Text: *msg.Content}
	}
	for _, s := range m.Stop {
		gen.Stop = append(gen.Stop, *s)
	}
	if gen.MaxTokens < 1 {
		return nil, invalid("max_tokens must be at least 1")
	}
	if err := m.checkSampling(); err != nil {
		return nil, err
	}
	if err := checkStops(gen.Stop); err != nil {
		return nil, err
	}
	if n := len(m.Grammar); n > maxGrammar {
		return nil, invalid("grammar has %d bytes, at most %d are allowed", n, maxGrammar)
	}
	if n := strings.Count(m.Grammar, "|"); n > maxAlternatives {
		return nil, invalid("grammar has %d alternatives, at most %d are allowed", n, maxAlternatives)
	}
	if err := m.checkUnsupported(); err != nil {
		return nil, err
	}
	return gen, nil
}

func (m *request) checkSampling() error {
	for _, number := range []struct {
		name          string
		value         float64
		least, utmost float64
	}{
		{"temperature", or(m.Temperature, 0), 0, maxNumber},
		{"top_p", or(m.TopP, 0), 0, maxNumber}, // over 1 is no limit either, and was never refused
		{"min_p", m.MinP, 0, 1},
		{"repeat_penalty", m.RepeatPenalty, 0, maxNumber},
		{"presence_penalty", m.PresencePenalty, -maxNumber, maxNumber},
		{"frequency_penalty", m.FrequencyPenalty, -maxNumber, maxNumber},
	} {
		if number.value < number.least || number.value > number.utmost {
			return invalid("%s must be between %.0f and %.0f", number.name, number.least, number.utmost)
		}
	}
	return nil
}

func checkStops(stops []string) error {
	if len(stops) > maxStops {
		return invalid("stop has %d strings, at most %d are allowed", len(stops), maxStops)
	}
	for i, s := range stops {
		if len(s) == 0 || len(s) > maxStop {
			return invalid("stop[%d] has %d bytes, it must have 1 to %d", i, len(s), maxStop)
		}
	}
	return nil
}

func (m *request) checkUnsupported() error {
	for _, member := range []struct {
		name  string
		value jsontext.Value
	}{
		{"priority", m.Priority},
		{"client", m.Client},
		{"deadline_ms", m.DeadlineMS},
	} {
		if member.value != nil && member.value.Kind() != jsontext.KindNull {
			return invalid("%s is not supported yet", member.name)
		}
	}
	return nil
}

// or returns *p, or fallback if there is none.
func or[T any](p *T, fallback T) T {
	if p == nil {
		return fallback
	}
	return *p
}

func invalid(format string, args ...any) error {
	return infer.Errorf(infer.Invalid, "invalid request: "+format, args...)
}

// A Codec is the server half on one connection. Requests are read and answered in turns.
type Codec struct {
	R frame.Reader
	W frame.Writer

	// Of the request read last.
	id       []byte // as a JSON string
	withheld bool   // it asked for stream:false
	text     []byte // the answer so far

	buf []byte // the message being written
}

// Read returns the next request; its task is an [infer.Generate]. An [infer.Error] is to
// be told, and the connection goes on; a [wire.FatalError] is to be told and ends it.
// Any other error, [io.EOF] too, means that nobody is there.
func (c *Codec) Read() (*infer.Request, error) {
	c.id = append(c.id[:0], `""`...)
	c.text = reuse(c.text)
	c.buf = reuse(c.buf)
	var m request
	if err := wire.ReadJSON(c.R, &m); err != nil {
		return nil, err
	}
	if err := m.shape(); err != nil {
		return nil, err
	}
	if err := wire.CheckID(m.ID); err != nil {
		return nil, err
	}
	c.id = wire.AppendString(c.id[:0], m.ID)
	c.withheld = !or(m.Stream, true)
	gen, err := m.generate()
	if err != nil {
		return nil, err
	}
	return &infer.Request{ID: m.ID, Task: gen}, nil
}

// keep is the largest buffer that outlives its answer.
const keep = 64 << 10

func reuse(buf []byte) []byte {
	if cap(buf) > keep {
		return nil
	}
	return buf[:0]
}

// reasons are why an answer ended, on the wire.
var reasons = map[infer.Reason]string{
	infer.EndOfTurn:    "end",
	infer.StopSequence: "end",
	infer.Length:       "length",
	infer.Canceled:     "cancelled",
}

// Write sends an event of the request read last. An [infer.Error] means that it cannot
// be told in v1, and that nothing was sent; any other error is that of the connection.
func (c *Codec) Write(ev infer.Event) error {
	switch ev := ev.(type) {
	case *infer.Text:
		if len(c.text)+len(ev.Delta) > frame.Limit {
			return tooLarge() // it could not be repeated at the end
		}
		c.text = append(c.text, ev.Delta...)
		if c.withheld {
			return nil
		}
		c.begin("token")
		c.content(ev.Delta)
	case *infer.Done:
		c.begin("done")
		c.content(c.text)
		c.buf = append(c.buf, `,"usage":{"prompt_tokens":`...)
		c.buf = strconv.AppendInt(c.buf, int64(ev.In), 10)
		c.buf = append(c.buf, `,"completion_tokens":`...)
		c.buf = strconv.AppendInt(c.buf, int64(ev.Out), 10)
		c.buf = append(c.buf, `},"stop_reason":"`...)
		c.buf = append(c.buf, reasons[ev.Reason]...)
		c.buf = append(c.buf, `","backend":`...)
		c.buf = wire.AppendString(c.buf, ev.By)
	default:
		return infer.Errorf(infer.Internal, "v1 has no word for a %T", ev)
	}
	return c.send()
}

// Fail ends the request read last, or one that could not be read.
func (c *Codec) Fail(cause error) error {
	code, text := wire.Told(cause)
	c.begin("error")
	c.buf = append(c.buf, `,"code":"`...)
	c.buf = append(c.buf, code...)
	c.buf = append(c.buf, `","message":`...)
	c.buf = wire.AppendString(c.buf, text)
	return c.send()
}

// begin starts a message with what all have.
func (c *Codec) begin(kind string) {
	c.buf = append(c.buf[:0], `{"type":"`...)
	c.buf = append(c.buf, kind...)
	c.buf = append(c.buf, `","id":`...)
	c.buf = append(c.buf, c.id...)
}

func (c *Codec) content(text []byte) {
	c.buf = append(c.buf, `,"content":`...)
	c.buf = wire.AppendString(c.buf, text)
}

func (c *Codec) send() error {
	c.buf = append(c.buf, '}')
	if len(c.buf) >= frame.Limit {
		return tooLarge()
	}
	return c.W.WriteFrame(c.buf)
}

func tooLarge() error {
	return infer.Errorf(infer.TooLarge, "%w", &frame.TooLongError{Limit: frame.Limit})
}
