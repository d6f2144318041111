package speech_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialecttest"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/speech"
	"github.com/inferd-go/inferd/internal/infer"
)

// rawPython is a dialect of Python calls with raw strings between single quotation marks.
func rawPython() *dialect.Dialect {
	d := dialecttest.Fixtures()["lfm2"]
	d.Calls.Param.Quote, d.Calls.Param.Raw = "'", true
	d.Calls.Space = &dialect.Space{JSON: true, Comma: " ", Colon: " "}
	return d
}

// A raw string of Python may contain all characters, including quotation marks and brackets. It ends where the name of
// a later argument, the next call or the end of all calls follows.
func TestRawStrings(t *testing.T) {
	say := []infer.Tool{
		{Name: "say", Schema: []byte(`{"type":"object","properties":{"a":{"type":"string"},"b":{"type":["string","null"]},"n":{"type":"integer"},` +
			`"l":{"type":"array"},"m":{"type":"object"},"c":{"enum":["x', n=3","x')","it's"]}},"additionalProperties":false}`)},
		{Name: "now"},
	}
	for text, want := range map[string][]string{
		`say(a='it's')`:                          {`call say {"a": "it's"}`},
		`say(a='')`:                              {`call say {"a": ""}`},
		`say(a=''')`:                             {`call say {"a": "'"}`},
		`say(a='print('a')')`:                    {`call say {"a": "print('a')"}`},
		`say(a='f('x', 1), g('y', z=2)', n=3)`:   {`call say {"a": "f('x', 1), g('y', z=2)", "n": 3}`},
		`say(a='"\d\n"', b='b')`:                 {`call say {"a": "\"\\d\\n\"", "b": "b"}`},
		"say(a='ä\n\t🎈', b=None)":                {`call say {"a": "ä\n\t🎈", "b": null}`},
		`say(b='None')`:                          {`call say {"b": "None"}`},
		`say(a='x', n=3')`:                       nil, // n takes no string
		`say(c='x', n=3')`:                       {`call say {"c": "x', n=3"}`},
		`say(c='x')')`:                           {`call say {"c": "x')"}`},
		`say(a='x'), now()`:                      {`call say {"a": "x"}`, "call now {}"},
		`say(a='x'), say(a='y')`:                 {`call say {"a": "x"}`, `call say {"a": "y"}`},
		`say(a=')]', n=1), say(a='])', b=']')`:   {`call say {"a": ")]", "n": 1}`, `call say {"a": "])", "b": "]"}`},
		`say(a='x'), sat(a='y')`:                 {`call say {"a": "x'), sat(a='y"}`}, // no tool is called sat
		`say(l=['a', "it's", '\'"\\\n\x01', 1])`: {`call say {"l": ["a", "it's", "'\"\\\n\u0001", 1]}`},
		`say(l=[None, True, [], {'k': False}])`:  {`call say {"l": [null, true, [], {"k": false}]}`},
		`say(l=['\xa0\u200d\U000e0001'])`:        {"call say {\"l\": [\"\u00a0\u200d\U000e0001\"]}"},
		`say(m={"k": ["it's", null, true]})`:     {`call say {"m": {"k": ["it's", null, true]}}`},
		`say(m={'k': 1})`:                        nil, // mappings are JSON
		`say(l=["a"])`:                           nil, // repr has single marks
	} {
		d := rawPython()
		for _, m := range modelsOf(d) {
			for _, often := range []bool{true, false} {
				if often && testing.Short() {
					continue
				}
				o := speech.Options{Dialect: d, Tools: say}
				whole := d.Calls.Begin + text + d.Calls.End
				if want == nil {
					if begin(t, m, o).feed(whole, nil) == "" {
						t.Errorf("%q is taken", text)
					}
				} else if got := parseAnswer(t, m, o, whole, often); !slices.Equal(got, want) {
					t.Errorf("%q, %d markers: %q, want %q", text, len(m.markers), got, want)
				}
			}
		}
	}
}

// A call that ends with a raw string is not whole before it is certain that the string has ended.
func TestRawStringsWait(t *testing.T) {
	d := rawPython()
	r := begin(t, controls(d), speech.Options{Dialect: d, Tools: tools})
	r.feed(d.Calls.Begin+"run(command='f('a')", r.drain)
	if len(r.log) > 0 {
		t.Errorf("got %q", r.log)
	}
	if !r.parser.End() {
		t.Error("the call is not cut off")
	}
}

// Calls with raw strings are read back as they were written.
func TestRawRoundTrip(t *testing.T) {
	d := rawPython()
	for _, m := range modelsOf(d) {
		t.Run(fmt.Sprintf("%d markers", len(m.markers)), func(t *testing.T) { roundTrips(t, m, d) })
	}
}
