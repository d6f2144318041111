package dialect

import "strings"

// inOrder reports whether text contains all parts in order, without overlap.
func inOrder(text string, parts ...string) bool {
	for _, part := range parts {
		_, behind, ok := strings.Cut(text, part)
		if !ok {
			return false
		}
		text = behind
	}
	return true
}

// takes reports whether a template renders messages with all parts, in order.
func takes(render Render, messages []Message, parts ...string) bool {
	text, err := render(&Probe{Messages: messages, Answer: true})
	return err == nil && inOrder(text, parts...)
}

// readTraits returns the traits for conversations without tools and thoughts. A template that refuses every conversation
// has none.
func readTraits(render Render) (t Traits) {
	first := []Message{user(userText), assistant(answerText)}
	t.System = takes(render, []Message{system(systemText), user(userText)}, systemText, userText)
	t.Systems = t.System &&
		takes(render, []Message{system(systemText), system(systemText2), user(userText)}, systemText, systemText2, userText)
	t.LateSystem = takes(render, append(first[:2:2], system(systemText), user(userText2)), answerText, systemText, userText2) &&
		takes(render, append(first[:2:2], user(userText2), system(systemText)), userText2, systemText)
	t.Repeats = takes(render, []Message{user(userText), user(userText2)}, userText, userText2)
	t.Answers = takes(render, append(first[:2:2], assistant(answerText2), user(userText2)), answerText, answerText2, userText2)
	return t
}
