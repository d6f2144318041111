package dialect

import (
	"regexp"
	"strings"
)

// A control is a variable by which templates switch thinking.
type control struct {
	name string
	on   []any // values to try; the first one that gives another prompt than a value in off is used
	off  []any
	low  any // the lowest effort, for templates that cannot switch thinking off
}

// controls are the known variables, the usual ones first.
var controls = []control{
	{name: "enable_thinking", on: []any{true}, off: []any{false}},
	{name: "thinking", on: []any{true}, off: []any{false}},
	{name: "thinking_budget", on: []any{-1}, off: []any{0}},
	{name: "reasoning_effort", on: []any{"medium", "high"}, off: []any{"none", "no_think", "low"}, low: "low"},
}

// noThink is the word in a system message that switches thinking off, in templates that support it.
const noThink = "/no_think"

// innerMarkers are the known markers for [Thinking].InnerMarkers.
var innerMarkers = []string{"<seed:cot_budget_reflect>", "</seed:cot_budget_reflect>"}

// pairs are known markers of thoughts, for templates that mention the markers but do not write thoughts.
var pairs = [][2]string{
	{"<think>", "</think>"},
	{"<seed:think>", "</seed:think>"},
	{"[THINK]", "[/THINK]"},
	{"<|START_THINKING|>", "<|END_THINKING|>"},
	{"<|inner_prefix|>", "<|inner_suffix|>"},
	{"<mm:think>", "</mm:think>"},
}

// readThinking returns the spelling of thoughts and how the template switches them, and records in t the place of thoughts
// in a message. It returns the zero value for a template without thoughts.
func readThinking(render Render, source string, t *Traits) (th Thinking) {
	prompt := func(variables map[string]any) string {
		text, err := render(&Probe{Messages: []Message{user(userText)}, Answer: true, Variables: variables, Traits: *t})
		if err != nil {
			return ""
		}
		return text
	}
	plain := prompt(nil)
	on, off, c := th.findControl(prompt, source)
	if !th.findMarkers(render, t, plain, on) {
		if !th.findKnown(source, plain, on, off) {
			return Thinking{}
		}
		if place := th.inText(render, t, plain); place != ReasoningContent {
			t.Thoughts = place
		}
	}
	th.Opened = th.Position(plain) == Inside
	for _, text := range innerMarkers {
		if strings.Contains(source, text) {
			th.InnerMarkers = append(th.InnerMarkers, text)
		}
	}
	if th.Variable == "" && strings.Contains(source, noThink) {
		text, err := render(&Probe{Messages: []Message{system(noThink), user(userText)}, Answer: true, Traits: *t})
		if err == nil && th.Position(text) == Behind && th.Position(plain) != Behind {
			th.Word, off = noThink, text
		}
	}
	if c.low != nil { // an effort may switch it off
		th.Off, th.Always = nil, true
		for _, value := range c.off {
			if text := prompt(map[string]any{c.name: value}); text != "" && th.Position(text) == Behind {
				th.Off, th.Low, th.Always, off = value, nil, false, text
				break
			}
		}
	}
	th.close(off)
	return th
}

// findControl sets Variable to the variable that switches thinking, and On, Off and Low to its values. It returns the
// prompts with and without thinking. Without such a variable both are the plain prompt, and c is zero.
func (t *Thinking) findControl(prompt func(map[string]any) string, source string) (on, off string, c control) {
	for _, c := range controls {
		if !strings.Contains(source, c.name) {
			continue
		}
		for _, with := range c.on {
			for _, without := range c.off {
				on, off = prompt(map[string]any{c.name: with}), prompt(map[string]any{c.name: without})
				if on != "" && off != "" && on != off {
					t.Variable, t.On, t.Off, t.Low = c.name, with, without, c.low
					return on, off, c
				}
			}
		}
	}
	plain := prompt(nil)
	return plain, plain, control{}
}

