package schema_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/schema"
)

// patient returns a budget of a minute for tests that do not measure time, because they must pass
// on a busy machine.
func patient() *automaton.Budget { return &automaton.Budget{Time: time.Minute} }

func compile(tb testing.TB, source string) *automaton.Grammar {
	tb.Helper()
	s, err := schema.Compile([]byte(source), patient())
	if err != nil {
		tb.Fatalf("%s: %v", source, err)
	}
	return s.Grammar
}

// The grammar of each schema accepts the texts in yes and refuses the texts in no. White space and the
// spelling of values matter.
func TestTexts(t *testing.T) {
	for source, test := range map[string]struct{ yes, no []string }{
		`true`: {
			[]string{`null`, `1e5`, `-0.5`, `"é\n\u001f"`, `[]`, `[1, "a"]`, `{}`, `{"a":{"a":1}, "b": 2}`, "{\n  \"a\": [\n    1\n  ]\n}"},
			[]string{``, `01`, `1.`, `"\u0041"`, `"\u000a"`, `[1 ,2]`, `{"a" :1}`, `{"a":1,"a":2}`, `{"a":{"b":1,"b":1}}`, "[\t1]", "[\r\n1]", `nul`, ` 1`, `1e1234`, `{"a":  1}`},
		},
		`{"type":["integer","null"]}`:                                        {[]string{`0`, `-7`, `null`}, []string{`-0`, `1.0`, `1e2`, `true`}},
		`{"type":"number","minimum":0.5,"exclusiveMaximum":10}`:              {[]string{`0.5`, `0.50`, `9.999`, `1`}, []string{`0.49`, `10`, `1e0`, `-1`}},
		`{"type":"integer","minimum":0,"exclusiveMinimum":true,"maximum":3}`: {[]string{`1`, `3`}, []string{`0`, `4`}},
		`{"multipleOf":0.25,"type":"number"}`:                                {[]string{`0.75`, `-2`, `1.250`}, []string{`0.3`}},
		`{"enum":[1,2.50,"a\"b",null,[1],{"a":1}]}`:                          {[]string{`1`, `2.5`, `"a\"b"`, `null`, `[1]`, `{"a":1}`}, []string{`2.50`, `1.0`, `[1,1]`, `{}`, `{"a":1,"b":2}`, `3`}},
		`{"const":{"b":[true],"a":""}}`:                                      {[]string{`{"b":[true],"a":""}`}, []string{`{"a":"","b":[true]}`, `{"b":[true]}`}},
		`{"type":"string","minLength":1,"maxLength":2}`:                      {[]string{`"é"`, `"🙂🙂"`, `"\n\""`}, []string{`""`, `"abc"`}},
		`{"type":"string","pattern":"b+$","maxLength":3}`:                    {[]string{`"b"`, `"abb"`}, []string{`"aabb"`, `"ba"`}},
		`{"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string"}},"required":["c","b"]}`: {
			[]string{`{"b":"","c":1}`, `{"a":1,"b":"","c":null,"x":1,"d":2}`},
			[]string{`{"b":""}`, `{"c":1,"b":""}`, `{"b":"","a":1,"c":1}`, `{"b":"","c":1,"c":2}`, `{"b":"","c":1,"x":1,"x":1}`, `{"b":"","c":1,"a":2}`, `{"b":"","c":1,"x":1,"a":2}`},
		},
		`{"type":"object","properties":{"a":{}},"patternProperties":{"^x":{"type":"integer"},"y$":{"minimum":5}},"additionalProperties":{"type":"string"}}`: {
			[]string{`{}`, `{"a":[],"x":1,"zy":"q","xy":5,"b":"s"}`}, []string{`{"x":"s"}`, `{"xy":4}`, `{"b":1}`, `{"xy":"s"}`},
		},
		`{"type":"object","propertyNames":{"pattern":"^[ab]$"},"minProperties":1}`:                                                {[]string{`{"a":1}`, `{"b":1,"a":2}`}, []string{`{}`, `{"c":1}`, `{"a":1,"a":2}`}},
		`{"type":"object","properties":{"a":{},"b":{},"c":{}},"additionalProperties":false,"minProperties":2,"maxProperties":2}`:  {[]string{`{"a":1,"c":2}`, `{"b":1,"c":1}`}, []string{`{"a":1}`, `{"a":1,"b":1,"c":1}`, `{"c":1}`}},
		`{"type":"array","prefixItems":[{"type":"integer"},{"type":"string"}],"items":{"type":"null"},"minItems":1,"maxItems":3}`: {[]string{`[1]`, `[1,"a"]`, `[1,"a",null]`}, []string{`[]`, `["a"]`, `[1,null]`, `[1,"a",null,null]`}},
		`{"type":"array","items":[{"type":"integer"}],"additionalItems":false}`:                                                   {[]string{`[]`, `[1]`}, []string{`[1,2]`, `["a"]`}},
		`{"type":"array","contains":{"const":1},"minContains":2,"maxContains":2,"items":{"type":"integer"}}`:                      {[]string{`[1,1]`, `[1,5,1]`}, []string{`[1]`, `[1,1,1]`, `[1,1,"a"]`}},
		`{"type":"array","contains":{"type":"string"}}`:                                                                           {[]string{`["a"]`, `[1,"a",2]`}, []string{`[]`, `[1]`}},
		`{"type":"array","uniqueItems":true,"items":{"type":["string","boolean"]}}`:                                               {[]string{`[]`, `["a",true,"b",false]`, `["true",true]`, "[\n \"a\",\n \"b\"\n]"}, []string{`["a","a"]`, `[true,false,true]`, `["a", "a"]`}},
		`{"type":"array","uniqueItems":true,"items":{"type":"number"}}`:                                                           {[]string{`[1,1.5,-2]`}, []string{`[1,1.0]`, `[1,1]`, `[0,-0]`}},
		`{"anyOf":[{"type":"array","uniqueItems":true,"items":{"type":"integer"}},{"type":"array","items":{"type":"integer"},"minItems":3}]}`: {
			[]string{`[]`, `[1,2]`, `[1,1,1]`, `[1,1,2]`, `[1,2,1,2]`, `[12,1]`, "[\n 7,\n 7,\n 8\n]"}, []string{`[1,1]`, `["a"]`, `[1, 1]`, "[\n 1,\n 1\n]"},
		},
		`{"anyOf":[{"type":"array","uniqueItems":true,"items":{"enum":["a","ab"]}},{"type":"array","uniqueItems":true,"items":{"enum":["a",1]},"minItems":2}]}`: {
			[]string{`["a"]`, `["ab","a"]`, `[1,"a"]`, `["a",1]`}, []string{`[1]`, `["a","a"]`, `["ab",1]`, `[1,"a",1]`},
		},
		`{"type":"object","properties":{"k":{"enum":["u","m"]},"v":{}},"anyOf":[{"properties":{"k":{"const":"u"},"v":{"type":"array","uniqueItems":true,"items":{"type":"boolean"}}}},{"properties":{"v":{"type":"array","items":{"type":"boolean"},"minItems":2}}}]}`: {
			[]string{`{"k":"u","v":[true]}`, `{"k":"u","v":[true,true]}`, `{"k":"m","v":[true,true]}`}, []string{`{"k":"m","v":[true]}`},
		},
		`{"type":"object","required":["k","v"],"oneOf":[{"properties":{"k":{"enum":["a"]},"v":{"type":"integer"}}},{"properties":{"k":{"enum":["b"]},"v":{"type":"array","items":{"type":"integer"}}}},{"properties":{"k":{"enum":["c"]},"v":{"type":"array","items":{"type":"string"}}}}]}`: {
			[]string{`{"k":"a","v":1}`, `{"k":"b","v":[1]}`, `{"k":"c","v":["x"]}`}, []string{`{"k":"a","v":[1]}`, `{"k":"c","v":[1]}`, `{"k":"d","v":1}`, `{"v":1}`},
		},
		`{"allOf":[{"type":"object","properties":{"a":{"type":"integer"}}},{"properties":{"b":{"type":"null"},"a":{"minimum":3}},"required":["a"]}]}`:                                          {[]string{`{"a":3,"b":null}`}, []string{`{"a":2}`, `{"b":null,"a":3}`, `{}`}},
		`{"oneOf":[{"type":"integer","multipleOf":2},{"type":"integer","multipleOf":3}]}`:                                                                                                      {[]string{`2`, `3`, `9`}, []string{`6`, `1`, `0`}},
		`{"oneOf":[{"properties":{"k":{"const":"a"},"v":{"type":"integer"}},"required":["k","v"]},{"properties":{"k":{"const":"b"}},"required":["k"]}],"type":"object"}`:                       {[]string{`{"k":"a","v":1}`, `{"k":"b"}`}, []string{`{"k":"a"}`, `{"k":"c"}`}},
		`{"type":"object","properties":{"a":{"type":"boolean"},"b":{}},"if":{"properties":{"a":{"const":true}},"required":["a"]},"then":{"required":["b"]},"else":{"properties":{"b":false}}}`: {[]string{`{"a":true,"b":1}`, `{"a":false}`, `{}`}, []string{`{"a":true}`, `{"a":false,"b":1}`, `{"b":1}`}},
		`{"type":"object","properties":{"a":{},"b":{}},"additionalProperties":false,"dependentRequired":{"a":["b"]}}`:                                                                          {[]string{`{}`, `{"b":1}`, `{"a":1,"b":2}`}, []string{`{"a":1}`}},
		`{"type":"object","properties":{"a":{}},"not":{"properties":{"a":{}},"additionalProperties":{"type":"integer"}}}`: {
			[]string{`{"b":"x"}`, `{"a":1,"b":1,"c":""}`, `{"b":null,"c":1}`}, []string{`{}`, `{"a":"x"}`, `{"b":1}`, `{"a":1,"b":1,"c":2}`, `{"b":"x","b":1}`},
		},
		`{"type":"object","not":{"properties":{"a":{},"b":{}},"additionalProperties":false},"properties":{"c":{"type":"integer"}},"maxProperties":2}`: {
			[]string{`{"c":1}`, `{"a":1,"d":1}`, `{"c":1,"a":1}`, `{"x":1,"y":1}`}, []string{`{}`, `{"a":1}`, `{"b":1,"a":1}`, `{"c":"x"}`, `{"a":1,"b":1,"c":1}`},
		},
		`{"type":"object","oneOf":[{"properties":{"a":{"type":"integer"}},"additionalProperties":false},{"properties":{"b":{"type":"string"}},"additionalProperties":false}]}`: {
			[]string{`{"a":1}`, `{"b":"x"}`}, []string{`{}`, `{"a":1,"b":"x"}`, `{"a":""}`, `{"c":1}`},
		},
		`{"type":"object","not":{"not":{"patternProperties":{"^x":{"type":"integer"}}}}}`:                                                       {[]string{`{}`, `{"x":1,"y":"a"}`}, []string{`{"x":"a"}`}},
		`{"type":"object","not":{"patternProperties":{"^x":{"type":"integer"}}}}`:                                                               {[]string{`{"xy":"a"}`, `{"y":1,"x":null,"x1":1}`}, []string{`{}`, `{"x":1}`, `{"y":"a"}`}},
		`{"type":"object","not":{"propertyNames":{"maxLength":2}}}`:                                                                             {[]string{`{"abc":1}`, `{"a":1,"abc":2}`}, []string{`{}`, `{"ab":1}`}},
		`{"type":"string","format":"email","minLength":3,"maxLength":2000}`:                                                                     {[]string{`"a@b"`}, []string{`"a"`}},
		`{"type":"string","not":{"enum":["a","b"]}}`:                                                                                            {[]string{`"c"`, `""`, `"ab"`}, []string{`"a"`, `"b"`}},
		`{"type":"object","properties":{"next":{"$ref":"#"},"v":{"type":"integer"}},"required":["v"],"additionalProperties":false}`:             {[]string{`{"v":1}`, `{"next":{"next":{"v":1},"v":2},"v":3}`}, []string{`{"next":{},"v":1}`}},
		`{"$id":"https://example.com/a","$ref":"b#x","$defs":{"q":{"$id":"b","$defs":{"y":{"$anchor":"x","type":"null"}}}}}`:                    {[]string{`null`}, []string{`1`}},
		`{"type":"string","format":"date"}`:                                                                                                     {[]string{`"2024-02-29"`, `"2000-02-29"`}, []string{`"2023-02-29"`, `"1900-02-29"`, `"2024-13-01"`, `"24-01-01"`}},
		`{"$schema":"http://json-schema.org/draft-07/schema#","$ref":"#/definitions/a","type":"string","definitions":{"a":{"type":"integer"}}}`: {[]string{`1`}, []string{`"a"`}},
	} {
		g := compile(t, source)
		for _, text := range test.yes {
			if !fits(g, text) {
				t.Errorf("%s refuses %s", source, text)
			}
		}
		for _, text := range test.no {
			if fits(g, text) {
				t.Errorf("%s takes %s", source, text)
			}
		}
	}
}

