// Package dialect describes how the answers of a family of models spell thoughts, text and calls of tools: markers and
// white space to the byte, as data. [Read] determines a [Dialect] by probes, which its caller renders with the model's
// template; package speech makes the grammar of answers from it. The package does not know tokens: a marker is a text,
// and whether it is a control token depends on the vocabulary.
package dialect

import (
	"fmt"
	"strconv"
	"strings"
)

// A Shape is the notation of a call: how its arguments are spelt, and where its name stands. The set is closed.
type Shape string

// Shapes.
const (
	NoCalls Shape = ""       // answers have no calls
	Object  Shape = "object" // a JSON object with name and arguments for each call, between tags or bare
	Array   Shape = "array"  // a JSON array of such objects
	Named   Shape = "named"  // the name, then the arguments as JSON
	Params  Shape = "params" // the name, then a tag for each argument; strings are raw
	Python  Shape = "python" // Python calls with keyword arguments, in a list
	Literal Shape = "gemma"  // the name, then an object with bare keys and strings between quote markers
)

// A Dialect is the spelling of a family's answers:
//
//	[thoughts] text [Begin call {Separator call} End]
//
// The zero value describes answers of text alone.
type Dialect struct {
	// Name is the name in the table of docs/tools.md, such as "hermes" or "generic".
	Name     string
	Shape    Shape
	Calls    Calls
	Thinking Thinking
	Text     Text
	// Stop is the marker that the template writes behind an answer; empty means unknown. If the vocabulary has no
	// control token for it, it must be a stop text of the answer.
	Stop string
	// Next stands between the parts of an answer if each part is a message of its own, as in gpt-oss:
	// "<|start|>assistant". Otherwise it is empty.
	Next string
}

// Calls is the spelling of all calls of an answer.
type Calls struct {
	// Begin and End are around all calls of an answer, Separator is between two of them; each may
	// be empty. In shape Array, Begin has the opening bracket and End the closing one.
	Begin, End, Separator string
	// Lead is the white space that the template writes between a text and the calls behind it. It is not part of the
	// text.
	Lead string
	// Call is the spelling of one call.
	Call []Piece
	// Others are further spellings that models of the family use instead of Call.
	Others [][]Piece
	// Param is the spelling of an argument, in shapes Params, Python and Literal.
	Param Param
	// Space is the white space of calls and the order of their members; nil means any.
	Space *Space
	// Several reports that an answer may have more than one call.
	Several bool
	// Alone reports that calls have no marker of their own and take the place of the text: they begin the answer, or
	// follow its thoughts.
	Alone bool
}

// A Piece is a part of the spelling of one call.
type Piece struct {
	Kind Kind
	Text string // the text of a Fixed piece, or the alphabet of an ID
}

// A Kind is the kind of a [Piece]. The set is closed.
type Kind int

// Kinds of pieces.
const (
	Fixed                Kind = iota // Text itself
	Name                             // the tool's name, unquoted: a quote around it belongs to the fixed pieces beside it
	Arguments                        // the arguments, as the shape spells them; JSON with its braces
	ID                               // an id of the call: Text is the alphabet, one of the constants below
	NumberInConversation             // the number of the call, from 0, over all calls of the conversation
	NumberInAnswer                   // the number of the call, from 0, within the answer
)

// Alphabets of ids.
const (
	Nine      = "nine"  // nine of a–z, A–Z, 0–9
	AnyLength = "words" // one or more of a–z, A–Z, 0–9, -, _
)

// CallPrefix begins the ids of the calls of this engine; a number follows, from 1 in each conversation.
const CallPrefix = "tc-"

// NineOf returns the id of call number n in nine letters and digits; n must have at most seven digits.
func NineOf(n int) string { return fmt.Sprintf("tc%07d", n) }

// maxNine is the largest number of [NineOf].
const maxNine = 9_999_999

// IDOf returns the id of call number n in an alphabet, the same in answers and in the history. It returns an empty string
// if alphabet is Nine and n has more than seven digits.
func IDOf(alphabet string, n int) string {
	switch {
	case alphabet != Nine:
		return CallPrefix + strconv.Itoa(n)
	case n > maxNine:
		return ""
	}
	return NineOf(n)
}

