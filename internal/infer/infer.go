// Package infer defines the types of a request and of its events. Every surface decodes to and
// encodes from these types, and every layer between a client and an engine is a [Handler]. The
// package is independent of wire formats, queues and engines.
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

// A Request is one well-formed unit of work, without details of the wire.
type Request struct {
	ID   string // chosen by the client and returned to it; may be empty, need not be unique
	Peer Peer   // the process at the other end; zero if unknown
	Task Task

	// Client subdivides the share of the calling program; at most 64 bytes. It does not enlarge the
	// share, because the client chooses it freely.
	Client string
	// CacheSalt is chosen by the client and subdivides the retained KV of the user; at most 64
	// bytes. See [Request.CachePart].
	CacheSalt string
	// LocalOnly is the client's condition that no other machine gets the request. It has no effect,
	// because all backends are on this machine.
	LocalOnly bool
	// Traceparent is the position of the request in the client's trace, as in the W3C
	// recommendation Trace Context; empty if there is none.
	Traceparent string
	// Background lowers the priority: the request runs on capacity that is otherwise unused.
	Background bool
	// Deadline is the time after which the answer is useless; zero means that there is none.
	Deadline time.Time
	// Pause pauses and resumes the request once it has been admitted.
	Pause Pause
	// Written, if not nil, is called with the tokens and the cost of an event ([Text], [Thinking]
	// or [ToolCall]) when the backend emits it. That may be long before the client takes the event.
	// A Handler need not call it.
	Written func(tokens, cost int)

	// Needs, if not nil, is the result of [Needs] for Task. The gate sets it, or the router if
	// there is no gate.
	Needs *Abilities
}

// Task is the work of a request. The set is closed.
//
//sumtype:decl
type Task interface{ task() }

// CachePart returns the name of the part of the user's retained KV that the request uses and adds
// to. Requests with neither key nor salt share the part with the empty name. If [Peer.Owns] is
// false, the request uses no retained KV, and the name has no meaning.
func (r *Request) CachePart() string {
	if r.Peer.Key == "" && r.CacheSalt == "" {
		return ""
	}
	return r.Peer.Key + "\x00" + r.CacheSalt
}

// TraceID returns the id of the client's trace, in hex, or an empty string if there is none.
func (r *Request) TraceID() string {
	_, rest, _ := strings.Cut(r.Traceparent, "-")
	id, _, _ := strings.Cut(rest, "-")
	return id
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
	Messages []Message // at least one, unless Prompt or Tokens is set
	// Prompt, if not nil, is continued as it is: the model's template is not used, and the spelling
	// of a special token in it stands for that token. Messages, Attachments and Tools are empty
	// then.
	Prompt *string
	// Tokens, if not nil, are the tokens of a prompt that is continued as it is. Prompt is nil
	// then.
	Tokens []int32
	// Suffix, if not nil, is the text after the answer: the answer fills the gap between Prompt and
	// Suffix. In both, the spelling of a special token is ordinary text.
	Suffix *string
	// Files are other texts of a project that help to fill a gap, the least important first. The
	// prompt contains as many of them as fit, from the end of the list.
	Files       []File
	Attachments []Attachment // named by MediaParts; their ids are unique
	Tools       []Tool       // tools that the model may call; their names are unique
	Choice      ToolChoice
	OneCall     bool // the answer has at most one tool call
	Format      Format
	Blocks      bool     // the client takes Thinking and ToolCall; if it is false, only Text may be emitted
	MaxTokens   int      // maximum number of tokens to generate, reduced to the free room of the context; 0 if not given
	Stop        []string // the answer ends before the first of these; they are never sent
	Sampling    Sampling
	Defaults    Defaults // for members that the request does not have

	Thinking       ThinkingMode
	ThinkingBudget int // maximum number of tokens of thinking; 0 means no limit
	Logprobs       int // alternatives to report for every token, 0 to 20; 0 means no logprobs

	Reveal Reveal // parts of the prompt to report
}

// Defaults are the values of a surface for absent members of a request. They are filled in when a
// request is sent to an engine (see [Generate.Settled]). A backend with its own defaults uses only
// the members of the request.
type Defaults struct {
	MaxTokens int // 0 means the free room of the context
	Sampling  Sampling
}

