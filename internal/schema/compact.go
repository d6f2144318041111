package schema

import (
	"strconv"
	"strings"
)

// Compact returns a JSON value as the grammars spell it: without white space, with members in their
// order and numbers as written. The error is a [*SyntaxError].
func Compact(src []byte) (string, error) {
	v, err := parseJSON(src)
	if err != nil {
		return "", err
	}
	var s strings.Builder
	v.write(&s)
	return s.String(), nil
}

func (v *value) write(s *strings.Builder) {
	switch v.kind {
	case jsonNull:
		s.WriteString("null")
	case jsonBool:
		s.WriteString(strconv.FormatBool(v.truth))
	case jsonNumber:
		s.WriteString(v.text)
	case jsonString:
		s.WriteString(`"` + inner(v.text) + `"`)
	case jsonArray, jsonObject:
		brackets := "[]"
		if v.kind == jsonObject {
			brackets = "{}"
		}
		s.WriteByte(brackets[0])
		for i, item := range v.items {
			if i > 0 {
				s.WriteByte(',')
			}
			if v.kind == jsonObject {
				s.WriteString(`"` + inner(v.names[i]) + `":`)
			}
			item.write(s)
		}
		s.WriteByte(brackets[1])
	}
}
