// Package infer defines the types of a request and of its events. Every surface decodes to and
// encodes from these types, and every layer between a client and an engine is a [Handler]. The
// package does not know wire formats, queues or engines.
//
// A request is passed down by a call, events come back through a [Sink], and a failure is the
// error that Handle returns. A request is canceled by the end of its context or by a failure of
// its sink.
package infer

import (
	"cmp"
	"context"
	"strings"
	"time"
)

// A Request is one unit of work: well formed, free of wire detail.
type Request struct {
	ID   string // the client's, echoed; may be empty, need not be unique
	Peer Peer   // the process at the other end; zero if unknown
	Task Task

	// Client subdivides the share of the calling program; at most 64 bytes. The client
	// chooses it freely, so it cannot enlarge the share.
	Client string
	// CacheSalt, of the client's choice, subdivides the cached prompts of the user; at most 64
	// bytes. See [Request.CachePart].
	CacheSalt string
	// Background lowers the priority: the request runs on capacity that is otherwise unused.
	Background bool
	// Deadline is the time after which the answer is useless; zero is never.
	Deadline time.Time
	// Pause stops the request for a while once it has been admitted.
	Pause Pause
	// Written, if not nil, receives the tokens and the cost of an event ([Text], [Thinking]
	// or [ToolCall]) when the backend emits it, which may be long before the client takes
	// it. A Handler need not call it.
	Written func(tokens, cost int)

	// Needs, if not nil, is the result of [Needs] for Task. The gate sets it, or the router
	// without a gate.
	Needs *Abilities
}

// Task is the work of a request. The set is closed.
//
//sumtype:decl
type Task interface{ task() }

// CachePart names the part of the user's cached prompts that the request may use and adds to;
// empty is the part of all requests without a key and a salt. A request of an unknown user
// without a key has no part: [Peer.Owns] is false.
func (r *Request) CachePart() string {
	if r.Peer.Key == "" && r.CacheSalt == "" {
		return ""
	}
	return r.Peer.Key + "\x00" + r.CacheSalt
}

// ModelOf returns the requested entry name or alias; empty leaves the choice to the daemon.
func ModelOf(t Task) string {
	switch t := t.(type) {
	case *Generate:
		return t.Model
	case *Count:
		return t.Of.Model
	case *Embed:
		return t.Model
	case *Rerank:
		return t.Model
	}
	return ""
}

// Generate asks for the next message of a conversation, or for the continuation of a prompt.
type Generate struct {
	Model    string    // entry name or alias; empty leaves the choice to the daemon
	Messages []Message // at least one, unless there is a Prompt
	// Prompt, if not nil, is continued as it is: the model's template is not used, and spellings
	// of special tokens in it are these tokens. Messages, Attachments and Tools are empty then.
	Prompt *string
	// Tokens, if not nil, are a prompt as tokens of the model, continued as they are. There is no
	// Prompt then.
	Tokens []int32
	// Suffix, if not nil, is the text behind the answer, which fills the gap after Prompt. Both are
	// text alone: spellings of special tokens in them mean nothing.
	Suffix *string
	// Files are other texts of a project, the least important first, that help to fill a gap. As many
	// of the last ones are used as fit.
	Files       []File
	Attachments []Attachment // named by MediaParts; their ids are unique
	Tools       []Tool       // that the model may call; their names are unique
	Choice      ToolChoice
	OneCall     bool // the answer has at most one tool call
	Format      Format
	Blocks      bool     // the client takes Thinking and ToolCall; without it only Text may be emitted
	MaxTokens   int      // most tokens to write; reduced to the free room of the context; 0 is not said
	Stop        []string // the answer ends before the first of these; they are never sent
	Sampling    Sampling
	Defaults    Defaults // for what the request does not say

	Thinking       ThinkingMode
	ThinkingBudget int // most tokens of thinking; 0 is no limit
	Logprobs       int // alternatives to report for every token, 0 to 20; 0 means no logprobs

	Reveal Reveal // parts of the prompt to report
}

// Defaults are the values of a surface for what a request does not say. They are filled in where
// a request reaches an engine, see [Generate.Settled]; a backend with defaults of its own gets
// only what the request says.
type Defaults struct {
	MaxTokens int // 0 is the free room of the context
	Sampling  Sampling
}