// Param is the spelling of one argument.
//
// In shape Params an argument is Open key Middle value Close; the value is the raw text of a string, or the JSON of any
// other value. In shape Python it is key "=" value, and Separator is ", ". In shape Literal it is key ":" value, with
// Quote around strings. Separator is between two arguments.
type Param struct {
	Open, Middle, Close, Separator string
	// MiddleJSON replaces Middle in front of a value that is JSON; if it is empty, Middle stands there, too.
	MiddleJSON string
	// None takes the place of the arguments in a call without arguments, in shape Params.
	None string
	// Quote is the marker on both sides of a string in shape Literal. In shape Python it is the template's quotation
	// mark, single or double.
	Quote string
	// Raw reports, in shape Python, that strings between Quote have no escapes. A string ends where the next argument,
	// the next call or the end of all calls follows. Lists are then spelt as by Python's repr, and mappings are JSON.
	Raw bool
	// Wrap are markers around some values, within their tags, in shape Params.
	Wrap Wrap
}

// A Wrap is a pair of markers, such as <![CDATA[ and ]]>, around values that contain one of the characters Of. The zero
// value wraps nothing.
type Wrap struct {
	Open, Close string
	Of          string // the characters
	JSON        bool   // JSON is wrapped, too
}

// has reports whether text contains a character for which values are wrapped.
func (w *Wrap) has(text string) bool { return w.Of != "" && strings.ContainsAny(text, w.Of) }

// Thinking is the spelling of thoughts, and how a request switches them. Without Begin and End the model has no
// thoughts.
type Thinking struct {
	// Begin and End are around the thoughts, with the template's own white space.
	Begin, End string
	// Opened reports that the prompt itself writes Begin, so that the answer begins with thoughts.
	Opened bool
	// Variable is the name of the template's variable that switches thinking; empty is none. On and Off are its values;
	// if Off is nil, no value switches thinking off. Low is the value of the lowest effort, if thinking cannot be
	// switched off.
	Variable     string
	On, Off, Low any
	// Word is a word in a system message that switches thinking off; empty is none. It is used only without a Variable.
	Word string
	// InnerMarkers are markers that the model writes within its thoughts. They are not part of the thoughts.
	InnerMarkers []string
	// Closed ends a prompt without thinking: usually Begin and End with nothing between them, or only End if the prompt
	// itself writes Begin. If neither a variable nor a word switches thinking, it is appended to the prompt.
	Closed string
	// Always reports that thinking cannot be switched off.
	Always bool
}

// Has reports whether the dialect has thoughts.
func (t *Thinking) Has() bool { return t.End != "" }

// CanStop reports whether thinking can be switched off.
func (t *Thinking) CanStop() bool {
	return !t.Always && (t.Variable != "" && t.Off != nil || t.Word != "" || t.Closed != "")
}

// Text is the spelling of the text of an answer.
type Text struct {
	// Lead is the white space that the template writes between the prompt and a text, if Begins is empty. If there is
	// any, white space in front of a text is not part of the text.
	Lead string
	// Begins has the possible markers before a text, the usual one first. If it is empty, a text has none.
	Begins []string
	// End is the marker behind a text with one of Begins; empty means none. In a dialect with Next, it stands only
	// where a further message follows.
	End string
}

// A Position is where an answer begins relative to its thoughts. The set is closed.
type Position int

// Positions.
const (
	Before Position = iota // thoughts may come
	Inside                 // the prompt has opened them
	Behind                 // the prompt has closed them
)

// Position returns the position at which the answer to a prompt begins. prompt must be text of the template only,
// because a marker in a client's message does not count.
func (t *Thinking) Position(prompt string) Position {
	tail := strings.TrimSpace(prompt)
	begin, end := strings.TrimSpace(t.Begin), strings.TrimSpace(t.End)
	switch {
	case !t.Has():
		return Behind
	case begin != "" && strings.HasSuffix(tail, begin):
		return Inside
	case strings.HasSuffix(tail, end):
		return Behind
	}
	return Before
}
