package dialect

import (
	"slices"
	"strings"
)

// readNone returns the white space that a template writes in place of the arguments in a call without arguments. It is
// empty in shapes other than Params.
func readNone(render Render, t *Traits, d *Dialect) string {
	name := slices.IndexFunc(d.Calls.Call, func(p Piece) bool { return p.Kind == Name })
	if d.Shape != Params || len(d.Calls.Call) != name+4 {
		return ""
	}
	text, err := render(&Probe{
		Messages: []Message{user(userText), calling(withIDs(t.IDs, Call{ID: callOne.ID, Name: toolOne, Arguments: "{}"})[0])},
		Tools:    tools(), Traits: *t,
	})
	_, behind, ok := strings.Cut(text[strings.LastIndex(text, toolOne)+1:], d.Calls.Call[name+1].Text)
	none, _, ends := strings.Cut(behind, d.Calls.Call[name+3].Text)
	if err != nil || !ok || !ends || strings.TrimSpace(none) != "" {
		return ""
	}
	return none
}

// wrappable are the characters that are tried in values: a template may wrap a value that contains one of them.
const wrappable = "<>&\n\"'"

// readWrap returns the markers that a template writes around values that contain certain characters, and these
// characters.
func readWrap(render Render, t *Traits, d *Dialect) (w Wrap) {
	if d.Shape != Params {
		return w
	}
	p := &d.Calls.Param
	// value returns the texts that the template writes in front of and behind a value. The value is text itself, or,
	// if before is not empty, JSON: text as a string between before and behind.
	value := func(before, text, behind string) (open, end string, ok bool) {
		c := Call{ID: callOne.ID, Name: toolOne, Arguments: `{"ka": ` + before + `"` + jsonText(text) + `"` + behind + `}`}
		all, err := render(&Probe{Messages: []Message{user(userText), calling(withIDs(t.IDs, c)[0])}, Tools: tools(), Traits: *t})
		_, all, ok = strings.Cut(all[strings.LastIndex(all, toolOne)+1:], p.Open+"ka"+p.Middle)
		spelt := text
		if before != "" {
			spelt = pythonSpace.spell(before + `"` + jsonText(text) + `"` + behind)
		}
		open, all, found := strings.Cut(all, spelt)
		end, _, ends := strings.Cut(all, p.Close)
		return open, end, err == nil && ok && found && ends
	}
	for _, c := range wrappable {
		open, end, ok := value("", thoughtText+string(c)+thoughtText, "")
		switch {
		case !ok || open == "" || end == "":
		case w.Of == "":
			w = Wrap{Open: open, Close: end, Of: string(c)}
		case w.Open == open && w.Close == end:
			w.Of += string(c)
		}
	}
	if w.Of != "" {
		open, end, ok := value("[", thoughtText+w.Of[:1]+thoughtText, "]")
		w.JSON = ok && open == w.Open && end == w.Close
	}
	return w
}

// splitParams finds the arguments of call number i in rest, the text behind its name: keys with raw values, or with
// values between quotes. from is the offset of rest in the whole text. It records them in s, and reports whether it
// found them.
func splitParams(s *split, rest string, from, i int) bool {
	digit := string(rune('1' + i))
	type pos struct{ at, end int }
	var found []pos
	next := 0
	for _, word := range []string{"ka", "Zva" + digit + "z", "kb", "Zvb" + digit + "z", "kc", "4" + digit, "kd", "Zve" + digit + "z"} {
		at := strings.Index(rest[next:], word)
		if at < 0 {
			return false
		}
		found = append(found, pos{next + at, next + at + len(word)})
		next += at + len(word)
	}
	between := func(a, b int) string { return rest[found[a].end:found[b].at] }
	middle, plain := between(0, 1), between(4, 5)
	after := between(1, 2)
	last := strings.IndexByte(rest[next:], '}') + 1 // of the nested object
	if last == 0 {
		return false
	}
	end := next + last
	s.nested = rest[found[6].end:end]
	s.nested = s.nested[strings.IndexByte(s.nested, '{'):]
	s.between, s.behind, s.until = rest[:found[0].at], rest[end:], from+end
	quote, isQuoted := strings.CutPrefix(middle, plain)
	isQuoted = isQuoted && quote != "" && strings.HasPrefix(after, quote) && !strings.HasSuffix(plain, ">") && !strings.HasSuffix(plain, "\n")
	switch {
	case isQuoted && plain == "=":
		s.shape = Python
		s.param = Param{Middle: plain, Separator: strings.TrimPrefix(after, quote), Quote: quote}
	case isQuoted:
		s.shape = Literal
		s.param = Param{Middle: plain, Separator: strings.TrimPrefix(after, quote), Quote: quote}
	default:
		s.shape = Params
		closing, separator, open := divide(s.between, after, s.behind)
		s.param = Param{Open: open, Middle: middle, Close: closing, Separator: separator}
		if plain != middle {
			s.param.MiddleJSON = plain
		}
		s.between = strings.TrimSuffix(s.between, open)
		s.behind = strings.TrimPrefix(s.behind, closing)
		s.until += len(closing)
	}
	return true
}
