package dialect

import "strings"

// Read determines the dialect and the traits of a template by rendering probes. It searches source, the template
// itself, for known variables and markers. If the template writes no calls, or its calls fit no shape, the dialect is
// one that a word in source identifies, or else [Generic]; its thoughts are those of the template in any case.
func Read(render Render, source string) (*Dialect, Traits) {
	t := readTraits(render)
	d := new(Dialect)
	s, ok := readTools(render, &t)
	thinking := readThinking(render, source, &t)
	if ok {
		s.withoutThoughts(&thinking)
		d.Shape, d.Calls, ok = readCalls(s, s.foot)
	}
	if ok {
		ok = d.family()
	}
	if ok {
		d.Calls.Space = readSpace(render, &t, d)
		d.Calls.Space.ASCII = escapes(render, &t, d)
		d.Calls.Param.None = readNone(render, &t, d)
		d.Calls.Param.Wrap = readWrap(render, &t, d)
		if d.Calls.Param.Raw = readRaw(render, &t, d); d.Calls.Param.Raw {
			d.Calls.Space.JSON, d.Calls.Space.Comma, d.Calls.Space.Colon = true, " ", " "
		}
	} else {
		t.Calls, t.IDs, t.TextArguments, t.NoContent = false, AnyID, false, false
		t.Results = takes(render, []Message{user(userText), assistant(answerText), result(callOne)}, answerText, resultText)
		if d = declareOnlyDialect(source, &t); d == nil {
			d = Generic()
			t.Tools = false
		}
	}
	d.Thinking = thinking
	d.Text = readText(render, &t, &d.Thinking)
	d.Thinking.lengthen(render, &t, &d.Text)
	d.Text.enclose(source)
	d.Stop = marker.FindString(footOf(render, t, nil))
	d.adjust()
	return d, t
}

// enclosed holds pairs of markers around a text. Some templates describe them in instructions to the model, but do not
// write them around the texts of the history.
var enclosed = [][2]string{{"<response>", "</response>"}}

// enclose sets Begins and End to the first known pair of markers in source, unless the template has shown markers of a
// text.
func (t *Text) enclose(source string) {
	for _, pair := range enclosed {
		if len(t.Begins) == 0 && strings.Contains(source, pair[0]+pair[1]) {
			t.Begins, t.End = []string{pair[0]}, pair[1]
		}
	}
}

// readText returns the marker in front of a text, or the white space there. The result is the zero value if the
// template refuses a probe, if it does not write an answer behind the prompt, or if its prompt does not begin an
// answer: there the header of a message would look like a marker.
func readText(render Render, t *Traits, th *Thinking) (text Text) {
	prompt, err := render(&Probe{Messages: []Message{user(userText)}, Answer: true, Traits: *t})
	if err != nil {
		return text
	}
	if bare, err := render(&Probe{Messages: []Message{user(userText)}, Traits: *t}); err != nil || bare == prompt {
		return text
	}
	answer, err := render(&Probe{Messages: []Message{user(userText), assistant(answerText)}, Traits: *t})
	if err != nil {
		return text
	}
	before, _, ok := strings.Cut(answer, answerText)
	if !ok {
		return text
	}
	// The history may leave out thoughts that the prompt has opened or closed.
	rest := ""
	for _, prompt := range []string{prompt, strings.TrimSuffix(prompt, th.Closed), strings.TrimSuffix(prompt, th.Begin)} {
		if rest, ok = strings.CutPrefix(before, prompt); ok {
			break
		}
	}
	if !ok {
		return text
	}
	if end := strings.TrimSpace(th.End); end != "" {
		if at := strings.LastIndex(rest, end); at >= 0 {
			rest = rest[at+len(end):]
		}
	}
	if strings.TrimSpace(rest) == "" {
		return Text{Lead: rest}
	}
	return Text{Begins: []string{rest}}
}
