package chat

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/inferd-go/inferd/internal/infer"
)

// A turn is a message in the form that templates take: a text, perhaps with thoughts and calls, or the answer of a tool
// to one call.
type turn struct {
	role     string // "system", "user", "assistant" or "tool"
	text     mixed
	thoughts string
	calls    []call
	call     *call // the answered call, in role "tool"
}

// A call is a call of a tool.
type call struct {
	id, name string
	input    []byte // JSON, an object unless the client has sent something else
	number   int    // in the conversation, from 0
}

// mixed is a text of several fragments. When the text is rendered, the fragments of clients are marked; those of this
// package are not.
type mixed []fragment

type fragment struct {
	text    string
	trusted bool // written by this package: it may spell special tokens
}

func plain(text string) mixed { return mixed{{text: text}} }

// joined returns both texts, with an empty line between them.
func (m mixed) joined(n mixed) mixed {
	if m.empty() {
		return n
	}
	if n.empty() {
		return m
	}
	return append(append(slices.Clip(m), fragment{text: "\n\n", trusted: true}), n...)
}

func (m mixed) empty() bool {
	for _, f := range m {
		if f.text != "" {
			return false
		}
	}
	return true
}

// trimmed returns m without white space at both ends.
func (m mixed) trimmed() mixed {
	m = append(mixed{}, m...)
	for len(m) > 0 {
		if m[0].text = strings.TrimLeftFunc(m[0].text, unicode.IsSpace); m[0].text != "" {
			break
		}
		m = m[1:]
	}
	for n := len(m) - 1; n >= 0; n-- {
		if m[n].text = strings.TrimRightFunc(m[n].text, unicode.IsSpace); m[n].text != "" {
			break
		}
		m = m[:n]
	}
	return m
}

// pairResults returns messages as turns, each answer of a tool with its call. Ids may repeat: an answer belongs to the
// last call before it with the same id. It returns [infer.Invalid] if a tool's answer, or one nested in it, has no
// call, or if the input of a call is not JSON.
func pairResults(messages []infer.Message) (turns []turn, err error) {
	calls := make(map[string]*call)
	number := 0
	for i, m := range messages {
		switch m.Role {
		case infer.Assistant:
			t := turn{role: "assistant", text: plain(m.Text()), thoughts: thinking(m)}
			for j, part := range m.Content {
				if p, ok := part.(*infer.CallPart); ok {
					if input := bytes.TrimSpace(p.Input); len(input) > 0 && !json.Valid(input) {
						return nil, infer.Errorf(infer.Invalid, "render: messages[%d].content[%d]: the input of tool_use %.128q is not JSON", i, j, p.ID)
					}
					t.calls = append(t.calls, call{id: p.ID, name: p.Name, input: object(p.Input), number: number})
					number++
				}
			}
			turns = appendAnswer(turns, t)
			last := &turns[len(turns)-1]
			for c := range last.calls {
				calls[last.calls[c].id] = &last.calls[c]
			}
		default:
			more, err := userTurns(m, i, calls)
			if err != nil {
				return nil, err
			}
			turns = append(turns, more...)
		}
	}
	return turns, nil
}

// object normalises the arguments of a call: nothing and null become an empty object, and an object in a string becomes that
// object. Other input is unchanged.
func object(input []byte) []byte {
	input = bytes.TrimSpace(input)
	var text string
	if len(input) > 0 && input[0] == '"' && json.Unmarshal(input, &text) == nil {
		if inner := bytes.TrimSpace([]byte(text)); len(inner) == 0 || inner[0] == '{' && json.Valid(inner) {
			input = inner
		}
	}
	if len(input) == 0 || string(input) == "null" {
		return []byte("{}")
	}
	return input
}

// appendAnswer appends an assistant turn. A turn with calls is joined to the assistant turn before it, unless both have
// a text or both have thoughts: the client has divided one answer into two messages.
func appendAnswer(turns []turn, t turn) []turn {
	if n := len(turns); n > 0 && len(t.calls) > 0 {
		last := &turns[n-1]
		if last.role == "assistant" && (last.text.empty() || t.text.empty()) && (last.thoughts == "" || t.thoughts == "") {
			last.text, last.thoughts = last.text.joined(t.text), last.thoughts+t.thoughts
			last.calls = append(last.calls, t.calls...)
			return turns
		}
	}
	return append(turns, t)
}

// userTurns returns the turns of a user or system message. Answers of tools come first, because they belong to the turn
// before. i is the index of the message, for errors; calls are the calls before it, by id.
func userTurns(m infer.Message, i int, calls map[string]*call) (turns []turn, err error) {
	others := false
	for j, part := range m.Content {
		r, ok := part.(*infer.ResultPart)
		if !ok {
			others = true
			continue
		}
		at := fmt.Sprintf("messages[%d].content[%d]", i, j)
		c, ok := calls[r.ID]
		if !ok {
			return nil, unpaired(at, r.ID)
		}
		if err := checkNested(r.Content, at, calls, make(map[string]bool)); err != nil {
			return nil, err
		}
		text := resultText(r)
		if r.Failed && !strings.HasPrefix(strings.ToLower(text), "error") {
			text = "Error: " + text
		}
		turns = append(turns, turn{role: "tool", text: plain(text), call: c})
	}
	if others || len(turns) == 0 {
		turns = append(turns, turn{role: string(m.Role), text: plain(m.Text())})
	}
	return turns, nil
}

// checkNested checks the results nested in the content of a result: each must match one of calls, or a call before it
// in the same outermost result. checkNested collects the ids of the latter in nested. at is the path of the outer
// result, for errors.
func checkNested(content []infer.Part, at string, calls map[string]*call, nested map[string]bool) error {
	for k, part := range content {
		switch p := part.(type) {
		case *infer.TextPart, *infer.ThinkingPart, *infer.MediaPart:
		case *infer.CallPart:
			nested[p.ID] = true
		case *infer.ResultPart:
			at := fmt.Sprintf("%s.content[%d]", at, k)
			if calls[p.ID] == nil && !nested[p.ID] {
				return unpaired(at, p.ID)
			}
			if err := checkNested(p.Content, at, calls, nested); err != nil {
				return err
			}
		}
	}
	return nil
}

// unpaired returns the error for a result that matches no call; at is the path of the result.
func unpaired(at, id string) error {
	err := fmt.Errorf("render: %s: tool_result references tool_call_id %.128q, which matches no tool_use in this request", at, id)
	return &infer.Error{Code: infer.Invalid, Err: &infer.FeatureError{Member: "messages", Err: err}}
}

// resultText returns the text of a tool's result: its parts, joined by newlines. Nested results and calls are included;
// thinking and media are left out.
func resultText(r *infer.ResultPart) string {
	var texts []string
	for _, part := range r.Content {
		switch p := part.(type) {
		case *infer.TextPart:
			texts = append(texts, p.Text)
		case *infer.ResultPart:
			texts = append(texts, resultText(p))
		case *infer.CallPart:
			texts = append(texts, p.Name+" "+string(p.Input))
		case *infer.ThinkingPart, *infer.MediaPart:
		}
	}
	return strings.Join(texts, "\n")
}

// thinking returns the thoughts of a message, joined. Most templates leave out all but the latest.
func thinking(m infer.Message) string {
	var b strings.Builder
	for _, part := range m.Content {
		if t, ok := part.(*infer.ThinkingPart); ok {
			b.WriteString(t.Text)
		}
	}
	return b.String()
}
