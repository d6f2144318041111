package infer

import (
	"fmt"
	"strings"
)

// Abilities are the tasks and the features of generation that a backend supports, or that a
// request needs. An engine reports its abilities when it is ready; [Abilities.Check] refuses
// requests beyond them. The zero value has none.
type Abilities struct {
	Generate, Embed, Rerank bool // tasks

	// Features of generation.
	Tools                           bool   // declarations, tool_choice, calls and results in messages
	ToolsDialect                    string // with Tools: the name of the dialect in which the model spells calls; empty if unknown
	Thinking                        bool   // with or without a budget
	Grammar, JSONObject, JSONSchema bool   // response formats
	Logprobs                        bool
	Prompt                          bool // continues a prompt without the template
	Infill                          bool // fills the gap between a prompt and a suffix
	Count                           bool // counts the tokens of a prompt
	Vision, Audio, Video            bool // kinds of attachments
}

// AllAbilities returns the abilities with every task and feature. ToolsDialect is empty.
func AllAbilities() Abilities {
	return Abilities{
		Generate: true, Embed: true, Rerank: true,
		Tools: true, Thinking: true, Grammar: true, JSONObject: true, JSONSchema: true,
		Logprobs: true, Prompt: true, Infill: true, Count: true, Vision: true, Audio: true, Video: true,
	}
}

// Needs returns the abilities that a task needs. It costs a pass over every part of every message,
// so its result is stored in [Request.Needs].
func Needs(t Task) Abilities {
	switch t := t.(type) {
	case *Embed:
		return Abilities{Embed: true}
	case *Rerank:
		return Abilities{Rerank: true}
	case *Count:
		need := Needs(t.Of)
		need.Count = true
		return need
	case *Generate:
		need := Abilities{
			Generate: true, Prompt: t.Raw(), Infill: t.Suffix != nil || len(t.Files) > 0,
			Tools:    len(t.Tools) > 0 || t.Choice.Mode != ToolAuto,
			Thinking: t.Thinking == ThinkOn || t.ThinkingBudget > 0,
			Grammar:  t.Format.Grammar != "", JSONObject: t.Format.JSONObject, JSONSchema: t.Format.Schema != nil,
			Logprobs: t.Logprobs > 0,
		}
		kinds := t.mediaKinds()
		for _, m := range t.Messages {
			need.addParts(m.Content, kinds)
		}
		return need
	}
	return Abilities{}
}

// mediaKinds returns the kind of each attachment, by the attachment's id.
func (g *Generate) mediaKinds() map[string]Media {
	kinds := make(map[string]Media, len(g.Attachments))
	for _, a := range g.Attachments {
		kinds[a.ID] = a.Kind
	}
	return kinds
}

func (a *Abilities) addParts(parts []Part, kinds map[string]Media) {
	for _, part := range parts {
		switch part := part.(type) {
		case *TextPart, *ThinkingPart:
		case *MediaPart:
			kind := kinds[part.Attachment]
			a.Vision = a.Vision || kind == Image
			a.Audio = a.Audio || kind == Audio
			a.Video = a.Video || kind == Video
		case *CallPart:
			a.Tools = true
		case *ResultPart:
			a.Tools = true
			a.addParts(part.Content, kinds)
		}
	}
}

// Cover reports whether a has all abilities of need.
func (a Abilities) Cover(need Abilities) bool {
	for _, of := range [...]struct{ has, needs bool }{
		{a.Generate, need.Generate},
		{a.Embed, need.Embed},
		{a.Rerank, need.Rerank},
		{a.Tools, need.Tools},
		{a.Thinking, need.Thinking},
		{a.Grammar, need.Grammar},
		{a.JSONObject, need.JSONObject},
		{a.JSONSchema, need.JSONSchema},
		{a.Logprobs, need.Logprobs},
		{a.Prompt, need.Prompt},
		{a.Infill, need.Infill},
		{a.Count, need.Count},
		{a.Vision, need.Vision},
		{a.Audio, need.Audio},
		{a.Video, need.Video},
	} {
		if of.needs && !of.has {
			return false
		}
	}
	return true
}

