package schema_test

import (
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/schema"
)

// plainly writes a marker as its bytes. An end tag or a quote has the mark Commit, so that its first
// occurrence ends a raw value.
func plainly(b *automaton.Builder, text string, mark automaton.Mark, next automaton.Node) automaton.Node {
	if text == "</>" || text == "|" {
		next = b.Mark(automaton.Commit, next)
	}
	if text == "" {
		return next
	}
	return b.Bytes(text[:1], b.Mark(mark, b.Bytes(text[1:], next)))
}

// tagEnd is the mark at the end tag of a value that is JSON. Only these tests use it.
const tagEnd = automaton.User

// ended writes the end tag of a value. If the value is JSON, the tag has the mark tagEnd.
func ended(b *automaton.Builder, of schema.Value, next automaton.Node) automaton.Node {
	if of == schema.JSON {
		next = b.Mark(tagEnd, next)
	}
	return plainly(b, "</>", 0, next)
}

// Notations for the tests: tagged and bare spell members as tagged parameters with raw strings,
// keyword as the keyword arguments of Python, and inBraces and literal as literals with unquoted
// names and strings between bars. Only in literal does the outermost object have braces.
var (
	tagged  = &schema.Notation{Write: plainly, Bare: true, Open: "<", Middle: ">", Close: "</>", End: ended}
	bare    = &schema.Notation{Write: plainly, Bare: true, Open: "<", Middle: ">", Close: "</>", None: ".", End: ended}
	keyword = &schema.Notation{
		Write: plainly, Bare: true, Middle: "=", Separator: ", ", Around: "'", Null: "None", False: "False", True: "True", Spaced: true, Comma: " ", Colon: " ",
	}
	inBraces = &schema.Notation{Write: plainly, Bare: true, Middle: ":", Separator: ",", Quote: "|", Null: "None"}
	literal  = &schema.Notation{Write: plainly, Middle: ":", Separator: ",", Quote: "|", Null: "None"}
)

// Objects in a notation have the members that the schema allows. An undeclared member never has the
// name of a declared one, because its value would then escape the declared member's schema.
func TestNotations(t *testing.T) {
	const object = `{"type":"object","properties":{"a":{"type":"integer"},"s":{"type":["string","null"]}},"required":["a"]}`
	for name, test := range map[string]struct {
		notation *schema.Notation
		schema   string
		yes, no  []string
	}{
		"tagged": {
			tagged, object,
			[]string{`<a>1</>`, `<a>1</><s>"x</>`, `<a>1</><s>null</>`, `<a>1</><b>{"x": 1}</>`, `<a>1</><ab>x</><as>y</>`, `<a>1</><s>x</><b>y</>`},
			[]string{``, `<a>x</>`, `<s>x</><a>1</>`, `<a>1</><b>x</><b>y</>`, `<a>1</><b>{"x": 1 </><b>y</>`, `<a>1</><a>2</>`, `<a>1</><b>x</><a>2</>`, `<a>1</><s>x</><b>y</><s>z</>`, `<a>1</><b>x</><s>y</>`, `<a>1</><1>x</>`, `{"a":1}`},
		},
		"tagged, by pattern": {
			tagged, `{"type":"object","properties":{"a1":{"type":"integer"}},"patternProperties":{"^a":{"type":"integer","minimum":3}},"additionalProperties":false}`,
			[]string{``, `<a1>3</>`, `<a2>3</>`, `<a1>7</><a2>4</>`},
			[]string{`<a1>x</>`, `<a1>2</>`, `<a2>2</>`, `<a2>x</>`, `<b>1</>`, `<a2>4</><a1>2</>`},
		},
		"tagged, without members": {
			bare, `{"type":"object","properties":{"a":{"type":"integer"}},"additionalProperties":false}`,
			[]string{`.`, `<a>1</>`},
			[]string{``, `.<a>1</>`, `<a>1</>.`},
		},
		"keywords": {
			keyword, object,
			[]string{`a=1`, `a=1, s=''`, `a=1, s='it's'`, `a=1, s='\'`, `a=1, s=None`, `a=1, b=[]`, `a=1, b=['x', "it's", 'a "b"', '\'"', [None, True, {'k': 1, "k'": {'z': []}}]]`, `a=1, b={"k": ["it's", null, true]}`},
			[]string{`a=1, b='', b=1`, `a=1, s="x"`, `a=1, s=null`, `a=1, b=["x"]`, `a=1, b=['it\'s']`, `a=1, b=[null]`, `a=1, b=[{'k': 1, 'k': 2}]`, `a=1, b={'k': 1}`, `a=1, b={"k": None}`, `a=1, b=[1,2]`, `a=1, b={"k":1}`},
		},
		"lists of keywords": {
			keyword, `{"type":"object","properties":{"l":{"type":"array","uniqueItems":true,"items":{"type":"string","maxLength":2}},"long":{"type":"array","items":{"type":"string","maxLength":100000000}},` +
				`"o":{"type":"array","items":{"type":"object","properties":{"it's":{"const":"it's"}},"required":["it's"],"additionalProperties":{"type":"string"}}}},"additionalProperties":false}`,
			[]string{`l=['a', "'"]`, `l=['\'"']`, `long=['it\'s', 'x']`, `o=[{"it's": "it's", 'x': 'y'}]`},
			[]string{`l=['a', 'a']`, `l=["'", "'"]`, `l=['abc']`, `o=[{'x': 'y'}]`, `o=[{"it's": "it's", "it's": 'y'}]`, `o=[{"it's": 'it\'s'}]`},
		},
		"literal": {
			literal, object,
			[]string{`{a:1}`, `{a:1,s:|x"|}`, `{a:1,s:None}`, `{a:1,b:{c:|x|}}`, `{a:1,aa:[1,None]}`},
			[]string{`{}`, `{a:|x|}`, `{"a":1}`, `{a:1,a:|x|}`, `{a:1,b:1,s:2}`, `{a:1,b:1,b:2}`, `{a:1,b:null}`},
		},
		"literal, without braces": {
			inBraces, object,
			[]string{`a:1,b:1,ba:2`, `a:1,b:{b:1,c:{b:1}}`, `a:1,b:|,b:|`},
			[]string{`a:1,b:1,b:2`, `a:1,b:1,ba:2,b:3`, `a:1,b:|x|,b:2`, `a:1,b:{c:1,c:2}`, `a:1,b:{c:1},b:2`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := schema.CompileObject([]byte(test.schema), test.notation, patient())
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range test.yes {
				if !fits(s.Grammar, text) {
					t.Errorf("refuses %s", text)
				}
			}
			for _, text := range test.no {
				if fits(s.Grammar, text) {
					t.Errorf("takes %s", text)
				}
			}
		})
	}
}

