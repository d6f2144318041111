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

// What a request gets that does not say.
const (
	DefaultTemperature = 1.0
	DefaultTopP        = 0.95
	DefaultTopK        = 64
	DefaultMaxTokens   = 1024
)

// A Request asks for the next message of a conversation. Only Messages must be there.
type Request struct {
	ID       string    // echoed by the daemon, and in its log; at most 1,024 bytes
	Model    string    // entry name or alias; empty leaves the choice to the daemon
	Messages []Message // at least one

	Attachments []Attachment // that Media blocks name; at most 32, 128 MiB together
	Tools       []Tool
	ToolChoice  ToolChoice
	Format      Format
	Thinking    bool // let the model think aloud first

	MaxTokens        int      // most tokens of the answer; 0 is DefaultMaxTokens
	Stop             []string // the answer ends before the first of these; at most 16
	Temperature      *float64 // nil is DefaultTemperature; 0 takes the likeliest token
	TopP             *float64 // nil is DefaultTopP
	TopK             *int     // nil is DefaultTopK; 0 is no limit
	MinP             float64
	RepeatPenalty    float64 // 0 and 1 are none
	PresencePenalty  float64
	FrequencyPenalty float64
	Seed             *int64          // nil is a random one
	LogitBias        map[int]float64 // by token, -100 to 100
	Logprobs         int             // alternatives to tell for every token, at most 20; 0 is none at all

	Background bool   // this can wait for what others leave
	Client     string // subdivides this program's share; at most 64 bytes
	Whole      bool   // the answer comes in one piece
}

// Ask is a request with one question of a user.
func Ask(text string) *Request {
	return &Request{Messages: []Message{Text(User, text)}}
}

// Role is who speaks in a message.
type Role string

// Roles.
const (
	System    Role = "system"
	User      Role = "user"
	Assistant Role = "assistant"
)

// A Message is one turn of a conversation.
type Message struct {
	Role   Role
	Blocks []Block // at least one
}

// Text is a message that is one text.
func Text(role Role, text string) Message {
	return Message{Role: role, Blocks: []Block{{Text: text}}}
}

// A Block is a piece of a message: the one of its fields that is set, or else an empty text.
type Block struct {
	Text   string
	Media  string      // id of an attachment, which stands here
	Call   *ToolCall   // that the model made earlier
	Result *ToolResult // of such a call
}

// A ToolCall is a call that the model makes.
type ToolCall struct {
	ID, Name string
	Input    []byte // a JSON value
}

// A ToolResult is what a tool answered.
type ToolResult struct {
	ID     string // of the call
	Blocks []Block
}

// An Attachment is decoded media.
type Attachment struct {
	ID            string // not empty, unique in its request
	Kind          Media
	Width, Height int    // of an image, in pixels
	SampleRate    int    // of audio, a second
	Data          []byte // image: RGB, 8 bits each; audio: mono little-endian float32 samples
}

// Media is a kind of attachment.
type Media string

// Kinds of attachments.
const (
	Image Media = "image"
	Audio Media = "audio"
	Video Media = "video"
)

// A Tool is something that the model may call.
type Tool struct {
	Name, Description string
	InputSchema       []byte // JSON Schema, an object; nil is none
}

// ToolChoice says which tools must be called: "" or "auto" leaves it to the model,
// "required" wants a call, "none" forbids it, and anything else is the name of the tool
// that must be called.
type ToolChoice string

// Format constrains the answer. At most one field is set.
type Format struct {
	Grammar    string // GBNF with start symbol "root"
	JSONSchema []byte // the answer follows it
	JSONObject bool   // the answer is a JSON object
}

// An Event is what comes of an answer, in order. One of its fields is set, but for
// Logprobs, which come with Text.
type Event struct {
	Text     string
	Logprobs []Logprob // of the tokens that Text was made of, if they were asked for
	Thinking string    // what the model thinks aloud
	Call     *ToolCall // whole
	Done     *Done     // the last event
}

// A Logprob says how likely the model held a token that it wrote, and what it held for the
// likeliest in its place.
type Logprob struct {
	Candidate
	Top []Candidate // the likeliest first; the token itself may be among them
}

// A Candidate is a token that could stand at a place of an answer.
type Candidate struct {
	ID      int
	Bytes   []byte  // that it stands for: not always whole characters, and for some tokens none
	Logprob float64 // natural, before anything that a request says of sampling; -9999 is impossible
}

// Done is how an answer ended.
type Done struct {
	StopReason   StopReason
	InputTokens  int
	OutputTokens int
	Backend      string // kind: "llamacpp", "mock"
	// ToolChoiceUnsatisfied says that no tool was called although one had to be.
	ToolChoiceUnsatisfied bool
}

// StopReason is why an answer ended.
type StopReason string

// Reasons. Over v1 a stop sequence is told as EndTurn.
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

// Generate asks over the length-prefixed v2 socket, each time it is ranged over, on a
// connection of its own. It yields the events of the answer, the last of which has Done
// set, or ends with an error. Who leaves the loop early hangs up, and the daemon stops.
func (c *Client) Generate(ctx context.Context, req *Request) iter.Seq2[Event, error] {
	return c.generate(ctx, LP, req)
}

// GenerateV1 is Generate over the v1 socket, for daemons that have no other. It knows
// text only.
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

// errEnough ends an exchange whose reader has left the loop.
var errEnough = errors.New("enough")

// Generate is as [Client.Generate], on this connection, which is to one of the generation
// surfaces. After an event with Done, or an [*Error] that is not about the frames, the
// connection may be used again; otherwise it is closed.
func (c *Conn) Generate(ctx context.Context, req *Request) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		err := c.during(ctx, func() error {
			return c.ask(req, func(ev infer.Event) error {
				if out, ok := eventOf(ev); ok && !yield(out, nil) && out.Done == nil {
					return errEnough
				}
				return nil
			})
		})
		switch _, refused := errors.AsType[*Error](err); {
		case err == nil || refused:
		default:
			_ = c.Close() // the rest of the answer may still come
		}
		switch {
		case err == nil || errors.Is(err, errEnough):
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			yield(Event{}, errors.New("the daemon went away before the end of the answer"))
		default:
			yield(Event{}, err)
		}
	}
}

func (c *Conn) ask(req *Request, emit infer.Sink) error {
	asked, err := req.infer()
	if err != nil {
		return err
	}
	switch c.surface {
	case V1:
		return v1.Ask(c.r, c.w, asked, !req.Whole, emit)
	case V2, LP:
		return v2.Ask(c.r, c.w, c.surface == LP, asked, !req.Whole, emit)
	default:
		return c.wrong("generate")
	}
}

func eventOf(ev infer.Event) (Event, bool) {
	switch ev := ev.(type) {
	case *infer.Text:
		return Event{Text: string(ev.Delta), Logprobs: logprobsOf(ev.Logprobs)}, true
	case *infer.Thinking:
		return Event{Thinking: string(ev.Delta)}, true
	case *infer.ToolCall:
		return Event{Call: &ToolCall{ID: ev.ID, Name: ev.Name, Input: append([]byte(nil), ev.Input...)}}, true
	case *infer.Done:
		return Event{Done: &Done{
			StopReason: reasons[ev.Reason], InputTokens: ev.In, OutputTokens: ev.Out, Backend: ev.Backend, ToolChoiceUnsatisfied: ev.Unsatisfied,
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

// An Answer is a whole one.
type Answer struct {
	Text, Thinking string
	Logprobs       []Logprob
	Calls          []ToolCall
	Done
}

// Collect reads an answer to its end.
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