// close sets Closed. If a variable or a word switches thinking off, Closed is the end of off, the prompt without
// thinking; it stays empty if off does not close thoughts. Otherwise Closed is made of Begin and End, or stays empty if
// thinking cannot be switched off.
func (t *Thinking) close(off string) {
	begin, end := strings.TrimSpace(t.Begin), strings.TrimSpace(t.End)
	if t.Variable != "" && t.Off != nil || t.Word != "" {
		if t.Position(off) == Behind {
			at := strings.LastIndex(off, end)
			if open := strings.LastIndex(off, begin); begin != "" && open >= 0 && open < at {
				at = open
			}
			t.Closed = off[at:]
		}
		return
	}
	if t.Always {
		return
	}
	if t.Opened {
		t.Closed = t.End
	} else {
		t.Closed = t.Begin + t.End
	}
}

// lengthen appends to End the text that the template writes between End and the marker of a text, usually the beginning
// of another message. If Closed ends with End, it is lengthened, too.
func (t *Thinking) lengthen(render Render, traits *Traits, text *Text) {
	if !t.Has() || len(text.Begins) == 0 {
		return
	}
	answer := assistant(answerText)
	answer.Thoughts = thoughtText
	all, err := render(&Probe{Messages: []Message{user(userText), answer}, Variables: t.switched(), Traits: *traits})
	_, behind, ok := strings.Cut(all, thoughtText+t.End)
	between, _, begins := strings.Cut(behind, text.Begins[0]+answerText)
	if err != nil || !ok || !begins || strings.TrimSpace(between) == "" {
		return
	}
	if rest, ok := strings.CutSuffix(t.Closed, t.End); ok {
		t.Closed = rest + t.End + between
	}
	t.End += between
}

// These match the markers in front of and behind a thought, with white space: one marker, perhaps with a word behind it, or
// two markers with a word between them.
var (
	lastMarker  = regexp.MustCompile(`(?:<[^<>\s]+>[a-z]+<[^<>\s]+>|<[^<>\s]+>[a-z]*|\[[A-Z_]+\])\s*$`)
	firstMarker = regexp.MustCompile(`^\s*(?:<[^<>\s]+>(?:[a-z]+<[^<>\s]+>)?|\[/?[A-Z_]+\])\s*`)
)

// findMarkers finds the markers around thoughts in the history, and records the place of thoughts in traits. plain and
// on are the default prompt and the one with thinking. It reports whether it found markers.
func (t *Thinking) findMarkers(render Render, traits *Traits, plain, on string) bool {
	for _, place := range []Thoughts{ReasoningContent, ThinkingMember, ThinkingBlock} {
		answer := assistant(answerText)
		answer.Thoughts = thoughtText
		question := []Message{user(userText)}
		c := withIDs(traits.IDs, callOne)[0]
		call := calling(c)
		call.Thoughts = thoughtText
		for _, messages := range [][]Message{append(question[:1:1], answer), append(question[:1:1], call, result(c))} {
			if len(messages[1].Calls) > 0 && !traits.Calls {
				continue
			}
			for _, variables := range []map[string]any{nil, t.switched()} {
				variant := *traits
				variant.Thoughts = place
				p := &Probe{Messages: messages, Variables: variables, Traits: variant}
				if len(messages[1].Calls) > 0 {
					p.Tools = tools()
				}
				text, err := render(p)
				if err != nil || !t.findAround(text, plain, on) {
					continue
				}
				traits.Thoughts = place
				if traits.Calls {
					traits.ThoughtsBesideCalls = thoughtsBesideCalls(render, variant, c)
				}
				return true
			}
		}
	}
	return false
}

// thoughtsBesideCalls reports whether a template accepts thoughts and a text beside a call, and writes or leaves out
// the text as it does without the thoughts.
func thoughtsBesideCalls(render Render, t Traits, c Call) bool {
	t.ThoughtsBesideCalls = true
	answer := calling(c)
	answer.Text = answerText
	write := func() (string, error) {
		return render(&Probe{Messages: []Message{user(userText), answer, result(c)}, Tools: tools(), Traits: t})
	}
	alone, _ := write()
	answer.Thoughts = thoughtText
	text, err := write()
	return err == nil && strings.Contains(text, answerText) == strings.Contains(alone, answerText)
}