// Keywords that cannot be enforced are refused by name and pointer. The refusal of a whole schema has
// neither.
func TestRefused(t *testing.T) {
	for source, want := range map[string]string{
		`{"properties":{"a/b":{"pattern":"(?=x)"}}}`: `/properties/a~1b/pattern pattern look-around`,
		`{"items":{"unevaluatedProperties":false}}`:  `/items/unevaluatedProperties unevaluatedProperties cannot be enforced`,
		`{"$dynamicRef":"#x"}`:                       `/$dynamicRef $dynamicRef cannot be enforced`,
		`{"type":"thing"}`:                           `/type type the name of a type`,
		`{"$ref":"other.json"}`:                      `/$ref $ref does not point to`,
		`{"$ref":"#"}`:                               `/$ref $ref back to itself`,
		`{"allOf":[{"$ref":"#/$defs/a"}],"$defs":{"a":{"anyOf":[{"$ref":"#"}]}}}`: `/$defs/a/anyOf/0/$ref $ref back to itself`,
		`{"$schema":"https://example.com/mine"}`:                                  `/$schema $schema an unknown dialect`,
		`{"format":"idn-email"}`:                                                  `/format format cannot be enforced`,
		`{"type":"array","uniqueItems":true}`:                                     `/uniqueItems uniqueItems unique items`,
		`{"type":"object","propertyNames":{"enum":["a","b"]},"not":{"additionalProperties":{"type":"integer"}}}`: `  undeclared members`,
		`{"not":{"format":"email"}}`:                       `/not not opposite of this format`,
		`{"multipleOf":0.123456789}`:                       `/multipleOf multipleOf too many digits`,
		`{"minLength":-1}`:                                 `/minLength minLength not negative`,
		`{"required":"a"}`:                                 `/required required a list of names`,
		`{"pattern":"^[a-z]*x[a-z]*$","minLength":100000}`: `/minLength minLength too large for bounds`,
		`{"type":"integer","minimum":3,"maximum":2}`:       `  no value satisfies it`,
		`{"type":"string","minLength":40000}`:              `  its shortest value has more than 32768 bytes`,
		`{"not":{}}`:                                       `  no value satisfies it`,
		`false`:                                            `  no value satisfies it`,
		`{"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]}`:          `  no value satisfies it`,
		`{"type":"object","properties":{"a":false},"required":["a"]}`:                 `  no value satisfies it`,
		`{"type":"array","uniqueItems":true,"items":{"type":"boolean"},"minItems":3}`: `/minItems minItems number of different items`,
		`{"type":"object","propertyNames":{"enum":["a","b"]},"minProperties":3}`:      `  no value satisfies it`,
	} {
		_, err := schema.Compile([]byte(source), patient())
		r, ok := errors.AsType[schema.RefusedError](err)
		if !ok {
			t.Errorf("%s: %v", source, err)
			continue
		}
		pointer, rest, _ := strings.Cut(want, " ")
		keyword, why, _ := strings.Cut(rest, " ")
		if r[0].Pointer != pointer || r[0].Keyword != keyword || !strings.Contains(r[0].Why, why) {
			t.Errorf("%s: %+v, want %s", source, r[0], want)
		}
	}
	// All refusals are named, not only the first.
	_, err := schema.Compile([]byte(`{"properties":{"a":{"format":"iri"},"b":{"unevaluatedItems":false},"c":{"pattern":"\\1"}}}`), nil)
	if r, ok := errors.AsType[schema.RefusedError](err); !ok || len(r) != 3 {
		t.Errorf("got %v, want three refusals", err)
	}
}

