package dialect

import "testing"

func TestDivide(t *testing.T) {
	for name, test := range map[string]struct{ before, between, behind, end, separator, begin string }{
		"tags around each":     {`<c>{"n": "`, "}</c>\n<c>{\"n\": \"", `}</c>`, `}</c>`, "\n", `<c>{"n": "`},
		"nothing between":      {`<c>`, `</c><c>`, `</c>`, `</c>`, ``, `<c>`},
		"an array":             {`[C][{"n": "`, `}, {"n": "`, `}]`, `}`, `, `, `{"n": "`},
		"tags around all":      {"<all><c>", "</c>\n<c>", "</c></all>", "</c>", "\n", "<c>"},
		"a marker alike":       {"<all><c>", "</c><c>", "</c></c2>", "</c>", "", "<c>"},
		"one newline for both": {">\n<p=", "\n</p>\n<p=", "\n</p>\n</f>", "\n</p>\n", "", "<p="},
	} {
		end, separator, begin := divide(test.before, test.between, test.behind)
		if end != test.end || separator != test.separator || begin != test.begin {
			t.Errorf("%s: got %q, %q, %q", name, end, separator, begin)
		}
	}
}

// A common prefix or suffix divides no marker.
func TestCommon(t *testing.T) {
	for _, test := range []struct {
		a, b           string
		prefix, suffix int
	}{
		{"<|a|>x<|call|>", "<|a|>x<|return|>", 6, 0},
		{"ab", "ab", 2, 2},
		{"", "x", 0, 0},
		{"[A]1", "[AB]1", 0, 1},
		{"</p>\n<q=", "</f>\n<q=", 0, 4},
	} {
		if p, s := commonPrefix(test.a, test.b), commonSuffix(test.a, test.b); p != test.prefix || s != test.suffix {
			t.Errorf("%q, %q: got %d, %d, want %d, %d", test.a, test.b, p, s, test.prefix, test.suffix)
		}
	}
}
