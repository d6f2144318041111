package infer

import "time"

// Event is a piece of an answer; events come in order. A request that succeeds ends with
// exactly one Done; a request that fails ends with the error of its Handler. The set is
// closed.
//
// Events are passed as pointers, and the sender may reuse their memory. A Sink that retains an
// event, or the bytes in it, must copy them.
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

// Prompt reports the size of the prompt, and the parts of it that Generate.Reveal selects. It comes
// before the first piece of the answer, and again if the request starts over. A backend may omit it
// if Reveal selects nothing.
type Prompt struct {
	Tokens int
	Cached int // as in Done; 0 if the backend does not know it yet
	IDs    []int32
	Pieces [][]byte // the text of each token, which may be any bytes; of a control token, its spelling
	Text   []byte   // of a conversation, as its template renders it
}

// Text is the next piece of the answer: whole UTF-8 characters. It is empty only between an engine
// and its link, to report tokens without text or with text that is held back, or a cost without
// tokens.
type Text struct {
	Delta []byte
	// Tokens is the number of tokens generated since the last event. A piece may have the text
	// of several tokens, because text can be held back.
	Tokens   int
	Logprobs []Logprob // one for each of those tokens, if Generate.Logprobs asks for them
	// Cost is the time spent on choosing those tokens, in units of the mean time of a step that
	// decodes one token. Admission charges it; usage does not count it.
	Cost int
	// More reports that the next event, or a failure, follows at once, so both may be sent
	// together.
	More bool
}

// A Logprob has the log probabilities of a generated token and of the likeliest alternatives to it.
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

// LeastLogprob is the least value of a Logprob. It replaces lower values, such as the values of
// impossible tokens.
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

// Vectors are the answer to Embed, in the order of its inputs. All have the same length.
type Vectors struct{ Values [][]float32 }

// Dimensions returns the length of a vector, or 0 if there is none.
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
	Cached int // tokens of the prompt with KV that was retained from earlier requests of the user
	// Out counts the tokens of the answer, thinking and tool calls included, without the
	// end-of-turn token.
	Out     int
	Backend string // its kind: "llamacpp", "mock"
	Model   string // the model's own name; may be empty
	// Unsatisfied reports that the model called no tool although the request demanded it.
	Unsatisfied bool
	Stop        string // the element of Generate.Stop that ended the answer; empty if unknown
	StopIgnored bool   // the request's Stop had no effect, because its Format defines the answer
	Timings     Timings
}

// Timings divide the time of an answer into phases. They are zero if not measured.
type Timings struct {
	Queue   time.Duration // until admission
	Prefill time.Duration // from admission to the first event of the answer
	Decode  time.Duration // from the first event to the end
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
