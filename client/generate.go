package client

import (
	"context"
	"errors"
	"io"
	"iter"
	"strings"

	"github.com/inferd-go/inferd/internal/infer"
	v1 "github.com/inferd-go/inferd/internal/wire/v1"
	v2 "github.com/inferd-go/inferd/internal/wire/v2"
)

// The daemon's defaults for a Request.
const (
	// DefaultMaxTokens is the default over v2; over v1 the daemon uses 1000.
	DefaultMaxTokens   = 1024
	DefaultTemperature = 1.0
	DefaultTopP        = 0.95
	DefaultTopK        = 64
)

// A Request requests the next message of a conversation, or the continuation of a prompt. Exactly one
// of Messages and Prompt must be set.
type Request struct {
	ID       string    // echoed in the answer, and logged by the daemon; at most 1,024 bytes
	Model    string    // entry name or alias; empty leaves the choice to the daemon
	Messages []Message // at least one, unless there is a Prompt
	// Prompt, if not nil, is continued as it is, without the model's template. The text of a
	// special token in it is read as that token.
	Prompt *string
	Suffix *string // with Prompt: the text after the answer, if the model can fill a gap

	Attachments []Attachment // referenced by Media blocks; at most 32, 128 MiB in total
	Tools       []Tool
	ToolChoice  ToolChoice
	OneCall     bool // allow at most one tool call
	Format      Format
	Thinking    Thinking
	// ThinkingBudget limits the tokens of reasoning; 0 means no limit.
	ThinkingBudget int

	MaxTokens        int      // limit for the tokens of the answer; 0 means DefaultMaxTokens
	Stop             []string // the answer ends before the first of these strings; at most 16
	Temperature      *float64 // nil means DefaultTemperature; 0 takes the likeliest token
	TopP             *float64 // nil means DefaultTopP
	TopK             *int     // nil means DefaultTopK; 0 means no limit
	MinP             float64
	RepeatPenalty    float64 // 0 and 1 mean no penalty
	PresencePenalty  float64
	FrequencyPenalty float64
	Seed             *int64          // nil means a random seed
	LogitBias        map[int]float64 // by token, -100 to 100
	Logprobs         int             // number of alternatives to return for each token, at most 20; 0 means no logprobs

	Background bool   // run only on capacity that normal requests leave unused
	Client     string // name of a client of this program, which divides the program's share further; at most 64 bytes
	CacheSalt  string // only requests with the same salt share cached prompts; at most 64 bytes
	// LocalOnly forbids the daemon to send the request to another machine. Over v1 it is an error.
	LocalOnly bool
	// Traceparent links the request to a trace, in the format of W3C Trace Context. The daemon writes
	// the trace ID to its activity log.
	Traceparent string
	Whole       bool // the daemon sends the answer whole, not as a stream
}

// Ask returns a request with one user message.
func Ask(text string) *Request {
	return &Request{Messages: []Message{Text(User, text)}}
}

// Thinking controls whether the model writes its reasoning before the answer.
type Thinking string

// The values of Thinking.
const (
	ThinkAuto Thinking = ""    // as the model does by default
	ThinkOn   Thinking = "on"  // an error if the model cannot reason
	ThinkOff  Thinking = "off" // as little as the model allows
)

// Role is the author of a message.
type Role string

// The roles.
const (
	System    Role = "system"
	User      Role = "user"
	Assistant Role = "assistant"
)

// A Message is one message of a conversation.
type Message struct {
	Role   Role
	Blocks []Block // at least one
}

// Text returns a message with one text block.
func Text(role Role, text string) Message {
	return Message{Role: role, Blocks: []Block{{Text: text}}}
}

// A Block is a part of a message. At most one field is set; a Block without any is an empty text.
type Block struct {
	Text     string
	Thinking string      // earlier reasoning of the model, in messages of the assistant
	Media    string      // ID of an attachment
	Call     *ToolCall   // an earlier call by the model
	Result   *ToolResult // the result of an earlier call
}

// A ToolCall is a call by the model.
type ToolCall struct {
	ID, Name string
	Input    []byte // a JSON value
}

// A ToolResult is the result of a tool call.
type ToolResult struct {
	ID      string // ID of the call
	Blocks  []Block
	IsError bool // the blocks describe a failure of the tool
}