// Settled returns g with its defaults filled in.
func (g *Generate) Settled() *Generate {
	whole := *g
	whole.Defaults = Defaults{}
	whole.MaxTokens = cmp.Or(g.MaxTokens, g.Defaults.MaxTokens)
	whole.Sampling = g.Sampling.or(g.Defaults.Sampling)
	return &whole
}

// Embed asks for a vector for each of some texts.
type Embed struct {
	Model      string   // entry name or alias; empty leaves the choice to the daemon
	Inputs     []string // at least one, none empty
	Dimensions int      // number of leading values of each vector to return; 0 is all
	Truncate   bool     // the end of an input that does not fit into the context is left out
	Task       EmbedTask
}

// Rerank asks for a score of each document: the higher, the better it answers the query.
type Rerank struct {
	Model     string   // entry name or alias; empty leaves the choice to the daemon
	Query     string   // not empty
	Documents []string // at least one, none empty
	TopN      int      // number of best documents to return; 0 is all
}

func (*Generate) task() {}
func (*Count) task()    {}
func (*Embed) task()    {}
func (*Rerank) task()   {}

// EmbedTask is the intended use of vectors. A model that was trained with prefixes gets the text
// behind the prefix of the task. The set is closed.
type EmbedTask string

// Tasks of vectors, as the wire spells them.
const (
	NoEmbedTask        EmbedTask = ""
	RetrievalQuery     EmbedTask = "retrieval_query"
	RetrievalDocument  EmbedTask = "retrieval_document"
	Similarity         EmbedTask = "similarity"
	Classification     EmbedTask = "classification"
	Clustering         EmbedTask = "clustering"
	QuestionAnswering  EmbedTask = "question_answering"
	FactVerification   EmbedTask = "fact_verification"
	CodeRetrievalQuery EmbedTask = "code_retrieval_query"
)

// A Message is one message of a conversation.
type Message struct {
	Role    Role
	Content []Part // at least one
}

// TextMessage returns a message with one text part.
func TextMessage(role Role, text string) Message {
	return Message{Role: role, Content: []Part{&TextPart{Text: text}}}
}

// Text returns the text parts of the message, joined.
func (m Message) Text() string {
	if len(m.Content) == 1 {
		if t, ok := m.Content[0].(*TextPart); ok {
			return t.Text
		}
	}
	var b strings.Builder
	for _, part := range m.Content {
		if t, ok := part.(*TextPart); ok {
			b.WriteString(t.Text)
		}
	}
	return b.String()
}

// Role is the author of a message. The set is closed.
type Role string

// Roles.
const (
	System    Role = "system"
	User      Role = "user"
	Assistant Role = "assistant"
)

// Part is a piece of a message. The set is closed.
//
//sumtype:decl
type Part interface{ part() }

// TextPart is text; it may be empty.
type TextPart struct{ Text string }

// ThinkingPart is what the model thought earlier. Only a message of the assistant has it, and the
// model's template decides whether the model reads it again.
type ThinkingPart struct{ Text string }

// MediaPart is the position of an attachment.
type MediaPart struct{ Attachment string } // the id of one of Generate.Attachments

// CallPart is a call of a tool that the model made earlier.
type CallPart struct {
	ID, Name string
	Input    []byte // any JSON value
}

// ResultPart is the answer of a tool.
type ResultPart struct {
	ID      string // of the call
	Content []Part
	Failed  bool // the content describes a failure of the tool
}

func (*TextPart) part()     {}
func (*ThinkingPart) part() {}
func (*MediaPart) part()    {}
func (*CallPart) part()     {}
func (*ResultPart) part()   {}

// An Attachment is media, as decoded by the client.
type Attachment struct {
	ID            string // not empty
	Kind          Media
	Width, Height int    // of an image, in pixels
	SampleRate    int    // of audio, in samples a second
	Data          []byte // image: RGB, 8 bits each; audio: mono little-endian float32 samples
}

// Media is a kind of attachment. The set is closed.
type Media string

