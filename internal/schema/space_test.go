package schema_test

import (
	"testing"

	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/schema"
)

// With Notation.ASCII, characters beyond ASCII are escaped in values and in names.
func TestNotationOfLetters(t *testing.T) {
	s, err := schema.CompileObject([]byte(`{"type":"object","properties":{"ö\"🙂":{"enum":["é","x"]},"s":{"type":"string","minLength":1,"maxLength":2},"p":{"type":"string","pattern":"^é+$"}}}`), &schema.Notation{ASCII: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		`{"\u00f6\"\ud83d\ude42": "\u00e9", "s": "a\ud83d\ude42", "p": "\u00e9\u00e9", "\u00ea": "\u00ea"}`: true,
		`{"\u00f6\"\ud83d\ude42": "x"}`: true, `{"\u00f6\"\ud83d\ude42": "y"}`: false, `{"ö\"🙂": "x"}`: false, `{"s": "é"}`: false, `{"s": "\u00e9\u00e9\u00e9"}`: false,
		`{"p": "\u00ea"}`: false, `{"s": "a", "s": "b"}`: false, `{"t": "é"}`: false,
	} {
		if got := fits(s.Grammar, text); got != want {
			t.Errorf("%s: got %v", text, got)
		}
	}
}

// A notation may fix the white space, the spelling of numbers and the order of members; in JSON,
// white space and the spelling of numbers may vary.
func TestNotationOfSpace(t *testing.T) {
	const source = `{"type":"object","properties":{"b":{"type":"array","items":{"type":"number"},"uniqueItems":true},"A":{"type":"object"}},"additionalProperties":{"type":"boolean"}}`
	spaced := &schema.Notation{Spaced: true, Comma: " ", Colon: " "}
	for name, test := range map[string]struct {
		notation *schema.Notation
		text     string
		want     bool
	}{
		"free, compact":            {nil, `{"b":[1,2],"A":{"x":[]}}`, true},
		"free, spaced":             {nil, `{"b": [1.5, 2], "A": {"x": [1.50]}}`, true},
		"spaced":                   {spaced, `{"b": [1.5, 2], "A": {"x": [null, {"y": -7}], "z": {}}, "c": true}`, true},
		"spaced, compact":          {spaced, `{"b":[1]}`, false},
		"spaced, a comma alone":    {spaced, `{"b": [1,2]}`, false},
		"spaced, an indent":        {spaced, "{\n\"b\": [1]}", false},
		"spaced, at the end":       {spaced, `{"b": [1 ]}`, false},
		"spaced, a zero":           {spaced, `{"b": [1.50]}`, false},
		"spaced, an exponent":      {spaced, `{"b": [1e3]}`, false},
		"spaced, a name twice":     {spaced, `{"c": true, "c": true}`, false},
		"spaced, an item twice":    {spaced, `{"b": [1, 1]}`, false},
		"compact":                  {&schema.Notation{Spaced: true}, `{"b":[1,2],"A":{"x":[]}}`, true},
		"compact, spaced":          {&schema.Notation{Spaced: true}, `{"b": [1]}`, false},
		"letters":                  {&schema.Notation{ASCII: true}, `{"b": [], "\u00e9\ud83d\ude42": true}`, true},
		"letters as they are":      {&schema.Notation{ASCII: true}, `{"b": [], "é": true}`, false},
		"sorted":                   {&schema.Notation{Sorted: true}, `{"A": {}, "b":[]}`, true},
		"sorted, in another order": {&schema.Notation{Sorted: true}, `{"b":[], "A": {}}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := schema.CompileObject([]byte(source), test.notation, nil)
			if err != nil {
				t.Fatal(err)
			}
			c := automaton.New(s.Grammar).Open()
			defer c.Close()
			if got := c.Feed([]byte(test.text)) && c.MayEnd(); got != test.want {
				t.Errorf("%s: got %v", test.text, got)
			}
		})
	}
}
