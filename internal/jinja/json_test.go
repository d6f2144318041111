package jinja

import (
	"math"
	"strings"
	"testing"
)

// JSON and numbers are written as by Python's json.dumps and repr. The last rows are about the addition of
// none, members called items, and the test iterable.
func TestJSON(t *testing.T) {
	for source, want := range map[string]string{
		`{{ {'z': 1, 'a': [true, none, 'x']} | tojson }}`:                            `{"z": 1, "a": [true, null, "x"]}`,
		`{{ {'z': 1, 'a': 2} | tojson(sort_keys=true) }}`:                            `{"a": 2, "z": 1}`,
		`{{ {'z': [], 'a': {} } | tojson(indent=2) }}`:                               "{\n  \"z\": [],\n  \"a\": {}\n}",
		`{{ [1, {'b': [2]}] | tojson(indent=4) }}`:                                   "[\n    1,\n    {\n        \"b\": [\n            2\n        ]\n    }\n]",
		`{{ [1, 2] | tojson(separators=(',', ':')) }}`:                               `[1,2]`,
		`{{ {'a': 1} | tojson(separators=(',', ':')) }}`:                             `{"a":1}`,
		`{{ '<b>&\'"' | tojson }}`:                                                   `"<b>&'\""`,
		`{{ 'ü漢🎈' | tojson }}`:                                                       `"ü漢🎈"`,
		`{{ 'ü漢🎈' | tojson(ensure_ascii=true) }}`:                                    `"\u00fc\u6f22\ud83c\udf88"`,
		"{{ '\u2028\x7f' | tojson }}":                                                "\"\u2028\x7f\"",
		"{{ '\t\r\n\b\f\x01\\\\' | tojson }}":                                        `"\t\r\n\b\f\u0001\\"`,
		`{{ '{"b": 1.0, "a": [12345678901, 1e3, "x"]}' | fromjson | tojson }}`:       `{"b": 1.0, "a": [12345678901, 1000.0, "x"]}`,
		`{{ [47.0, 0.1, 1.0e16, 1.0e-5, 123456789012345.6, -0.5] | tojson }}`:        `[47.0, 0.1, 1e+16, 1e-05, 123456789012345.6, -0.5]`,
		`{{ 47.0 }} {{ 1.0e22 }} {{ none }} {{ [none, 1.0] }}`:                       `47.0 1e+22 None [None, 1.0]`,
		`{{ 'a' + none }}{{ 'b' ~ none }}`:                                           `abNone`,
		`{% set d = {'items': 1, 'x': 2} %}{{ d.items() | length }}{{ d['items'] }}`: `21`,
		`{% set n = namespace(items=3) %}{{ n.items }}`:                              `3`,
		`{{ nothing is iterable }}{{ 1 is iterable }}`:                               `TrueFalse`,
	} {
		tmpl, err := Compile(source)
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		if got, err := tmpl.RenderValues(nil); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", source, got, err, want)
		}
	}
}

func TestJSONFloat(t *testing.T) {
	for f, want := range map[float64]string{0: "0.0", math.Inf(1): "Infinity", math.Inf(-1): "-Infinity", 9007199254740993: "9007199254740992.0", 5e-324: "5e-324"} {
		if got := jsonFloat(f); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if got := jsonFloat(math.NaN()) + pythonFloat(math.NaN()) + pythonFloat(math.Inf(1)) + pythonFloat(math.Inf(-1)); got != "NaNnaninf-inf" {
		t.Errorf("got %s", got)
	}
}

// Repr, and the printing of lists and mappings, write strings as Python's repr does, except that characters of private
// use are not escaped.
func TestRepr(t *testing.T) {
	for text, want := range map[string]string{
		"":               `''`,
		"a":              `'a'`,
		"it's":           `"it's"`,
		`a "b"`:          `'a "b"'`,
		`'"`:             `'\'"'`,
		"\\\n\r\t":       `'\\\n\r\t'`,
		"\x00\x7f\u0085": `'\x00\x7f\x85'`,
		"ü漢🎈":            `'ü漢🎈'`,
		"\u00a0\u2028":   `'\xa0\u2028'`,
		"\U000e0001":     `'\U000e0001'`,
		"\U000f0000":     "'\U000f0000'",
	} {
		if got := Repr(text); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
	tmpl, err := Compile(`{{ [x, {x: [x]}] }}`)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := tmpl.RenderValues(map[string]Value{"x": NewString("it's")}); err != nil || got != `["it's", {"it's": ["it's"]}]` {
		t.Errorf("got %s, %v", got, err)
	}
}

// RenderWithin stops at its own bound on steps, and returns the number of steps taken. The filter fromjson returns an
// error for invalid JSON.
func TestRenderWithin(t *testing.T) {
	tmpl, err := Compile(`{% for i in range(1000) %}{{ i }}{% endfor %}`)
	if err != nil {
		t.Fatal(err)
	}
	text, steps, err := tmpl.RenderWithin(nil, 1<<40)
	if err != nil || len(text) != 2890 || steps < 1000 || steps > 100_000 {
		t.Errorf("got %d bytes in %d steps, %v", len(text), steps, err)
	}
	if again, n, err := tmpl.RenderWithin(nil, steps); err != nil || again != text || n != steps {
		t.Errorf("within its steps: %d, %v", n, err)
	}
	if _, n, err := tmpl.RenderWithin(nil, 500); err == nil || !strings.Contains(err.Error(), "more than 500 steps") || n < 500 || n > steps {
		t.Errorf("within 500: %d, %v", n, err)
	}
	for _, source := range []string{`{{ '[' | fromjson }}`, `{{ '1 2' | fromjson }}`, `{{ '{"a" 1}' | fromjson }}`} {
		if tmpl, err := Compile(source); err != nil {
			t.Fatal(err)
		} else if _, err := tmpl.RenderValues(nil); err == nil {
			t.Errorf("%s: no error", source)
		}
	}
}