// An Attachment is decoded media.
type Attachment struct {
	ID            string // not empty, unique in the request
	Kind          Media
	Width, Height int    // of an image, in pixels
	SampleRate    int    // of audio, in samples per second
	Data          []byte // image: RGB, 8 bits each; audio: mono little-endian float32 samples
}

// Media is a kind of attachment.
type Media string

// The kinds of attachments.
const (
	Image Media = "image"
	Audio Media = "audio"
	Video Media = "video"
)

// A Tool is a function that the model may call.
type Tool struct {
	Name, Description string
	InputSchema       []byte // JSON Schema, an object; nil means no schema
}

// ToolChoice controls tool calls: "" or "auto" leaves the choice to the model, "required" demands a
// call, "none" forbids calls, and any other value is the name of the tool that must be called.
type ToolChoice string

// Format constrains the answer. At most one field is set.
type Format struct {
	Grammar    string // GBNF with start symbol "root"
	JSONSchema []byte // JSON Schema that the answer must match
	JSONObject bool   // the answer is a JSON object
}

// An Event is a part of an answer. Exactly one field is set, except that Logprobs accompany Text, and
// CachedTokens accompany InputTokens.
type Event struct {
	InputTokens  int // tokens of the prompt; in the first event, if the daemon knows the number by then
	CachedTokens int // tokens of the prompt that were cached from earlier requests of the user
	Text         string
	Logprobs     []Logprob // of the tokens of Text, if requested
	Thinking     string    // reasoning of the model
	Call         *ToolCall // a complete call
	Done         *Done     // the last event
}

// A Logprob is a token of the answer with its probability, and the likeliest tokens at its
// position.
type Logprob struct {
	Candidate
	Top []Candidate // likeliest first; may include the token of the answer
}

// A Candidate is a possible token at a position of an answer.
type Candidate struct {
	ID      int
	Bytes   []byte  // of the token; may be empty or an incomplete character
	Logprob float64 // natural logarithm, before the request's sampling; -9999 means impossible
}

// Done is the end of an answer.
type Done struct {
	StopReason   StopReason
	InputTokens  int
	CachedTokens int // as in [Event]
	OutputTokens int
	Backend      string // "llamacpp" or "mock"
	// ToolChoiceUnsatisfied means that a required tool call is missing.
	ToolChoiceUnsatisfied bool
	// StopIgnored means that the request's Stop had no effect, because its Format defines the answer.
	StopIgnored bool
}

// StopReason is the reason why an answer ended.
type StopReason string

// The reasons. Over v1, StopSequence becomes EndTurn.
const (
	EndTurn      StopReason = "end_turn"
	MaxTokens    StopReason = "max_tokens"
	ToolUse      StopReason = "tool_use"
	StopSequence StopReason = "stop_sequence"
	Cancelled    StopReason = "cancelled"
)

var reasons = map[infer.Reason]StopReason{
	infer.EndOfTurn: EndTurn, infer.Length: MaxTokens, infer.CalledTool: ToolUse,
	infer.StopSequence: StopSequence, infer.Canceled: Cancelled,
}

// Generate returns a sequence that sends the request over the length-prefixed v2 socket, on a new
// connection for each range loop, and yields the events of the answer. The last event has Done set,
// or the sequence ends with an error. If the caller leaves the loop early, the connection is closed
// and the daemon stops the request.
func (c *Client) Generate(ctx context.Context, req *Request) iter.Seq2[Event, error] {
	return c.generate(ctx, LP, req)
}

// GenerateV1 is like Generate, but uses the v1 socket, for daemons that have only that one. It
// supports only text.
func (c *Client) GenerateV1(ctx context.Context, req *Request) iter.Seq2[Event, error] {
	return c.generate(ctx, V1, req)
}

func (c *Client) generate(ctx context.Context, s Surface, req *Request) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		conn, err := c.Dial(ctx, s)
		if err != nil {
			yield(Event{}, err)
			return
		}
		defer conn.Close()
		conn.Generate(ctx, req)(yield)
	}
}

// errLeft ends an exchange when the caller has left the loop.
var errLeft = errors.New("the loop has ended")

