package chat

import (
	"slices"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
)

// fold changes turns so that the template accepts them and writes them completely. If described is set, a system message
// describes the tools.
func (t *Template) fold(c *Conversation, turns []turn, described bool) []turn {
	turns = t.prepareThoughts(c, slices.Clone(turns))
	switch {
	case !t.traits.Calls:
		turns = t.callsAsText(turns)
	case !t.dialect.Calls.Several:
		turns = splitCalls(turns)
	}
	if len(c.Tools) > 0 && described {
		turns = withSystem(turns, t.describe(c.Tools))
	}
	if word := t.dialect.Thinking.Word; word != "" && c.Think != nil && !*c.Think {
		turns = withSystem(turns, mixed{{word, true}})
	}
	turns = t.foldSystem(turns)
	if !t.traits.Interrupts {
		turns = join(turns, func(before, next *turn) bool { return before.role == "tool" && next.role == "user" })
	}
	if !t.traits.Repeats {
		turns = join(turns, func(before, next *turn) bool { return before.role == "user" && next.role == "user" })
	}
	if !t.traits.Answers {
		turns = join(turns, func(before, next *turn) bool {
			return before.role == "assistant" && next.role == "assistant" && len(before.calls) == 0 && len(next.calls) == 0
		})
	}
	if th := &t.dialect.Thinking; t.thinksInText() {
		for i := range turns {
			if turns[i].thoughts != "" {
				turns[i].text = slices.Concat(mixed{{th.Begin, true}, {text: turns[i].thoughts}, {th.End, true}}, turns[i].text)
			}
		}
	}
	return turns
}

// thinksInText reports whether thoughts are a part of the content of a message.
func (t *Template) thinksInText() bool {
	return t.traits.Thoughts == dialect.ThinkingText || t.traits.Thoughts == dialect.ThinkingWritten
}

// prepareThoughts prepares the thoughts of a template that has them in the content of a message. For a template that
// writes any content unchanged, prepareThoughts drops the thoughts before the last user message, as templates with a
// member for thoughts do, or all thoughts if a variable switches thinking off. A text behind remaining thoughts is put
// between the markers of a text, as the model writes it there.
func (t *Template) prepareThoughts(c *Conversation, turns []turn) []turn {
	if !t.thinksInText() {
		return turns
	}
	off := t.dialect.Thinking.Variable != "" && c.Think != nil && !*c.Think
	text := &t.dialect.Text
	old := false
	for i, next := range slices.Backward(turns) {
		old = old || next.role == "user"
		switch {
		case t.traits.Thoughts == dialect.ThinkingWritten && (old || off):
			turns[i].thoughts = ""
		case next.thoughts != "" && text.End != "" && len(text.Begins) > 0 && !next.text.empty():
			turns[i].text = slices.Concat(mixed{{text.Begins[0], true}}, next.text, mixed{{text.End, true}})
		}
	}
	return turns
}

// foldSystem joins each system message that the template refuses to the system message before it, or to the next user
// message. In front of an assistant message, and at the end of the conversation, it becomes a user message of its own.
func (t *Template) foldSystem(turns []turn) (out []turn) {
	var held mixed // texts of system messages, for the next user message
	for i, next := range turns {
		if next.role == "system" {
			takes := t.traits.LateSystem
			switch {
			case i == 0:
				takes = t.traits.System
			case len(out) == i && turns[i-1].role == "system" && t.traits.System && allSystem(turns[:i]):
				takes = t.traits.Systems
			}
			n := len(out)
			switch {
			case takes:
				out = append(out, next)
			case n > 0 && out[n-1].role == "system":
				out[n-1].text = out[n-1].text.joined(next.text)
			default:
				held = held.joined(next.text)
			}
			continue
		}
		if !held.empty() && next.role != "tool" {
			if next.role == "user" {
				next.text = held.joined(next.text)
			} else {
				out = append(out, turn{role: "user", text: held})
			}
			held = nil
		}
		out = append(out, next)
	}
	if !held.empty() {
		out = append(out, turn{role: "user", text: held})
	}
	return out
}

func allSystem(turns []turn) bool {
	return !slices.ContainsFunc(turns, func(t turn) bool { return t.role != "system" })
}

// join merges neighbouring turns for which rule returns true.
func join(turns []turn, rule func(before, next *turn) bool) (out []turn) {
	for _, next := range turns {
		if n := len(out); n > 0 && rule(&out[n-1], &next) {
			out[n-1].text = out[n-1].text.joined(next.text)
			out[n-1].thoughts += next.thoughts
			continue
		}
		out = append(out, next)
	}
	return out
}

// splitCalls splits a turn with several calls into turns with one call, each followed by its answers.
func splitCalls(turns []turn) (out []turn) {
	for i := 0; i < len(turns); i++ {
		next := turns[i]
		if len(next.calls) < 2 {
			out = append(out, next)
			continue
		}
		end := i + 1
		for end < len(turns) && turns[end].role == "tool" {
			end++
		}
		for c := range next.calls {
			one := turn{role: "assistant", calls: next.calls[c : c+1]}
			if c == 0 {
				one.text, one.thoughts = next.text, next.thoughts
			}
			out = append(out, one)
			for _, r := range turns[i+1 : end] {
				if r.call == &next.calls[c] {
					out = append(out, r)
				}
			}
		}
		i = end - 1
	}
	return out
}

// withSystem appends a text to the system message at the beginning, or inserts one.
func withSystem(turns []turn, text mixed) []turn {
	if len(turns) > 0 && turns[0].role == "system" {
		turns[0].text = turns[0].text.joined(text)
		return turns
	}
	return slices.Insert(turns, 0, turn{role: "system", text: text})
}
