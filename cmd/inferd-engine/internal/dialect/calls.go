package dialect

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// Calls of probes. The arguments have a text, an integer and a nested object.
var (
	callOne = Call{ID: "call_z1", Name: toolOne, Arguments: `{"ka": "Zva1z", "kb": "Zvb1z", "kc": 41, "kd": {"ke": "Zve1z"}}`}
	callTwo = Call{ID: "call_z2", Name: toolTwo, Arguments: `{"ka": "Zva2z", "kb": "Zvb2z", "kc": 42, "kd": {"ke": "Zve2z"}}`}
)

// valuesOne are the keys and values of callOne, in order.
var valuesOne = []string{"ka", "Zva1z", "kb", "Zvb1z", "kc", "41", "kd", "ke", "Zve1z"}

// withIDs returns calls with ids of a notation.
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

// A sample is what a template writes for calls, without the header and the end of the message.
type sample struct{ one, two, withText string }

// readTools returns whether a template writes declarations and calls, and how it takes them. The sample
// has its calls.
func readTools(render Render, t *Traits) (s sample, ok bool) {
	text, err := render(&Probe{Messages: []Message{user(userText)}, Tools: tools(), Answer: true})
	t.Tools = err == nil && strings.Contains(text, toolOne) && strings.Contains(text, "ka") && strings.Contains(text, userText)
	for _, ids := range []IDs{AnyID, NineID, FunctionID} {
		for _, textual := range []bool{false, true} {
			t.IDs, t.TextArguments = ids, textual
			if s, ok = sampleCalls(render, *t); ok {
				t.Calls = true
				t.Interrupts = interrupts(render, *t)
				return s, true
			}
		}
	}
	t.IDs, t.TextArguments = AnyID, false
	return s, false
}

// interrupts reports whether a message of the user may stand behind an answer of a tool.
func interrupts(render Render, t Traits) bool {
	c := withIDs(t.IDs, callOne)[0]
	text, err := render(&Probe{
		Messages: []Message{user(userText), calling(c), result(c), user(userText2)},
		Tools:    tools(), Answer: true, Traits: t,
	})
	return err == nil && inOrder(text, resultText, userText2)
}

// sampleCalls renders calls and returns what the template writes for them; ok is false if it does not
// write their names and arguments as they are.
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
	if err != nil || !whole(text) {
		return s, false
	}
	// The answer to the call must be taken, too.
	if answered, err := render(&Probe{
		Messages: []Message{user(userText), calling(calls[0]), result(calls[0])},
		Tools:    tools(), Answer: true, Traits: t,
	}); err != nil || !strings.Contains(answered, resultText) {
		return s, false
	}
	head := header(render, t, plain, text)
	cut := func(text string) string {
		text = text[min(head, len(text)):]
		return text[:len(text)-commonSuffix(text, foot)]
	}
	s.one = cut(text)
	if text, err = turn(calling(calls...)); err == nil && inOrder(text, toolOne, toolTwo) {
		s.two = cut(text)
	}
	both := calling(calls[0])
	both.Text = answerText
	if text, err = turn(both); err == nil && inOrder(text, answerText, toolOne) {
		s.withText = cut(text)
	}
	return s, true
}

