package chat

import (
	"strings"

	"github.com/inferd-go/inferd/internal/infer"
)

// The transcript is the built-in template, for models without one:
//
//	System: Be brief.
//	User: Hello
//	Assistant: Hi
//	User: Bye
//	Assistant:
//
// The prompt ends without a space because most tokenizers attach a space to the word behind it. The model's answer then
// begins with the token " Hi", which is also a token of the next prompt, so that the next prompt can reuse the KV cache
// of this answer. White space around a message is removed for the same reason: an answer of " Hi\n" comes back as "Hi".
//
// A transcript has no control tokens. A message with a line that begins like a marker looks
// to the model like several messages.

// transcriptLead stands between the marker of a message and its text.
const transcriptLead = " "

// marker returns the beginning of a message in a transcript.
func marker(role infer.Role) string {
	switch role {
	case infer.System:
		return "System:"
	case infer.Assistant:
		return "Assistant:"
	default:
		return "User:"
	}
}

// markers are the stops of a transcript: a model without a template does not end its turn, but
// continues with the next message.
func markers() []string {
	var all []string
	for _, role := range []infer.Role{infer.User, infer.Assistant, infer.System} {
		all = append(all, "\n"+marker(role))
	}
	return all
}

// transcript renders turns; if answer is set, the marker of the model's answer follows. mark is applied to text of clients.
func transcript(turns []turn, answer bool, mark func(text string) string) string {
	var b strings.Builder
	for _, t := range turns {
		b.WriteString(marker(infer.Role(t.role)))
		if text := t.text.trimmed(); !text.empty() {
			b.WriteString(transcriptLead)
			for _, f := range text {
				if f.trusted {
					b.WriteString(f.text)
				} else {
					b.WriteString(mark(f.text))
				}
			}
		}
		b.WriteByte('\n')
	}
	if answer {
		b.WriteString(marker(infer.Assistant))
	}
	return b.String()
}
