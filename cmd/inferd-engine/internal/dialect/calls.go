package dialect

import (
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// Calls of probes. Their arguments are two texts, an integer and a nested object.
var (
	callOne = Call{ID: "call_z1", Name: toolOne, Arguments: `{"ka": "Zva1z", "kb": "Zvb1z", "kc": 41, "kd": {"ke": "Zve1z"}}`}
	callTwo = Call{ID: "call_z2", Name: toolTwo, Arguments: `{"ka": "Zva2z", "kb": "Zvb2z", "kc": 42, "kd": {"ke": "Zve2z"}}`}
)

// valuesOne are the keys and values of callOne, in order.
var valuesOne = []string{"ka", "Zva1z", "kb", "Zvb1z", "kc", "41", "kd", "ke", "Zve1z"}

// withIDs returns a copy of calls with ids in the notation ids.
func withIDs(ids IDs, calls ...Call) []Call {
	calls = slices.Clone(calls)
	for i := range calls {
		switch ids {
		case NineID:
			calls[i].ID = "zid00000" + string(rune('1'+i))
		case FunctionID:
			calls[i].ID = "functions." + calls[i].Name + ":" + string(rune('0'+i))
		case AnyID:
		}
	}
	return calls
}

// A sample holds messages with calls as a template writes them, without header and end: one call, two calls, and a text
// with a call. Texts that the template does not write are empty. foot is the text between an answer and the next user
// message.
type sample struct{ one, two, withText, foot string }

// readTools records in t whether a template writes declarations and calls, in which form it accepts calls, and whether
// it accepts a user message right behind a tool's answer. It returns a sample of the calls; ok is false if the template
// writes none.
func readTools(render Render, t *Traits) (s sample, ok bool) {
	text, err := render(&Probe{Messages: []Message{user(userText)}, Tools: tools(), Answer: true})
	t.Tools = err == nil && strings.Contains(text, toolOne) && strings.Contains(text, "ka") && strings.Contains(text, userText)
	for _, ids := range []IDs{AnyID, NineID, FunctionID} {
		for _, way := range [][2]bool{{}, {true, false}, {false, true}, {true, true}} {
			t.IDs, t.TextArguments, t.NoContent = ids, way[0], way[1]
			if s, ok = sampleCalls(render, *t); ok {
				t.Calls = true
				t.Interrupts = interrupts(render, *t)
				return s, true
			}
		}
	}
	t.IDs, t.TextArguments, t.NoContent = AnyID, false, false
	return s, false
}

// interrupts reports whether a template accepts a user message right behind a tool's answer.
func interrupts(render Render, t Traits) bool {
	c := withIDs(t.IDs, callOne)[0]
	text, err := render(&Probe{
		Messages: []Message{user(userText), calling(c), result(c), user(userText2)},
		Tools:    tools(), Answer: true, Traits: t,
	})
	return err == nil && inOrder(text, resultText, userText2)
}

// sampleCalls renders calls and returns a sample. ok is false if the template refuses an answer without a call, one
// with a call, or the result of the call, or if it does not write the result, or the name and the arguments of the
// call, unchanged.
func sampleCalls(render Render, t Traits) (s sample, ok bool) {
	calls := withIDs(t.IDs, callOne, callTwo)
	turn := func(answer Message) (string, error) {
		return render(&Probe{Messages: []Message{user(userText), answer}, Tools: tools(), Traits: t})
	}
	plain, err := turn(assistant(answerText))
	if err != nil {
		return s, false
	}
	_, foot, _ := strings.Cut(plain, answerText)
	text, err := turn(calling(calls[0]))
	if err != nil {
		return s, false
	}
	// The template must accept the answer to the call, too.
	if answered, err := render(&Probe{
		Messages: []Message{user(userText), calling(calls[0]), result(calls[0])},
		Tools:    tools(), Answer: true, Traits: t,
	}); err != nil || !strings.Contains(answered, resultText) {
		return s, false
	}
	head := headerLength(render, t, plain, text)
	cut := func(text string) string {
		text = text[min(head, len(text)):]
		return text[:len(text)-commonSuffix(text, foot)]
	}
	if s.one = cut(text); !hasWholeCall(s.one) { // the name may come from a declaration of the tool
		return s, false
	}
	s.foot = footOf(render, t, tools())
	if text, err = turn(calling(calls...)); err == nil && inOrder(cut(text), toolOne, toolTwo) {
		s.two = cut(text)
	}
	both := calling(calls[0])
	both.Text = answerText
	if text, err = turn(both); err == nil && inOrder(text, answerText, toolOne) {
		s.withText = cut(text)
	}
	return s, true
}

// footOf returns the text between an answer and the next user message, or an empty text if the template refuses the
// probe.
func footOf(render Render, t Traits, tools []Tool) string {
	text, err := render(&Probe{
		Messages: []Message{user(userText), assistant(answerText), user(userText2)}, Tools: tools, Traits: t,
	})
	if err != nil {
		return ""
	}
	_, text, _ = strings.Cut(text, answerText)
	text, _, _ = strings.Cut(text, userText2)
	return text
}

// withoutThoughts removes the thoughts in front of calls from a sample.
func (s *sample) withoutThoughts(th *Thinking) {
	end := strings.TrimSpace(th.End)
	if end == "" {
		return
	}
	for _, text := range []*string{&s.one, &s.two, &s.withText} {
		before, _, _ := strings.Cut(*text, toolOne)
		if at := strings.LastIndex(before, end); at >= 0 {
			*text = (*text)[at+len(end):]
		}
	}
}

// headerLength returns the length in bytes of the header of text: all text in front of the answer. plain is rendered
// from an answer without a call, text from one with a call. If both begin with the prompt, the header is the prompt;
// otherwise it is their common prefix.
func headerLength(render Render, t Traits, plain, text string) int {
	for _, variables := range []map[string]any{nil, {"enable_thinking": false}} {
		prompt, err := render(&Probe{
			Messages: []Message{user(userText)}, Tools: tools(), Answer: true, Variables: variables, Traits: t,
		})
		if err == nil && strings.HasPrefix(text, prompt) && strings.HasPrefix(plain, prompt) {
			return len(prompt)
		}
	}
	return commonPrefix(plain, text)
}

// hasWholeCall reports whether text has a call with all arguments in order, in a notation that can be read: neither a
// dict of Python nor JSON inside a JSON string.
func hasWholeCall(text string) bool {
	at := strings.LastIndex(text, toolOne)
	if at < 0 {
		return false
	}
	call := text[at+len(toolOne):]
	return inOrder(call, valuesOne...) && !strings.Contains(call, `'ka'`) && !strings.Contains(call, `\"ka\"`)
}

// readCalls determines the shape and the spelling of calls from a sample; foot is the text behind an answer. ok is
// false if the calls fit no shape, or if the resulting dialect does not write the sample.
func readCalls(s sample, foot string) (shape Shape, c Calls, ok bool) {
	one, ok := splitCall(s.one, 0)
	if !ok {
		return NoCalls, c, false
	}
	one.behind = withoutFoot(one.behind, foot)
	trimmed := strings.TrimLeftFunc(one.before, unicode.IsSpace)
	c.Lead = one.before[:len(one.before)-len(trimmed)]
	one.before = trimmed
	end, begin, counter := one.behind, one.before, false
	index := Fixed
	if s.two != "" {
		for old, same := range map[string]string{"call_z2": "call_z1", "zid000002": "zid000001"} {
			s.two = strings.ReplaceAll(s.two, old, same)
		}
		first, ok1 := splitCall(s.two, 0)
		second, ok2 := splitCall(s.two, 1)
		if !ok1 || !ok2 || first.until > second.from {
			return NoCalls, c, false
		}
		c.Several = true
		between := s.two[first.until:second.from]
		end, c.Separator, begin = divide(one.before, between, one.behind)
		if at := strings.LastIndex(between, `"1"`); at >= 0 && strings.Contains(one.before, `"0"`) {
			same := between[:at] + `"0"` + between[at+3:]
			if e, sep, b := divide(one.before, same, one.behind); len(b) > len(begin) {
				end, c.Separator, begin, index = e, sep, b, NumberInAnswer
			}
		}
		c.Begin = strings.TrimSuffix(one.before, begin)
		c.End = strings.TrimPrefix(one.behind, end)
		if rest, ok := strings.CutPrefix(withoutFoot(second.behind, foot), end); ok && c.End == "" {
			c.End = rest // DeepSeek R1 writes an end marker behind several calls, but not behind one
		}
		counter = second.between != first.between && strings.Replace(second.between, "1", "0", 1) == first.between
		space := end[len(strings.TrimRightFunc(end, unicode.IsSpace)):]
		end = end[:len(end)-len(space)]
		c.Separator, c.End = space+c.Separator, space+c.End
	} else {
		end = strings.TrimRightFunc(end, unicode.IsSpace)
	}
	c.End = strings.TrimRightFunc(c.End, unicode.IsSpace)
	if s.withText != "" {
		text, _, _ := strings.Cut(s.withText, toolOne)
		_, lead, _ := strings.Cut(text, answerText)
		if n := len(lead) - len(strings.TrimLeftFunc(lead, unicode.IsSpace)); n > 0 {
			c.Lead = lead[:n]
		}
	}
	c.Call = append(fixed(begin, index), Piece{Kind: Name})
	if counter {
		c.Call = append(c.Call, numbered(one.between, "0", NumberInConversation)...)
	} else {
		c.Call = append(c.Call, fixed(one.between, Fixed)...)
	}
	c.Call = append(append(c.Call, Piece{Kind: Arguments}), fixed(end, Fixed)...)
	c.Param = one.param
	shape = shapeOf(&c, one)
	return shape, c, spells(&Dialect{Shape: shape, Calls: c}, s, one.nested)
}

// spells reports whether a dialect writes the calls of a sample as the template does, except for white space. nested is
// the template's spelling of the nested object in the first call, which may be Python; it is empty if the arguments are
// JSON.
func spells(d *Dialect, s sample, nested string) bool {
	for i, want := range []string{s.one, s.two} {
		if want == "" {
			continue
		}
		calls := withIDs(AnyID, []Call{callOne, callTwo}[:i+1]...)
		if strings.Contains(s.one, "zid000001") {
			calls = withIDs(NineID, calls...)
		}
		if i == 1 && calls[0].ID != "" {
			calls[1].ID = calls[0].ID // as in the sample
		}
		all, err := d.Write(calls)
		if err != nil {
			return false
		}
		var b strings.Builder
		for _, f := range all {
			b.WriteString(f.Text)
		}
		text := b.String()
		if nested != "" {
			text = strings.Replace(text, `{"ke": "Zve1z"}`, nested, 1)
			text = strings.Replace(text, `{"ke": "Zve2z"}`, strings.ReplaceAll(nested, "Zve1z", "Zve2z"), 1)
		}
		if !strings.HasPrefix(compact(want), strings.TrimSuffix(compact(text), compact(d.Calls.End))) {
			return false
		}
	}
	return true
}

// compact returns text without white space, because templates may indent JSON.
func compact(text string) string {
	return strings.Join(strings.Fields(text), "")
}

// withoutFoot returns behind, the text behind a call, up to the first marker of foot: that marker ends the message.
func withoutFoot(behind, foot string) string {
	first := marker.FindString(foot)
	if first == "" {
		return behind
	}
	before, _, _ := strings.Cut(behind, first)
	return before
}

// shapeOf returns the shape that the split found. If that is Object, the text before the name decides
// between Array, Object and Named.
func shapeOf(c *Calls, s split) Shape {
	switch {
	case s.shape != Object:
		return s.shape
	case strings.HasSuffix(strings.TrimSpace(c.Begin), "["):
		return Array
	case inObject.MatchString(c.Begin + c.beforeName()):
		return Object
	}
	return Named
}

// beforeName returns the text of a call up to its name, with 0 in place of numbers and ids.
func (c *Calls) beforeName() string {
	var b strings.Builder
	for _, p := range c.Call {
		switch p.Kind {
		case Fixed:
			b.WriteString(p.Text)
		case NumberInAnswer, NumberInConversation, ID:
			b.WriteString("0")
		case Name, Arguments:
			return b.String()
		}
	}
	return b.String()
}

// inObject matches the text in front of a name in a JSON object, up to the quote.
var inObject = regexp.MustCompile(`\{\s*("[^"]*":\s*"[^"]*",\s*)*("[^"]*":\s*)?"$`)

// fixed returns a text as pieces. The id of a call becomes a piece of its own; if index is NumberInAnswer, the number
// of the call becomes one instead.
func fixed(text string, index Kind) []Piece {
	if index == NumberInAnswer {
		return numbered(text, `"0"`, NumberInAnswer)
	}
	for _, id := range [][2]string{{"call_z1", AnyLength}, {"zid000001", Nine}} {
		if before, behind, ok := strings.Cut(text, id[0]); ok {
			return surround(before, Piece{Kind: ID, Text: id[1]}, behind)
		}
	}
	return surround(text, Piece{}, "")
}

// numbered returns a text as pieces. number is a 0, perhaps in quotes; where it first occurs in the text, the 0 becomes
// a piece of the given kind, and the quotes stay fixed text.
func numbered(text, number string, kind Kind) []Piece {
	before, behind, ok := strings.Cut(text, number)
	if !ok {
		return surround(text, Piece{}, "")
	}
	quote := strings.TrimSuffix(number, strings.TrimLeft(number, `"`))
	return surround(before+quote, Piece{Kind: kind}, quote+behind)
}

// surround returns piece p between two fixed texts; empty pieces are left out.
func surround(before string, p Piece, behind string) (all []Piece) {
	if before != "" {
		all = append(all, Piece{Kind: Fixed, Text: before})
	}
	if p != (Piece{}) {
		all = append(all, p)
	}
	if behind != "" {
		all = append(all, Piece{Kind: Fixed, Text: behind})
	}
	return all
}
