package engine

import (
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestAnswer(t *testing.T) {
	for name, test := range map[string]struct {
		stops  []string
		pieces []string
		want   []string // what each piece releases, then what the end does
	}{
		"text passes through":                     {nil, []string{"a", "bc"}, []string{"a", "bc", ""}},
		"a character over two tokens is held":     {nil, []string{"\xc3", "\xa9"}, []string{"", "é", ""}},
		"a character over four tokens":            {nil, []string{"\xf0", "\x9f", "\x98", "\x80!"}, []string{"", "", "", "😀!", ""}},
		"bytes that never become valid":           {nil, []string{"a\xff", "b"}, []string{"a\uFFFD", "b", ""}},
		"a broken character before a good one":    {nil, []string{"\xc3", "x"}, []string{"", "\uFFFDx", ""}},
		"a character that is never finished":      {nil, []string{"ab\xe2\x82"}, []string{"ab", "\uFFFD\uFFFD"}},
		"a stop inside a token":                   {[]string{"END"}, []string{"abENDcd"}, []string{"ab"}},
		"a stop over three tokens":                {[]string{"END"}, []string{"aE", "N", "Dz"}, []string{"a", "", ""}},
		"what looked like a stop is sent":         {[]string{"END"}, []string{"aE", "Nx"}, []string{"a", "ENx", ""}},
		"a held beginning is sent at the end":     {[]string{"END"}, []string{"aEN"}, []string{"a", "EN"}},
		"the earliest of several stops":           {[]string{"zz", "b"}, []string{"abzz"}, []string{"a"}},
		"a stop that begins inside a looked-like": {[]string{"aab"}, []string{"aaa", "b"}, []string{"a", ""}},
		"a stop of several bytes a character":     {[]string{"é!"}, []string{"x\xc3", "\xa9", "!"}, []string{"x", "", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			a := answer{stops: test.stops}
			var got []string
			stopped := false
			for _, p := range test.pieces {
				var text []byte
				text, stopped = a.add([]byte(p))
				got = append(got, string(text))
				if stopped {
					break
				}
			}
			if !stopped {
				got = append(got, string(a.end()))
			}
			if strings.Join(got, "|") != strings.Join(test.want, "|") {
				t.Errorf("released %q, want %q", got, test.want)
			}
		})
	}
}

// However the bytes of an answer are cut into tokens, the client gets the same text:
// the bytes made valid, up to the first stop.
func TestAnswerDoesNotDependOnTokens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		alphabet := rapid.SampledFrom([]string{"a", "b", "ab", "é", "\xff", "\xe2\x82", "😀", "€"})
		whole := strings.Join(rapid.SliceOfN(alphabet, 0, 20).Draw(t, "text"), "")
		stops := rapid.SliceOfN(rapid.SampledFrom([]string{"ab", "aab", "é", "b€", "\uFFFDa"}), 0, 2).Draw(t, "stops")

		one := answer{stops: stops}
		want := collect(&one, []string{whole})
		var pieces []string
		for rest := whole; rest != ""; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "cut")
			pieces = append(pieces, rest[:n])
			rest = rest[n:]
		}
		many := answer{stops: stops}
		got := collect(&many, pieces)
		if got != want {
			t.Fatalf("pieces %q gave %q, in one piece %q", pieces, got, want)
		}
		if !utf8.ValidString(got) {
			t.Fatalf("%q is not valid", got)
		}
	})
}

func collect(a *answer, pieces []string) string {
	var b strings.Builder
	for _, p := range pieces {
		text, stopped := a.add([]byte(p))
		if !utf8.Valid(text) {
			return "a piece that is not valid: " + string(text)
		}
		b.Write(text)
		if stopped {
			return b.String()
		}
	}
	b.Write(a.end())
	return b.String()
}
