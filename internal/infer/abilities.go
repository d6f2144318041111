package infer

// Abilities are the tasks and the features of generation that a backend supports. An
// engine reports them when it is ready; requests beyond them are refused with
// [Abilities.Check]. The zero value supports nothing.
type Abilities struct {
	Generate, Embed, Rerank bool // tasks

	// Features of generation.
	Tools                           bool // declarations, tool_choice, calls and results in messages
	Thinking                        bool // with or without a budget
	Grammar, JSONObject, JSONSchema bool // response formats
	Logprobs                        bool
	Vision, Audio, Video            bool // kinds of attachments
}

// AllAbilities supports every task and feature.
func AllAbilities() Abilities {
	return Abilities{
		Generate: true, Embed: true, Rerank: true,
		Tools: true, Thinking: true, Grammar: true, JSONObject: true, JSONSchema: true,
		Logprobs: true, Vision: true, Audio: true, Video: true,
	}
}

// Do reports whether tasks of the kind of t are supported.
func (a Abilities) Do(t Task) bool {
	switch t.(type) {
	case *Generate:
		return a.Generate
	case *Embed:
		return a.Embed
	case *Rerank:
		return a.Rerank
	}
	return false
}

// Check returns an error that names the first feature of t beyond a: [Unsupported] for
// attachments, [Invalid] for all others. It does not check the kind of t, see
// [Abilities.Do].
func (a Abilities) Check(t Task) error {
	g, ok := t.(*Generate)
	if !ok {
		return nil
	}
	for _, feature := range []struct {
		used, supported bool
		name            string
	}{
		{len(g.Tools) > 0, a.Tools, "tools"},
		{g.Choice.Mode != ToolAuto, a.Tools, "tool_choice"},
		{g.Format.Schema != nil, a.JSONSchema, "response_format json_schema"},
		{g.Format.JSONObject, a.JSONObject, "response_format json_object"},
		{g.Format.Grammar != "", a.Grammar, "response_format grammar"},
		{g.Thinking, a.Thinking, "thinking"},
		{g.ThinkingBudget > 0, a.Thinking, "thinking_budget"},
		{g.Logprobs > 0, a.Logprobs, "logprobs"},
	} {
		if feature.used && !feature.supported {
			return Errorf(Invalid, "invalid request: %s is not supported by this model", feature.name)
		}
	}
	for i, m := range g.Messages {
		if err := a.checkParts(g, i, m.Content); err != nil {
			return err
		}
	}
	return nil
}

// checkParts checks parts of message i of g.
func (a Abilities) checkParts(g *Generate, i int, parts []Part) error {
	for _, part := range parts {
		switch part := part.(type) {
		case *TextPart:
		case *MediaPart:
			if err := a.checkMedia(g, part.Attachment); err != nil {
				return err
			}
		case *CallPart:
			if !a.Tools {
				return errToolCalls(i)
			}
		case *ResultPart:
			if !a.Tools {
				return errToolCalls(i)
			}
			if err := a.checkParts(g, i, part.Content); err != nil {
				return err
			}
		}
	}
	return nil
}

func errToolCalls(message int) error {
	return Errorf(Invalid, "invalid request: messages[%d]: tool calls are not supported by this model", message)
}

// checkMedia checks the kind of the attachment id of g.
func (a Abilities) checkMedia(g *Generate, id string) error {
	if !a.Vision && !a.Audio && !a.Video {
		return Errorf(Unsupported, "this model takes no attachments: %q cannot be used", id)
	}
	for _, one := range g.Attachments {
		if one.ID != id {
			continue
		}
		if takes, known := map[Media]bool{Image: a.Vision, Audio: a.Audio, Video: a.Video}[one.Kind]; !known || !takes {
			return Errorf(Unsupported, "this model takes no %s: %q cannot be used", one.Kind, id)
		}
		return nil
	}
	return Errorf(Invalid, "invalid request: there is no attachment %q", id)
}