// Settled returns a copy of g in which the absent members have the values of Defaults. The Defaults
// of the copy are zero.
func (g *Generate) Settled() *Generate {
	whole := *g
	whole.Defaults = Defaults{}
	whole.MaxTokens = cmp.Or(g.MaxTokens, g.Defaults.MaxTokens)
	whole.Sampling = g.Sampling.or(g.Defaults.Sampling)
	return &whole
}

// Embed asks for one vector for each input text.
type Embed struct {
	Model      string   // entry name or alias; empty leaves the choice to the daemon
	Inputs     []string // at least one, none empty
	Dimensions int      // number of leading values of each vector to return; 0 means all
	Truncate   bool     // cut off the end of an input that does not fit into the context
	Task       EmbedTask
}

// Rerank asks for a score of each document: the higher the score, the better the document answers
// the query.
type Rerank struct {
	Model     string   // entry name or alias; empty leaves the choice to the daemon
	Query     string   // not empty
	Documents []string // at least one, none empty
	TopN      int      // number of best documents to return; 0 means all
}

func (*Generate) task() {}
func (*Count) task()    {}
func (*Embed) task()    {}
func (*Rerank) task()   {}

// EmbedTask is the intended use of vectors. For a model that was trained with prefixes, the prefix
// of the task is put before the text. The set is closed.
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

// A Tool is a function that the model may call.
type Tool struct {
	Name, Description string
	Schema            []byte // JSON Schema of its input; nil if there is none
}

// ToolChoice determines whether the model may, must or must not call tools. The zero value leaves
// that to the model.
type ToolChoice struct {
	Mode ToolMode
	Tool string // of ToolNamed
}

// ToolMode is the rule of a [ToolChoice]. The set is closed.
type ToolMode string

// Modes of a tool choice.
const (
	ToolAuto     ToolMode = ""         // the model decides
	ToolRequired ToolMode = "required" // at least one call
	ToolNone     ToolMode = "none"     // no call
	ToolNamed    ToolMode = "tool"     // a call of the named tool
)

// ThinkingMode determines whether the model emits [Thinking] before the answer. The set is closed.
type ThinkingMode string

// Modes of thinking.
const (
	ThinkAuto ThinkingMode = ""    // the model decides
	ThinkOn   ThinkingMode = "on"  // refused if the model cannot think
	ThinkOff  ThinkingMode = "off" // as little as the model can
)

// ThinkIf returns ThinkOn or ThinkOff.
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

// Constrains reports whether a field is set. Then Generate.Stop has no effect.
func (f *Format) Constrains() bool { return f.JSONObject || f.Schema != nil || f.Grammar != "" }

// Sampling holds the parameters for choosing the next token. A parameter that the request does not
// give is nil; without any parameter the choice is greedy.
type Sampling struct {
	Temperature      *float64        // 0 means greedy
	TopK             *int            // 0 is no limit
	TopP             *float64        // 0 and 1 mean no limit
	MinP             *float64        // 0 is no limit
	RepeatPenalty    *float64        // 0 and 1 mean none
	PresencePenalty  *float64        // 0 means none
	FrequencyPenalty *float64        // 0 means none
	Seed             *uint32         // nil means a random one
	LogitBias        map[int]float64 // by token, -100 to 100
}

// or returns s with the values of d for the parameters that are nil in s.
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

// A Sink takes the events of one request, one at a time. It blocks while the
// client is slow and fails once the client is gone; the Handler then returns that
// error.
type Sink = func(Event) error

// A Handler answers one request: it emits events until it returns. Its context ends when the answer
// is no longer needed. A Handler that blocks must also return when its context ends. A Handler that
// never blocks may rely on emit, which then fails.
type Handler interface {
	Handle(ctx context.Context, req *Request, emit Sink) error
}

// A HandlerFunc is a function that is a Handler.
type HandlerFunc func(context.Context, *Request, Sink) error

// Handle calls f.
func (f HandlerFunc) Handle(ctx context.Context, req *Request, emit Sink) error {
	return f(ctx, req, emit)
}
