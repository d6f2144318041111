package dialect

import (
	"encoding/json"
	"strings"
)

// A split is a call in a text: the texts around its name and its arguments.
type split struct {
	shape                   Shape // Object if the arguments are JSON
	before, between, behind string
	from, until             int // offsets where the name begins and the arguments end
	param                   Param
	nested                  string // the nested object, in shapes without JSON
}

// splitCall divides text around call number i, from 0; ok is false if it does not find the call.
func splitCall(text string, i int) (s split, ok bool) {
	name, key := []string{toolOne, toolTwo}[i], `"ka"`
	at := strings.Index(text, name)
	if at < 0 {
		return s, false
	}
	s.from, s.before = at, text[:at]
	rest := text[at+len(name):]
	if i == 0 { // do not read into the other call
		if end := strings.Index(rest, toolTwo); end >= 0 {
			rest = rest[:end]
		}
	}
	if open, end, ok := jsonArguments(rest, key); ok {
		s.shape, s.between, s.behind = Object, rest[:open], rest[end:]
		s.until = at + len(name) + end
		return s, true
	}
	return s, splitParams(&s, rest, at+len(name), i)
}

// jsonArguments returns the offsets of the beginning and the end of the JSON object with key; ok is false if there is
// no such object, or if it does not have four members.
func jsonArguments(text, key string) (from, until int, ok bool) {
	before, _, ok0 := strings.Cut(text, key)
	if !ok0 {
		return 0, 0, false
	}
	from = strings.LastIndexByte(before, '{')
	if from < 0 {
		return 0, 0, false
	}
	d := json.NewDecoder(strings.NewReader(text[from:]))
	var args map[string]any
	if d.Decode(&args) != nil || len(args) != 4 {
		return 0, 0, false
	}
	return from, from + int(d.InputOffset()), true
}
