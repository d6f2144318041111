package schema_test

import (
	"testing"

	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/schema"
)

// A notation may fix the white space, the spelling of numbers and the order of members; without
// one, white space and the spelling of numbers may vary.
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