// Generate is like [Client.Generate], but uses this connection, which must be to a generation
// surface. After an event with Done, or an [*Error] that is not about the framing, the connection
// can be used again; otherwise it is closed.
func (c *Conn) Generate(ctx context.Context, req *Request) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		err := c.during(ctx, func() error {
			return c.ask(req, func(ev infer.Event) error {
				if out, ok := eventOf(ev); ok && !yield(out, nil) && out.Done == nil {
					return errLeft
				}
				return nil
			})
		})
		switch _, refused := errors.AsType[*Error](err); {
		case err == nil || refused:
		default:
			_ = c.Close() // the rest of the answer may still arrive
		}
		switch {
		case err == nil || errors.Is(err, errLeft):
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			yield(Event{}, errors.New("the daemon went away before the end of the answer"))
		default:
			yield(Event{}, err)
		}
	}
}

// Count returns the number of prompt tokens that req would have. It uses a new connection to the
// length-prefixed v2 socket; the daemon needs no slot for it. A daemon that cannot count generates
// an answer, which Count discards; the number is correct then, too.
func (c *Client) Count(ctx context.Context, req *Request) (int, error) {
	conn, err := c.Dial(ctx, LP)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	wireReq, err := req.infer()
	if err != nil {
		return 0, err
	}
	if gen, ok := wireReq.Task.(*infer.Generate); ok {
		gen.MaxTokens = 1
		wireReq.Task = &infer.Count{Of: gen}
	}
	tokens := 0
	err = conn.during(ctx, func() error {
		return v2.Ask(conn.r, conn.w, true, wireReq, !req.Whole, func(ev infer.Event) error {
			if done, ok := ev.(*infer.Done); ok {
				tokens = done.In
			}
			return nil
		})
	})
	return tokens, err
}

func (c *Conn) ask(req *Request, emit infer.Sink) error {
	wireReq, err := req.infer()
	if err != nil {
		return err
	}
	switch c.surface {
	case V1:
		return v1.Ask(c.r, c.w, wireReq, !req.Whole, emit)
	case V2, LP:
		return v2.Ask(c.r, c.w, c.surface == LP, wireReq, !req.Whole, emit)
	default:
		return c.wrongSurface("generate")
	}
}

func eventOf(ev infer.Event) (Event, bool) {
	switch ev := ev.(type) {
	case *infer.Prompt:
		return Event{InputTokens: ev.Tokens, CachedTokens: ev.Cached}, true
	case *infer.Text:
		return Event{Text: string(ev.Delta), Logprobs: logprobsOf(ev.Logprobs)}, true
	case *infer.Thinking:
		return Event{Thinking: string(ev.Delta)}, true
	case *infer.ToolCall:
		return Event{Call: &ToolCall{ID: ev.ID, Name: ev.Name, Input: append([]byte(nil), ev.Input...)}}, true
	case *infer.Done:
		return Event{Done: &Done{
			StopReason: reasons[ev.Reason], InputTokens: ev.In, CachedTokens: ev.Cached, OutputTokens: ev.Out, Backend: ev.Backend, ToolChoiceUnsatisfied: ev.Unsatisfied,
			StopIgnored: ev.StopIgnored,
		}}, true
	default:
		return Event{}, false
	}
}

func logprobsOf(list []infer.Logprob) []Logprob {
	var all []Logprob
	of := func(c infer.Candidate) Candidate { return Candidate{ID: c.ID, Bytes: c.Piece, Logprob: c.Logprob} }
	for _, l := range list {
		one := Logprob{Candidate: of(l.Candidate)}
		for _, c := range l.Top {
			one.Top = append(one.Top, of(c))
		}
		all = append(all, one)
	}
	return all
}

// An Answer is a complete answer.
type Answer struct {
	Text, Thinking string
	Logprobs       []Logprob
	Calls          []ToolCall
	Done
}

// Collect returns the complete answer, or the first error.
func Collect(events iter.Seq2[Event, error]) (*Answer, error) {
	var a Answer
	var text, thinking strings.Builder
	for ev, err := range events {
		if err != nil {
			return nil, err
		}
		text.WriteString(ev.Text)
		a.Logprobs = append(a.Logprobs, ev.Logprobs...)
		thinking.WriteString(ev.Thinking)
		if ev.Call != nil {
			a.Calls = append(a.Calls, *ev.Call)
		}
		if ev.Done != nil {
			a.Done = *ev.Done
		}
	}
	a.Text, a.Thinking = text.String(), thinking.String()
	return &a, nil
}