// header returns the length of a message's beginning: the prompt, if the message with a call goes on from
// it, or what messages with and without a call share.
func header(render Render, t Traits, plain, text string) int {
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

// whole reports whether a template has written a call with all arguments, not as Python or as a text in a
// JSON string.
func whole(text string) bool {
	at := strings.LastIndex(text, toolOne)
	if at < 0 {
		return false
	}
	return inOrder(text[at+len(toolOne):], valuesOne...) && !strings.Contains(text, `'ka'`) && !strings.Contains(text, `\"ka\"`)
}

// readCalls divides a sample into the parts of a call.
func readCalls(s sample, t Traits) (shape Shape, c Calls, ok bool) {
	one, ok := splitCall(s.one, 0)
	if !ok {
		return NoCalls, c, false
	}
	before, end, begin := one.before, one.behind, one.before
	if s.two != "" {
		first, ok1 := splitCall(s.two, 0)
		second, ok2 := splitCall(s.two, 1)
		if ok1 && ok2 {
			from, to := first.until, second.from
			if from > to {
				return NoCalls, c, false
			}
			c.Several = true
			end, c.Separator, begin = divide(before, s.two[from:to], one.behind)
			c.Begin = strings.TrimSuffix(before, begin)
			c.End = strings.TrimPrefix(one.behind, end)
		}
	}
	if s.withText != "" {
		text, _, _ := strings.Cut(s.withText, toolOne)
		_, lead, _ := strings.Cut(text, answerText)
		c.Lead = lead[:len(lead)-len(strings.TrimLeftFunc(lead, unicode.IsSpace))]
	}
	c.Begin, begin = withoutLead(c.Begin, begin, &c.Lead)
	c.Call = pieces(t.IDs, begin, one.between, end)
	c.Param = one.param
	return shapeOf(&c, one), c, true
}

// withoutLead moves white space in front of the calls to the lead.
func withoutLead(begin, call string, lead *string) (string, string) {
	whole := begin + call
	space := len(whole) - len(strings.TrimLeftFunc(whole, unicode.IsSpace))
	if space == 0 {
		return begin, call
	}
	if *lead == "" {
		*lead = whole[:space]
	}
	if begin == "" {
		return begin, call[space:]
	}
	return begin[min(space, len(begin)):], call
}

// shapeOf names the shape of a call.
func shapeOf(c *Calls, s split) Shape {
	switch {
	case s.shape != Object:
		return s.shape
	case strings.HasSuffix(strings.TrimSpace(c.Begin), "["):
		return Array
	case inObject.MatchString(c.Begin + c.Call[0].Text):
		return Object
	}
	return Named
}

// inObject matches what stands before a name that is a member of a JSON object.
var inObject = regexp.MustCompile(`\{\s*("[^"]*":\s*"[^"]*",\s*)*("[^"]*":\s*)?"$`)

// A split is a call in a text: the texts around its name and its arguments.
type split struct {
	shape                   Shape // Object if the arguments are JSON
	before, between, behind string
	from, until             int // the name begins, the arguments end
	param                   Param
}

// splitCall finds call number i of a text.
func splitCall(text string, i int) (s split, ok bool) {
	name, key := []string{toolOne, toolTwo}[i], `"ka"`
	at := strings.Index(text, name)
	if at < 0 {
		return s, false
	}
	s.from, s.before = at, text[:at]
	rest := text[at+len(name):]
	if i == 0 { // the arguments of the other call are no arguments of this one
		if end := strings.Index(rest, toolTwo); end >= 0 {
			rest = rest[:end]
		}
	}
	if k := strings.Index(rest, key); k >= 0 {
		open := strings.LastIndexByte(rest[:k], '{')
		if open < 0 {
			return s, false
		}
		d := json.NewDecoder(strings.NewReader(rest[open:]))
		var args map[string]any
		if d.Decode(&args) != nil || len(args) != 4 {
			return s, false
		}
		end := open + int(d.InputOffset())
		s.shape, s.between, s.behind = Object, rest[:open], rest[end:]
		s.until = at + len(name) + end
		return s, true
	}
	return s, splitParams(&s, rest, at+len(name), i)
}

// pieces returns the pieces of a call from the texts around its name and its arguments.
func pieces(ids IDs, before, between, behind string) (all []Piece) {
	if rest, ok := strings.CutPrefix(between, ":0"); ok && ids == FunctionID {
		all = append(fixed(before), Piece{Kind: Name}, Piece{Kind: Fixed, Text: ":"}, Piece{Kind: Counter})
		all = append(all, fixed(rest)...)
	} else {
		all = append(fixed(before), Piece{Kind: Name})
		all = append(all, fixed(between)...)
	}
	return append(append(all, Piece{Kind: Arguments}), fixed(behind)...)
}

// fixed returns a fixed text as pieces: an id in it is a piece of its own.
func fixed(text string) (all []Piece) {
	add := func(text string) {
		if text != "" {
			all = append(all, Piece{Kind: Fixed, Text: text})
		}
	}
	for id, alphabet := range map[string]string{"call_z1": Words, "zid000001": Nine} {
		if before, behind, ok := strings.Cut(text, id); ok {
			add(before)
			all = append(all, Piece{Kind: ID, Text: alphabet})
			add(behind)
			return all
		}
	}
	add(text)
	return all
}
