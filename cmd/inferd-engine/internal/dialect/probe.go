package dialect

// A Probe is a conversation that shows how a template spells something. Its texts occur in no template.
type Probe struct {
	Messages  []Message
	Tools     []Tool
	Answer    bool           // the prompt ends where an answer begins
	Variables map[string]any // of the template: booleans, texts and integers
	Traits    Traits         // of the template, as far as they are known
}

// A Message is a message of a [Probe].
type Message struct {
	Role     string // "system", "user", "assistant" or "tool"
	Text     string
	Thoughts string
	Calls    []Call
	ID, Name string // in a tool's answer: the id of the call, and the name of the tool
}

// A Tool is a declaration of a [Probe].
type Tool struct{ Name, Description, Schema string }

// A Call is a call of a tool.
type Call struct {
	ID, Name  string
	Arguments string // a JSON object
}

// Traits describe the conversations that a template accepts and writes completely.
type Traits struct {
	Tools bool // writes the declarations of tools
	Calls bool // writes calls, and the answers of tools in messages of their own
	// Results reports that a template without calls accepts answers of tools in messages of their own.
	Results bool

	TextArguments bool // takes the arguments of calls only as a string with a JSON object
	TextValues    bool // takes each argument that is not a string as a string with its JSON
	NoContent     bool // takes calls without a text only if the content is null, not an empty text
	IDs           IDs  // the ids of calls that it takes

	System              bool // takes a system message at the beginning
	Systems             bool // takes two of them in a row
	LateSystem          bool // takes a system message behind others
	Repeats             bool // takes two messages of the user in a row
	Answers             bool // takes two messages of the assistant in a row
	Interrupts          bool // takes a message of the user right behind an answer of a tool
	Thoughts            Thoughts
	ThoughtsBesideCalls bool // takes thoughts and a text beside calls
}

// IDs is a notation of the ids of calls. The set is closed.
type IDs string

// Notations.
const (
	AnyID      IDs = ""         // as the client has them
	NineID     IDs = "nine"     // nine letters and digits
	FunctionID IDs = "function" // "functions.", the tool's name, ":" and the number of the call in the conversation
)

// Thoughts is the place of the thoughts in a message. The set is closed.
type Thoughts string

// Places of thoughts.
const (
	ReasoningContent Thoughts = ""                 // the member reasoning_content
	ThinkingMember   Thoughts = "thinking"         // the member thinking
	ThinkingBlock    Thoughts = "thinking block"   // a block in a list of contents
	ThinkingText     Thoughts = "thinking in text" // in the content, between the markers; the template leaves out old ones
	ThinkingWritten  Thoughts = "thinking written" // the same, but the template writes any content as it is
)

// Render renders a probe, or returns an error if the template refuses it.
type Render func(p *Probe) (string, error)

// Texts of probes: words that occur in no template, in letters that templates do not change.
const (
	systemText  = "Zsystemz"
	systemText2 = "Zsecondz"
	userText    = "Zquestionz"
	userText2   = "Zfurtherz"
	answerText  = "Zanswerz"
	answerText2 = "Zreplyz"
	thoughtText = "Zthoughtz"
	resultText  = "Zresultz"
	toolOne     = "zprobe_one"
	toolTwo     = "zprobe_two"
	description = "Zdescribez"
)

func user(text string) Message      { return Message{Role: "user", Text: text} }
func system(text string) Message    { return Message{Role: "system", Text: text} }
func assistant(text string) Message { return Message{Role: "assistant", Text: text} }

func calling(calls ...Call) Message { return Message{Role: "assistant", Calls: calls} }

// result returns the answer of a tool to a call.
func result(c Call) Message { return Message{Role: "tool", Text: resultText, ID: c.ID, Name: c.Name} }

// tools returns the two tools that probes declare.
func tools() []Tool {
	const parameters = `{"type":"object","properties":{"ka":{"type":"string","description":"Zparameterz"},` +
		`"kb":{"type":"string"},"kc":{"type":"integer"},"kd":{"type":"object"}},"required":["ka"]}`
	return []Tool{
		{Name: toolOne, Description: description, Schema: parameters},
		{Name: toolTwo, Description: "Another.", Schema: parameters},
	}
}