func TestNesting(t *testing.T) {
	g := compile(t, `true`)
	for n, want := range map[int]bool{1: true, 128: true, 129: false} {
		if got := fits(g, strings.Repeat("[", n)+strings.Repeat("]", n)); got != want {
			t.Errorf("depth %d: %v", n, got)
		}
	}
}

func TestNoSchema(t *testing.T) {
	for _, source := range []string{``, `{`, `[]`, `1`, `"a"`, `{"a":1,"a":2}`, `{"a":"\ud800"}`, "{\"a\":\"\xff\"}", `{} {}`, `{"type":01}`, strings.Repeat(`{"not":`, 1000) + `{}` + strings.Repeat(`}`, 1000)} {
		_, err := schema.Compile([]byte(source), patient())
		if _, ok := errors.AsType[*schema.SyntaxError](err); !ok {
			t.Errorf("%.30s: %v", source, err)
		}
	}
}

func TestAnnotations(t *testing.T) {
	s, err := schema.Compile([]byte(`{"title":"x","format":"color","contentEncoding":"base64","x-order":1,"items":{"format":"date"}}`), nil)
	if err != nil || fmt.Sprint(s.Annotations) != "[/contentEncoding /format /x-order]" {
		t.Errorf("%v, %v", s, err)
	}
}