// Kinds of attachments.
const (
	Image Media = "image"
	Audio Media = "audio"
	Video Media = "video"
)

// A Tool is a function that the model may call.
type Tool struct {
	Name, Description string
	Schema            []byte // JSON Schema of its input; nil is none
}

// ToolChoice determines which tools must be called. The zero value leaves it to the model.
type ToolChoice struct {
	Mode ToolMode
	Tool string // of ToolNamed
}

// ToolMode is the model's freedom in calling tools. The set is closed.
type ToolMode string

// Modes.
const (
	ToolAuto     ToolMode = ""         // the model decides
	ToolRequired ToolMode = "required" // at least one call
	ToolNone     ToolMode = "none"     // no call
	ToolNamed    ToolMode = "tool"     // a call of the named tool
)

// ThinkingMode says whether the model emits [Thinking] before the answer. The set is closed.
type ThinkingMode string

// Modes of thinking.
const (
	ThinkAuto ThinkingMode = ""    // the model's own way
	ThinkOn   ThinkingMode = "on"  // refused by a model that cannot
	ThinkOff  ThinkingMode = "off" // as little as the model can
)

// ThinkIf returns the mode of a request that says yes or no.
func ThinkIf(on bool) ThinkingMode {
	if on {
		return ThinkOn
	}
	return ThinkOff
}

// Format constrains the answer. At most one field is set.
type Format struct {
	Grammar    string // GBNF with start symbol "root"
	Schema     []byte // JSON Schema that the answer follows
	JSONObject bool   // the answer is a JSON object
}

// Sampling holds the parameters for choosing the next token, as far as they are said: nil is not
// said. Without any the choice is greedy.
type Sampling struct {
	Temperature      *float64        // 0 is greedy
	TopK             *int            // 0 is no limit
	TopP             *float64        // 0 and 1 are no limit
	MinP             *float64        // 0 is no limit
	RepeatPenalty    *float64        // 0 and 1 are none
	PresencePenalty  *float64        // 0 is none
	FrequencyPenalty *float64        // 0 is none
	Seed             *uint32         // without one it is random
	LogitBias        map[int]float64 // by token, -100 to 100
}

// or returns s with the values of d for what s does not say.
func (s Sampling) or(d Sampling) Sampling {
	s.Temperature = cmp.Or(s.Temperature, d.Temperature)
	s.TopK = cmp.Or(s.TopK, d.TopK)
	s.TopP = cmp.Or(s.TopP, d.TopP)
	s.MinP = cmp.Or(s.MinP, d.MinP)
	s.RepeatPenalty = cmp.Or(s.RepeatPenalty, d.RepeatPenalty)
	s.PresencePenalty = cmp.Or(s.PresencePenalty, d.PresencePenalty)
	s.FrequencyPenalty = cmp.Or(s.FrequencyPenalty, d.FrequencyPenalty)
	s.Seed = cmp.Or(s.Seed, d.Seed)
	if s.LogitBias == nil {
		s.LogitBias = d.LogitBias
	}
	return s
}

// Event is a piece of an answer; events come in order. A request that succeeds ends with
// exactly one Done; a request that fails ends with the error of its Handler. The set is
// closed.
//
// Events are passed as pointers that the sender may use again: a Sink that keeps
// an event, or the bytes in it, must copy.
//
//sumtype:decl
type Event interface{ event() }

// Admitted is the first event of a request that the gate has admitted, before it reaches a
// backend. Most dialects have no message for it.
type Admitted struct {
	Queued  time.Duration // the wait for admission
	Entry   string        // name of the config entry
	Backend string        // its kind, as in Done
	Model   string        // the model's own name; may be empty
}

// Prompt reports the size of the prompt before the first piece of the answer, and the parts that
// Generate.Reveal asks for. A backend need not send it, unless it is asked, and sends it again if the
// request begins anew.
type Prompt struct {
	Tokens int
	IDs    []int32
	Pieces [][]byte // the texts of the tokens, any bytes; control tokens have their spelling
	Text   []byte   // of a conversation, as its template renders it
}

