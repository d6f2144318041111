package link

import "github.com/inferd-go/inferd/internal/infer"

// generate is an [infer.Generate] as engines know it: text only.
type generate struct {
	Messages  []message
	MaxTokens int
	Stop      []string `json:",omitzero"`
	Grammar   string   `json:",omitzero"`
	Logprobs  int      `json:",omitzero"`
	Sampling  infer.Sampling
}

type message struct {
	Role infer.Role
	Text string
}

// orderOf says req in the words of the link. What engines cannot do yet is refused here
// by name, before anything is sent: attachments with [infer.Unsupported], all else with
// [infer.Invalid].
func orderOf(call uint64, req *infer.Request) (order, error) {
	o := order{Call: call, User: req.Peer.User, Deadline: req.Deadline}
	switch t := req.Task.(type) {
	case *infer.Embed:
		o.Embed = t
	case *infer.Rerank:
		o.Rerank = t
	case *infer.Generate:
		g, err := generateOf(t)
		if err != nil {
			return order{}, err
		}
		o.Generate = g
	}
	return o, nil
}

// jsonObject is the grammar of a JSON object, as json.org has it. White space is bounded:
// a model that likes it would write nothing else.
const jsonObject = `root ::= object
value ::= object | array | string | number | "true" | "false" | "null"
object ::= "{" ws ( member ( "," ws member )* )? "}" ws
member ::= string ":" ws value ws
array ::= "[" ws ( value ws ( "," ws value ws )* )? "]"
string ::= "\"" char* "\""
char ::= [^"\\\x7F\x00-\x1F] | "\\" ( ["\\/bfnrt] | "u" hex hex hex hex )
hex ::= [0-9a-fA-F]
number ::= "-"? ( "0" | [1-9] [0-9]* ) ( "." [0-9]+ )? ( [eE] [-+]? [0-9]+ )?
ws ::= ( " " | "\n" | "\t" ){0,20}
`

func generateOf(t *infer.Generate) (*generate, error) {
	for _, refused := range []struct {
		is   bool
		what string
	}{
		{len(t.Tools) > 0, "tools"},
		{t.Choice.Mode != infer.ToolAuto, "tool_choice"},
		{t.Format.Schema != nil, "response_format json_schema"},
		{t.Thinking, "thinking"},
		{t.ThinkingBudget > 0, "thinking_budget"},
	} {
		if refused.is {
			return nil, infer.Errorf(infer.Invalid, "invalid request: %s is not supported by this model", refused.what)
		}
	}
	g := &generate{
		Messages: make([]message, len(t.Messages)), MaxTokens: t.MaxTokens,
		Stop: t.Stop, Grammar: t.Format.Grammar, Logprobs: t.Logprobs, Sampling: t.Sampling,
	}
	if t.Format.JSONObject {
		g.Grammar = jsonObject
	}
	for i, m := range t.Messages {
		for _, part := range m.Content {
			switch part := part.(type) {
			case *infer.TextPart:
			case *infer.MediaPart:
				return nil, infer.Errorf(infer.Unsupported, "this model takes no attachments: %q cannot be used", part.Attachment)
			case *infer.CallPart, *infer.ResultPart:
				return nil, infer.Errorf(infer.Invalid, "invalid request: messages[%d]: tool calls are not supported by this model", i)
			}
		}
		g.Messages[i] = message{Role: m.Role, Text: m.Text()}
	}
	return g, nil
}

// task is the other way round.
func (o *order) task() infer.Task {
	switch {
	case o.Embed != nil:
		return o.Embed
	case o.Rerank != nil:
		return o.Rerank
	case o.Generate == nil:
		return nil
	}
	g := o.Generate
	t := &infer.Generate{
		Messages: make([]infer.Message, len(g.Messages)), MaxTokens: g.MaxTokens, Stop: g.Stop,
		Format: infer.Format{Grammar: g.Grammar}, Sampling: g.Sampling, Logprobs: g.Logprobs,
	}
	for i, m := range g.Messages {
		t.Messages[i] = infer.TextMessage(m.Role, m.Text)
	}
	return t
}