// Schemas from public issues of other engines are enforced. The names of the cases begin with the issue
// (L: llama.cpp).
func TestPublicFailures(t *testing.T) {
	for name, test := range map[string]struct {
		schema  string
		yes, no []string
	}{
		"L#19051 an escape in a pattern":      {`{"type":"string","pattern":"^\\d{3}\\-\\w+$"}`, []string{`"123-a"`}, []string{`"x"`, `"12-a"`}},
		"L#25895 a pattern inside items":      {`{"type":"array","items":{"type":"string","pattern":"^[a-z]{2}$"}}`, []string{`["ab","cd"]`}, []string{`["abc"]`, `["A"]`}},
		"L#19716 no type":                     {`{"properties":{"a":{"type":"integer"}},"required":["a"]}`, []string{`{"a":1}`, `3`}, []string{`{}`, `{"a":"x"}`}},
		"L#17574 not of everything":           {`{"type":"object","properties":{"a":{"not":{}},"b":{"type":"integer"}},"required":["b"]}`, []string{`{"b":1}`}, []string{`{"a":1,"b":1}`}},
		"L#19051 classes in a pattern":        {`{"type":"string","pattern":"^[\\d_]\\S$"}`, []string{`"1a"`, `"__"`}, []string{`"a1"`, `"1 "`}},
		"L#7703 oneOf beside properties":      {`{"type":"object","properties":{"k":{"type":"string"}},"required":["k"],"oneOf":[{"properties":{"v":{"type":"integer"}},"required":["v"]},{"properties":{"w":{"type":"integer"}},"required":["w"],"not":{"required":["v"]}}]}`, []string{`{"k":"","v":1}`, `{"k":"","w":1}`}, []string{`{"v":1}`, `{"k":""}`, `{"k":"","v":"x"}`}},
		"L#23677 control characters are text": {`{"type":"string"}`, []string{`"<end_of_turn>"`}, []string{"\"\x00\"", "\"\n\""}},
	} {
		t.Run(name, func(t *testing.T) {
			g := compile(t, test.schema)
			for _, text := range test.yes {
				if !fits(g, text) {
					t.Errorf("refuses %s", text)
				}
			}
			for _, text := range test.no {
				if fits(g, text) {
					t.Errorf("takes %s", text)
				}
			}
		})
	}
	t.Run("L#19051 an escape that is unknown is refused", func(t *testing.T) {
		if _, err := schema.Compile([]byte(`{"type":"string","pattern":"^\\y$"}`), nil); err == nil {
			t.Error("taken")
		}
	})
}