// In arrays that are spelt as Python's repr spells them, a pattern is refused if the bound on the length beside it is
// too large to be enforced. A bound without a pattern is enforced.
func TestNotationRefuses(t *testing.T) {
	const source = `{"type":"object","properties":{"l":{"type":"array","items":{"type":"string","pattern":"^(ab|c)*$","minLength":3,"maxLength":100000000}}}}`
	if _, err := schema.CompileObject([]byte(source), keyword, patient()); err == nil {
		t.Error("it is compiled")
	}
	s, err := schema.CompileObject([]byte(`{"type":"object","properties":{"l":{"type":"array","items":{"type":"string","minLength":3}}}}`), keyword, patient())
	if err != nil || !fits(s.Grammar, `l=['abc']`) || fits(s.Grammar, `l=['ab']`) {
		t.Errorf("at least 3: %v", err)
	}
}

// A declared name that a notation cannot write without quotes is refused with its pointer. If names in nested objects
// have no quotes either, the names there are checked, too.
func TestNotationNames(t *testing.T) {
	spells := func(name string) bool { return !strings.Contains(name, ":") }
	outer, all := *tagged, *literal
	outer.Spells, all.Spells = spells, spells
	for source, want := range map[string][2]string{ // parts of the errors in outer and in all; empty means no error
		`{"properties":{"a:b":{"type":"integer"}}}`:                                                         {"/properties/a:b: ", "/properties/a:b: "},
		`{"properties":{"a/b":true,"c":{"properties":{"a:b":{"type":"integer"}}}}}`:                         {"", "/properties/c/properties/a:b: "},
		`{"properties":{"c":{"type":"array","items":{"required":["x","a:b"]}}}}`:                            {"", "/properties/c/items/required: "},
		`{"properties":{"c":{"const":{"x":{"a:b":1}}}}}`:                                                    {"", "/properties/c/const: "},
		`{"$ref":"#/$defs/x","$defs":{"x":{"properties":{"a:b":true}}}}`:                                    {"/$defs/x/properties/a:b: ", "/$defs/x/properties/a:b: "},
		`{"allOf":[{"properties":{"a":true}},{"properties":{"a:b":{"type":"string"}},"required":["a:b"]}]}`: {"/allOf/1/properties/a:b: ", "/allOf/1/properties/a:b: "},
		`{"properties":{"a:b":false,"c":{"type":"integer"}}}`:                                               {"", ""},
		`{"properties":{"a:b":true},"propertyNames":{"pattern":"^[a-z]$"}}`:                                 {"", ""},
	} {
		for i, n := range []*schema.Notation{&outer, &all} {
			_, err := schema.CompileObject([]byte(source), n, patient())
			if want[i] == "" && err != nil || want[i] != "" && (err == nil || !strings.HasPrefix(err.Error(), want[i]) || !strings.Contains(err.Error(), `"a:b"`)) {
				t.Errorf("%s: %v, want %q", source, err, want[i])
			}
		}
	}
}

// The end tag of a value has the mark tagEnd exactly if the value can be read as JSON that the schema
// allows there, and not only as a raw string.
func TestNotationEnds(t *testing.T) {
	const source = `{"type":"object","properties":{"a":{"type":"integer"},"s":{"type":["string","null"]},"e":{"enum":["x",1]},"n":{"type":"string","maxLength":3}}}`
	s, err := schema.CompileObject([]byte(source), tagged, patient())
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		"<a>1</>": true, "<s>1</>": false, "<s>null</>": true, "<s>null </>": false, "<e>x</>": false, "<e>1</>": true, "<n>1</>": false, "<n>{}</>": false, "<z>{}</>": true, "<z>x</>": false,
	} {
		c := automaton.New(s.Grammar).Open()
		if !c.Feed([]byte(text)) {
			t.Errorf("refuses %s", text)
		}
		if got := c.Marks()&tagEnd != 0; got != want {
			t.Errorf("%s: JSON is %v", text, got)
		}
		c.Close()
	}
}
