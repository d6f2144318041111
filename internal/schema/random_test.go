package schema_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"

	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/schema"
)

// drawSchema draws a schema from the keywords that can be enforced.
func drawSchema(t *rapid.T, depth int) string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	n := func(most int) int { return rapid.IntRange(0, most).Draw(t, "n") }
	sub := func() string {
		if depth == 0 {
			return rapid.SampledFrom([]string{`true`, `{"type":"integer"}`, `{"type":"string","maxLength":2}`, `{"enum":[1,"a",null,true,0.5]}`, `{"$ref":"#/$defs/r"}`}).Draw(t, "leaf")
		}
		return drawSchema(t, depth-1)
	}
	name := func() string { return rapid.SampledFrom([]string{"a", "b", "c", "é"}).Draw(t, "name") }
	types := []string{"null", "boolean", "integer", "number", "string", "array", "object"}
	seen := make(map[string]bool)
	for range 1 + n(3) {
		keyword := rapid.SampledFrom([]string{
			"type", "type", "enum", "minimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "pattern", "format", "items", "prefixItems", "minItems", "maxItems", "contains",
			"properties", "properties", "required", "additionalProperties", "patternProperties", "minProperties", "maxProperties", "propertyNames", "allOf", "anyOf", "oneOf", "not", "if", "dependentRequired", "uniqueItems",
		}).Draw(t, "keyword")
		if seen[keyword] {
			continue
		}
		seen[keyword] = true
		switch keyword {
		case "type":
			add(`"type":["%s","%s"]`, types[n(6)], types[n(6)])
			if strings.Count(parts[len(parts)-1], types[0]) == 2 || duplicate(parts[len(parts)-1]) {
				parts[len(parts)-1] = `"type":"object"`
			}
		case "enum":
			add(`"enum":[1,%d.5,"a%d",null,[%d],{"a":%d}]`, n(3), n(3), n(3), n(3))
		case "minimum", "exclusiveMaximum":
			add(`"%s":%d`, keyword, n(40)-20)
		case "multipleOf":
			add(`"multipleOf":%s`, []string{"1", "3", "0.5", "10"}[n(3)])
		case "minLength", "minItems", "minProperties", "maxLength", "maxItems", "maxProperties":
			add(`"%s":%d`, keyword, n(3))
		case "pattern":
			add(`"pattern":"%s"`, []string{"^a", "b$", "^[a-c]*$", "é|x"}[n(3)])
		case "format":
			add(`"format":"%s"`, []string{"date", "time", "ipv4", "ipv6", "uuid", "email", "hostname", "uri", "duration", "json-pointer", "date-time", "uri-reference"}[n(11)])
		case "items", "contains", "additionalProperties", "not":
			add(`"%s":%s`, keyword, sub())
		case "prefixItems":
			add(`"prefixItems":[%s,%s]`, sub(), sub())
		case "properties":
			add(`"properties":{"%s":%s,"b2":%s}`, name(), sub(), sub())
		case "patternProperties":
			add(`"patternProperties":{"^%s":%s}`, name(), sub())
		case "propertyNames":
			add(`"propertyNames":{"pattern":"^[abc]"}`)
		case "required":
			add(`"required":["%s"]`, name())
		case "allOf", "anyOf", "oneOf":
			add(`"%s":[%s,%s]`, keyword, sub(), sub())
		case "if":
			add(`"if":%s,"then":%s,"else":%s`, sub(), sub(), sub())
		case "dependentRequired":
			add(`"dependentRequired":{"%s":["%s"]}`, name(), name())
		case "uniqueItems":
			add(`"uniqueItems":true`)
		}
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func duplicate(types string) bool {
	names := strings.Split(strings.Trim(strings.TrimPrefix(types, `"type":`), "[]"), ",")
	return len(names) == 2 && names[0] == names[1]
}

// drawText draws a text of a grammar: up to 40 random bytes, completed in the shortest way.
func drawText(t *rapid.T, source string, g *automaton.Grammar) string {
	a := automaton.New(g)
	c := a.Open()
	text := ""
	for range rapid.IntRange(0, 40).Draw(t, "bytes") {
		var fit []byte
		for _, b := range []byte("\"{}[]:,abc2x-1.0e5tfnulrsd é\xc3\xa9\n\\@/Z") {
			if c.Try([]byte{b}) {
				fit = append(fit, b)
			}
		}
		if len(fit) == 0 {
			break
		}
		b := rapid.SampledFrom(fit).Draw(t, "byte")
		c.Feed([]byte{b})
		text += string([]byte{b})
	}
	end, ok := c.Shortest(1 << 16)
	if !ok {
		t.Fatalf("%s: %q has no end", source, text)
	}
	for _, s := range end {
		text += string([]byte{byte(s)})
	}
	return text
}

// An independent validator accepts random texts of the grammars of random schemas. For some simple
// values, each grammar and the validator agree; if a schema is refused as empty, the validator accepts
// none of these values.
func TestRandomAgainstValidator(t *testing.T) {
	kept := 0
	rapid.Check(t, func(t *rapid.T) {
		source := drawSchema(t, 2)
		source = strings.TrimSuffix(source, "}") + `,"$defs":{"r":{"type":["array","null"],"items":{"$ref":"#/$defs/r"}}}}`
		s, err := schema.Compile([]byte(source), patient())
		if err != nil && !schema.Empty(err) {
			return
		}
		doc, jsonErr := jsonschema.UnmarshalJSON(strings.NewReader(source))
		if jsonErr != nil {
			t.Fatalf("%s: %v", source, jsonErr)
		}
		judge := jsonschema.NewCompiler()
		judge.AssertFormat()
		if err := judge.AddResource("schema.json", doc); err != nil {
			t.Fatalf("%s: %v", source, err)
		}
		judged, jsonErr := judge.Compile("schema.json")
		if jsonErr != nil {
			t.Fatalf("%s: %v", source, jsonErr)
		}
		validate := func(text string) error {
			v, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
			if err != nil {
				t.Fatalf("%s: %s: %v", source, text, err)
			}
			return judged.Validate(v)
		}
		if err == nil {
			kept++
			text := drawText(t, source, s.Grammar)
			if err := validate(text); err != nil {
				t.Fatalf("%s takes %s: %v", source, text, err)
			}
		}
		// The grammar accepts a simple value exactly if it is valid.
		for _, text := range []string{`null`, `true`, `1`, `0.5`, `-3`, `"a"`, `"b"`, `""`, `"2024-01-01"`, `[]`, `[1]`, `[null,null]`, `["a",1]`, `{}`, `{"a":1}`, `{"b":"a"}`, `{"c":null}`, `[[]]`} {
			taken := err == nil && fits(s.Grammar, text)
			if valid := validate(text) == nil; taken != valid {
				t.Fatalf("%s: %s is valid %v, taken %v", source, text, valid, taken)
			}
		}
	})
	if kept == 0 {
		t.Error("no schema was kept")
	}
}