// inText determines whether thoughts can stand in the content of a message. It returns ReasoningContent unless the
// template writes the thoughts of the last answer, even with a tool's answer behind it. Then it returns ThinkingText if
// the template leaves out older thoughts, ThinkingWritten if it keeps them and writes the content unchanged behind plain
// (the prompt of a question), and otherwise ReasoningContent.
func (t *Thinking) inText(render Render, traits *Traits, plain string) Thoughts {
	if t.Begin == "" {
		return ReasoningContent
	}
	answer := assistant(t.Begin + thoughtText + t.End + answerText)
	last, err := render(&Probe{Messages: []Message{user(userText), answer, result(callOne)}, Answer: true, Traits: *traits})
	if err != nil || !inOrder(last, thoughtText, answerText) {
		return ReasoningContent
	}
	all, err := render(&Probe{
		Messages: []Message{user(userText), answer, user(userText2), assistant(answerText2), user(userText2)}, Answer: true, Traits: *traits,
	})
	switch {
	case err != nil || !strings.Contains(all, answerText):
	case !strings.Contains(all, thoughtText):
		return ThinkingText
	case strings.HasPrefix(last, strings.TrimSuffix(plain, t.Begin)+answer.Text):
		return ThinkingWritten
	}
	return ReasoningContent
}

// switched returns the variables that switch thinking on, or nil.
func (t *Thinking) switched() map[string]any {
	if t.Variable == "" {
		return nil
	}
	return map[string]any{t.Variable: t.On}
}

// findAround sets Begin and End to the markers around the thought in text. plain and on are prompts: if text begins
// with one, Begin includes all text between the prompt and the thought. findAround reports whether it found markers.
func (t *Thinking) findAround(text, plain, on string) bool {
	before, behind, ok := strings.Cut(text, thoughtText)
	if !ok {
		return false
	}
	begin := lastMarker.FindString(before)
	for _, prompt := range []string{plain, on} { // all text between prompt and thought
		if rest, ok := strings.CutPrefix(before, prompt); ok && strings.TrimSpace(rest) != "" && len(rest) > len(begin) {
			begin = rest
		}
	}
	next := len(behind)
	for _, word := range []string{answerText, toolOne} {
		if at := strings.Index(behind, word); at >= 0 {
			next = min(next, at)
		}
	}
	end := firstMarker.FindString(behind[:next])
	if end == "" || begin == "" || strings.TrimSpace(begin) == strings.TrimSpace(end) {
		return false
	}
	t.Begin, t.End = begin, end
	return true
}

// findKnown sets Begin and End to the first known pair at the end of a prompt or in the source, and reports whether
// there is one.
func (t *Thinking) findKnown(source string, prompts ...string) bool {
	for _, pair := range pairs {
		for _, prompt := range prompts {
			tail := strings.TrimRight(prompt, " \n")
			space := prompt[len(tail):]
			if strings.HasSuffix(tail, pair[0]) {
				t.Begin, t.End = pair[0]+space, pair[1]
				return true
			}
			if before, ok := strings.CutSuffix(tail, pair[1]); ok {
				opened := strings.TrimRight(before, " \n")
				between := before[len(opened):]
				if !strings.HasSuffix(opened, pair[0]) {
					between = ""
				}
				half := (len(between) + 1) / 2 // of the white space, in front of the thoughts and behind them
				t.Begin, t.End = pair[0]+between[:half], between[half:]+pair[1]+space
				return true
			}
		}
		if strings.Contains(source, pair[1]) {
			t.Begin, t.End = pair[0], pair[1]
			return true
		}
	}
	return false
}
