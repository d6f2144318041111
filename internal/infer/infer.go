// Package infer defines the one model of a request and of its events. Every
// surface decodes into it and encodes from it, every layer between a client and
// an engine is a [Handler]; no wire format, queue or engine is visible from here.
//
// A request goes down by call, events come up through a [Sink], and a failure is
// the error that Handle returns. Cancellation is only ever "the context ended" or
// "the sink failed".
package infer

import "context"

// A Request is one unit of work: well formed, free of wire detail.
type Request struct {
	ID   string // the client's, echoed; may be empty, need not be unique
	Task Task
}

// Task is what is asked for. The set is closed.
//
//sumtype:decl
type Task interface{ task() }

// Generate asks for the next message of a conversation.
type Generate struct {
	Model     string    // entry name or alias; empty leaves the choice to the daemon
	Messages  []Message // at least one
	MaxTokens int       // most tokens to write, at least 1; cut to what the context has room for
	Stop      []string  // the answer ends before the first of these; they are never sent
	Grammar   string    // GBNF with start symbol "root"; empty is no constraint
	Sampling  Sampling
}

func (*Generate) task() {}

// A Message is one turn of a conversation.
type Message struct {
	Role Role
	Text string
}

// Role is who speaks in a message. The set is closed.
type Role string

// Roles.
const (
	System    Role = "system"
	User      Role = "user"
	Assistant Role = "assistant"
)

// Sampling is how the next token is chosen. The zero value is greedy.
type Sampling struct {
	Temperature      float64 // 0 is greedy
	TopK             int     // 0 is no limit
	TopP             float64 // 0 and 1 are no limit
	MinP             float64 // 0 is no limit
	RepeatPenalty    float64 // 0 and 1 are none
	PresencePenalty  float64 // 0 is none
	FrequencyPenalty float64 // 0 is none
	Seed             *uint32 // nil is a random one
}

// Event is what comes back, in order. A request that succeeds ends with exactly
// one Done; one that fails ends with the error of its Handler. The set is closed.
//
// Events are passed as pointers that the sender may use again: a Sink that keeps
// one, or the bytes in it, must copy.
//
//sumtype:decl
type Event interface{ event() }

// Text is the next piece of the answer: whole UTF-8 characters, never empty.
type Text struct{ Delta []byte }

// Done ends the answer.
type Done struct {
	Reason Reason
	In     int    // tokens of the prompt
	Out    int    // tokens of the answer, without the one that ended it
	By     string // kind of backend: "llamacpp", "mock"
}

func (*Text) event() {}
func (*Done) event() {}

// Reason is why an answer ended. The set is closed.
type Reason string

// Reasons.
const (
	EndOfTurn    Reason = "end of turn"   // the model said so
	StopSequence Reason = "stop sequence" // one of Generate.Stop came
	Length       Reason = "length"        // MaxTokens or the context was reached
	Canceled     Reason = "canceled"      // cut short by the daemon
)

// A Sink takes the events of one request, one at a time. It blocks while the
// client is slow and fails once the client is gone; the Handler then returns that
// error.
type Sink = func(Event) error

// A Handler answers one request: it emits events until it returns.
type Handler interface {
	Handle(ctx context.Context, req *Request, emit Sink) error
}

// A HandlerFunc is a Handler made of a plain function.
type HandlerFunc func(context.Context, *Request, Sink) error

// Handle calls f.
func (f HandlerFunc) Handle(ctx context.Context, req *Request, emit Sink) error {
	return f(ctx, req, emit)
}