// Do reports whether a includes Generate, Embed or Rerank, as t requires. A Count requires Generate.
func (a Abilities) Do(t Task) bool {
	switch t.(type) {
	case *Generate, *Count:
		return a.Generate
	case *Embed:
		return a.Embed
	case *Rerank:
		return a.Rerank
	}
	return false
}

// Check returns an error for the first feature of t that a does not include: [Unsupported] for
// attachments, [Invalid] for other features. A reference to an attachment that t does not have is
// [Invalid], too, unless a includes no kind of attachment. It does not check whether a includes the
// task itself (see [Abilities.Do]).
func (a Abilities) Check(t Task) error {
	var g *Generate
	switch t := t.(type) {
	case *Generate:
		g = t
	case *Count:
		if !a.Count {
			return unsupported("count_only")
		}
		g = t.Of
	case *Embed, *Rerank:
		return nil
	}
	for _, feature := range []struct {
		used, supported bool
		name            string
	}{
		{g.Raw(), a.Prompt, "prompt"},
		{g.Suffix != nil, a.Infill, "suffix"},
		{len(g.Files) > 0, a.Infill, "files"},
		{len(g.Tools) > 0, a.Tools, "tools"},
		{g.Choice.Mode != ToolAuto, a.Tools, "tool_choice"},
		{g.Format.Schema != nil, a.JSONSchema, "response_format json_schema"},
		{g.Format.JSONObject, a.JSONObject, "response_format json_object"},
		{g.Format.Grammar != "", a.Grammar, "response_format grammar"},
		{g.Thinking == ThinkOn, a.Thinking, "thinking"},
		{g.ThinkingBudget > 0, a.Thinking, "thinking_budget"},
		{g.Logprobs > 0, a.Logprobs, "logprobs"},
	} {
		if feature.used && !feature.supported {
			return unsupported(feature.name)
		}
	}
	kinds := g.mediaKinds()
	for i, m := range g.Messages {
		if err := a.checkParts(i, m.Content, kinds); err != nil {
			return err
		}
	}
	return nil
}

// unsupported returns the error for a feature that is not supported. feature is the name of a member
// of the request, which a space and the member's value may follow.
func unsupported(feature string) error {
	member, _, _ := strings.Cut(feature, " ")
	return Refusef(member, "%s is not supported by this model", feature)
}

// unsupportedIn returns the error for an unsupported feature in the messages.
func unsupportedIn(code Code, format string, args ...any) error {
	return &Error{code, &FeatureError{"messages", fmt.Errorf(format, args...)}}
}

// checkParts returns an error for the first of parts that a does not include. message is the index
// of the message that has the parts.
func (a Abilities) checkParts(message int, parts []Part, kinds map[string]Media) error {
	for _, part := range parts {
		switch part := part.(type) {
		case *TextPart, *ThinkingPart:
		case *MediaPart:
			if err := a.checkMedia(part.Attachment, kinds); err != nil {
				return err
			}
		case *CallPart:
			if !a.Tools {
				return errToolCalls(message)
			}
		case *ResultPart:
			if !a.Tools {
				return errToolCalls(message)
			}
			if err := a.checkParts(message, part.Content, kinds); err != nil {
				return err
			}
		}
	}
	return nil
}

func errToolCalls(message int) error {
	return unsupportedIn(Invalid, "invalid request: messages[%d]: tool calls are not supported by this model", message)
}

// checkMedia returns an error if a does not include the kind of the attachment with that id, or if
// there is no such attachment.
func (a Abilities) checkMedia(id string, kinds map[string]Media) error {
	kind, known := kinds[id]
	takes := false
	switch kind {
	case Image:
		takes = a.Vision
	case Audio:
		takes = a.Audio
	case Video:
		takes = a.Video
	}
	switch {
	case takes:
		return nil
	case !a.Vision && !a.Audio && !a.Video:
		return unsupportedIn(Unsupported, "this model takes no attachments: %q cannot be used", id)
	case !known:
		return Errorf(Invalid, "invalid request: there is no attachment %q", id)
	}
	return unsupportedIn(Unsupported, "this model takes no %s: %q cannot be used", kind, id)
}