// Text is the next piece of the answer: whole UTF-8 characters. It is empty only between an
// engine and its link, to report tokens without text or with text that is held back.
type Text struct {
	Delta []byte
	// Tokens is the number of tokens generated since the last event. A piece may have the text
	// of several tokens, because text can be held back.
	Tokens   int
	Logprobs []Logprob // of those tokens, one each, if Generate.Logprobs asks for them
	// Cost is the time spent on choosing those tokens, in tokens: in units of the mean time
	// of a step that decodes one. Admission charges it, usage does not count it.
	Cost int
	// More reports that the next event, or a failure, follows at once: both may be sent together.
	More bool
}

// A Logprob is the log probability of a generated token, and of the likeliest alternatives.
type Logprob struct {
	Candidate
	Top []Candidate // the likeliest first; the token itself may be among them
}

// A Candidate is a token that the model could have chosen.
type Candidate struct {
	ID    int
	Piece []byte // its text: any bytes, or none
	// Logprob is the natural logarithm of the token's probability by the model's logits: at
	// temperature 1, before bias, penalties, limits and constraints. It is at least
	// LeastLogprob.
	Logprob float64
}

// LeastLogprob replaces all lower values, such as those of impossible tokens.
const LeastLogprob = -9999

// Thinking is the next piece of the model's thinking: whole UTF-8 characters, never empty.
type Thinking struct {
	Delta        []byte
	Tokens, Cost int // as in Text
}

// ToolCall is a complete call of a tool by the model.
type ToolCall struct {
	ID, Name     string
	Input        []byte // a JSON value
	Tokens, Cost int    // as in Text
}

// Vectors are the answer to Embed, in the order of its inputs, all of one length.
type Vectors struct{ Values [][]float32 }

// Dimensions is the length of a vector.
func (v *Vectors) Dimensions() int {
	if len(v.Values) == 0 {
		return 0
	}
	return len(v.Values[0])
}

// Scores are the answer to Rerank, in the order of its documents. A higher score is better;
// scores are comparable only within one answer.
type Scores struct{ Values []float64 }

// Done ends the answer.
type Done struct {
	Reason Reason
	In     int // tokens of the prompt
	Cached int // tokens of the prompt found in the cache, left there by earlier requests of the user
	// Out counts the tokens of the answer, thinking and tool calls included, without the
	// end-of-turn token.
	Out     int
	Backend string // its kind: "llamacpp", "mock"
	Model   string // the model's own name; may be empty
	// Unsatisfied reports that the model called no tool although the request demanded it.
	Unsatisfied bool
	StopIgnored bool // the request's Stop had no effect, because its Format defines the answer
	Timings     Timings
}

// Timings divide the time of an answer; zero if not measured.
type Timings struct {
	Queue   time.Duration // until admission
	Prefill time.Duration // from admission to the first event of the answer
	Decode  time.Duration // from there to the end
}

func (*Admitted) event() {}
func (*Prompt) event()   {}
func (*Text) event()     {}
func (*Thinking) event() {}
func (*ToolCall) event() {}
func (*Vectors) event()  {}
func (*Scores) event()   {}
func (*Done) event()     {}

// Reason is the cause of an answer's end. The set is closed.
type Reason string

// Reasons.
const (
	EndOfTurn    Reason = "end of turn"   // the model ended its turn
	StopSequence Reason = "stop sequence" // the answer contained one of Generate.Stop
	Length       Reason = "length"        // MaxTokens or the context was reached
	CalledTool   Reason = "called tool"   // the model ended after a call
	Canceled     Reason = "canceled"      // the daemon ended the answer early
)

// A Sink takes the events of one request, one at a time. It blocks while the
// client is slow and fails once the client is gone; the Handler then returns that
// error.
type Sink = func(Event) error

// A Handler answers one request: it emits events until it returns. Its context ends when the
// answer is no longer needed. A Handler that blocks must also wait for Done; a Handler that
// never blocks may rely on the failure of emit.
type Handler interface {
	Handle(ctx context.Context, req *Request, emit Sink) error
}

// A HandlerFunc is a function that is a Handler.
type HandlerFunc func(context.Context, *Request, Sink) error

// Handle calls f.
func (f HandlerFunc) Handle(ctx context.Context, req *Request, emit Sink) error {
	return f(ctx, req, emit)
}