func FuzzCompile(f *testing.F) {
	for _, s := range []string{
		`{"type":"object","properties":{"a":{"$ref":"#"}}}`, `{"allOf":[{"minimum":1},{"not":{"multipleOf":2}}]}`, `{"oneOf":[{"const":1},{"pattern":"a"}]}`,
		`{"anyOf":[{"type":"array","uniqueItems":true,"items":{"enum":[1,"a"]}},{"items":{"type":"integer"},"minItems":2}]}`,
		`{"type":"object","patternProperties":{"^a":{"type":"null"}},"additionalProperties":{"maxLength":3},"minProperties":2,"propertyNames":{"maxLength":2}}`,
		`{"type":"array","prefixItems":[{"const":1}],"contains":{"type":"string"},"minContains":2,"maxContains":3,"maxItems":9}`,
		`{"if":{"required":["a"]},"then":{"required":["b"]},"else":{"dependentRequired":{"c":["d"]}}}`,
		`{"$id":"x:y","$ref":"#b","$defs":{"c":{"$anchor":"b","format":"date-time","maxLength":30}}}`,
		`{"enum":[1.50,-0,1e400,"\ud83d\ude00",{"a":[null]}]}`, `{"not":{"not":{"not":{"type":["string","null"]}}}}`, `{"type":"string","pattern":"(a*)*b$","minLength":3}`,
		`{"minimum":1e300,"exclusiveMaximum":true,"maximum":0.1}`, `{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/a"}}}`, `true`, `{"type":`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, source []byte) {
		s, err := schema.Compile(source, &automaton.Budget{Bytes: 8 << 20})
		if err != nil {
			return
		}
		a := automaton.New(s.Grammar)
		c := a.Open()
		end, ok := c.Shortest(1 << 16)
		if !ok && a.Cost(c.State()) < 1<<15 {
			t.Fatalf("%s: no end", source)
		}
		var text []byte
		for _, s := range end {
			text = append(text, byte(s))
		}
		if ok && (!c.Feed(text) || !c.MayEnd() || !json.Valid(text)) {
			t.Fatalf("%s: Shortest = %s", source, bytes.TrimSpace(text))
		}
	})
}
