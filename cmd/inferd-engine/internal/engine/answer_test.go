package engine

import (
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/inferd-go/inferd/internal/infer"
)

func TestAnswer(t *testing.T) {
	for name, test := range map[string]struct {
		stops  []string
		pieces []string
		want   []string // the text released by each piece, then by the end
	}{
		"text passes through":                     {nil, []string{"a", "bc"}, []string{"a", "bc", ""}},
		"a character over two tokens is held":     {nil, []string{"\xc3", "\xa9"}, []string{"", "é", ""}},
		"a character over four tokens":            {nil, []string{"\xf0", "\x9f", "\x98", "\x80!"}, []string{"", "", "", "😀!", ""}},
		"bytes that never become valid":           {nil, []string{"a\xff", "b"}, []string{"a\uFFFD", "b", ""}},
		"a broken character before a good one":    {nil, []string{"\xc3", "x"}, []string{"", "\uFFFDx", ""}},
		"a character that is never finished":      {nil, []string{"ab\xe2\x82"}, []string{"ab", "\uFFFD\uFFFD"}},
		"a stop inside a token":                   {[]string{"END"}, []string{"abENDcd"}, []string{"ab"}},
		"a stop over three tokens":                {[]string{"END"}, []string{"aE", "N", "Dz"}, []string{"a", "", ""}},
		"text that only looked like a stop":       {[]string{"END"}, []string{"aE", "Nx"}, []string{"a", "ENx", ""}},
		"a held beginning is sent at the end":     {[]string{"END"}, []string{"aEN"}, []string{"a", "EN"}},
		"the earliest of several stops":           {[]string{"zz", "b"}, []string{"abzz"}, []string{"a"}},
		"a stop that begins inside a partial one": {[]string{"aab"}, []string{"aaa", "b"}, []string{"a", ""}},
		"a stop of several bytes a character":     {[]string{"é!"}, []string{"x\xc3", "\xa9", "!"}, []string{"x", "", ""}},
		"a stop inside another one is complete":   {[]string{"abcd", "bc"}, []string{"xabcd"}, []string{"xa"}},
		"the longest of two that end together":    {[]string{"b", "ab"}, []string{"xab"}, []string{"x"}},
		"a stop that the end of the text makes":   {[]string{"a\uFFFD"}, []string{"xa", "\xe2"}, []string{"x", "", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			a := answer{stops: sequences(test.stops...)}
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

// sequences returns texts as stop sequences of a request.
func sequences(texts ...string) []stop {
	var all []stop
	for _, text := range texts {
		all = append(all, stop{text, infer.StopSequence})
	}
	return all
}

// The reason distinguishes a request's stop from the end of a turn.
func TestReasonOfAnswer(t *testing.T) {
	ends := []stop{{"\nUser:", infer.EndOfTurn}, {"\nAssistant:", infer.EndOfTurn}}
	for name, test := range map[string]struct {
		stops  []string // the request's
		pieces []string
		text   string
		reason infer.Reason // empty: no stop
	}{
		"neither":                               {[]string{"END"}, []string{"hello\nUser"}, "hello\nUser", ""},
		"a marker":                              {[]string{"END"}, []string{"hello\nUser:"}, "hello", infer.EndOfTurn},
		"a marker over several tokens":          {nil, []string{"hello\n", "Ass", "istant", ":"}, "hello", infer.EndOfTurn},
		"a marker, and text behind it":          {nil, []string{"hello\nUser: bye END"}, "hello", infer.EndOfTurn},
		"a marker before a stop in one token":   {[]string{"END"}, []string{"a\nUser: END"}, "a", infer.EndOfTurn},
		"a stop before a marker in one token":   {[]string{"END"}, []string{"a END\nUser:"}, "a ", infer.StopSequence},
		"a stop that begins like a marker":      {[]string{"\n"}, []string{"a\nUser:"}, "a", infer.StopSequence},
		"a stop in a marker":                    {[]string{"Us"}, []string{"a\nUser:"}, "a\n", infer.StopSequence},
		"a stop that is a marker":               {[]string{"\nUser:"}, []string{"a\nUser:"}, "a", infer.StopSequence},
		"a stop that ends with a marker":        {[]string{"a\nUser:"}, []string{"xa\nUser:"}, "x", infer.StopSequence},
		"a stop that is the end of a marker":    {[]string{"User:"}, []string{"a\nUser:"}, "a", infer.StopSequence},
		"a stop that begins before a marker":    {[]string{"a\nUser: b"}, []string{"xa\nUser: b"}, "xa", infer.EndOfTurn},
		"the stop is looked for before the end": {[]string{"\uFFFD"}, []string{"a\xe2"}, "a", infer.StopSequence},
	} {
		t.Run(name, func(t *testing.T) {
			for _, divided := range []bool{false, true} {
				pieces := test.pieces
				if divided {
					pieces = strings.Split(strings.Join(pieces, ""), "") // into characters
				}
				a := answer{stops: append(sequences(test.stops...), ends...)}
				if divided {
					slices.Reverse(a.stops) // their order does not matter
				}
				if got := collect(&a, pieces); got != test.text || a.reason != test.reason || a.stopped != (test.reason != "") {
					t.Errorf("%q: got %q, %q, want %q, %q", pieces, got, a.reason, test.text, test.reason)
				}
			}
		})
	}
}

// An answer names the stop that ended it, whatever the order of the stops.
func TestStopOfAnswer(t *testing.T) {
	for name, test := range map[string]struct {
		stops []string
		text  string
		want  string
	}{
		"none":                       {[]string{"X"}, "abc", ""},
		"one of several":             {[]string{"X", "c", "Y"}, "abc", "c"},
		"the first in the text":      {[]string{"c", "b"}, "abc", "b"},
		"the longest that ends here": {[]string{"b", "ab", "B"}, "xab", "ab"},
	} {
		for range 2 {
			a := answer{stops: sequences(test.stops...)}
			if collect(&a, []string{test.text}); a.stop != test.want {
				t.Errorf("%s: %q, want %q", name, a.stop, test.want)
			}
			slices.Reverse(test.stops)
		}
	}
}

// White space at the beginning of an answer is not sent, nor are the logprobs of tokens that
// consist only of it.
func TestLeadingWhiteSpace(t *testing.T) {
	for name, test := range map[string]struct {
		pieces []string
		want   []string // the text released by each piece, then by the end
		told   string   // the pieces of the tokens with reported logprobs
	}{
		"none":                              {[]string{"a ", " b"}, []string{"a ", " b", ""}, "a | b"},
		"a part of a token":                 {[]string{" a", " ", "b"}, []string{"a", " ", "b", ""}, " a| |b"},
		"whole tokens":                      {[]string{" ", "\t", " ab", " "}, []string{"", "", "ab", " ", ""}, " ab| "},
		"tokens of one byte after it":       {[]string{"  ab", "c", "d"}, []string{"ab", "c", "d", ""}, "  ab|c|d"},
		"held as the beginning of a marker": {[]string{"\n", "\n", "x"}, []string{"", "", "x", ""}, "x"},
		"a token held in part":              {[]string{" \n", "Us", "x"}, []string{"", "", "Usx", ""}, "Us|x"},
		"a marker is not broken":            {[]string{"\n", "\nUser:"}, []string{"", ""}, ""},
		"white space alone":                 {[]string{" ", "\n ", " "}, []string{"", "", "", ""}, ""},
		"white space alone, held":           {[]string{" ", "\n"}, []string{"", "", ""}, ""},
		"nothing":                           {nil, []string{""}, ""},
		"a beginning of a marker alone":     {[]string{" \n", "U"}, []string{"", "", "U"}, "U"},
		"other than ASCII":                  {[]string{"\u3000\u00a0", "\xe3", "\x80\x80", "é"}, []string{"", "", "", "é", ""}, "é"},
		"bytes that are no character":       {[]string{" ", "\x80", "a"}, []string{"", "\uFFFD", "a", ""}, "\x80|a"},
		"tokens without text":               {[]string{"", " ", "", "a", ""}, []string{"", "", "", "a", "", ""}, "|a"},
	} {
		t.Run(name, func(t *testing.T) {
			a := answer{stops: []stop{{"\nUser:", infer.EndOfTurn}}, trim: true}
			var (
				got, told []string
				list      []infer.Logprob
			)
			take := func(text []byte) {
				got = append(got, string(text))
				if list = a.withoutTrimmed(list); len(text) > 0 {
					for _, l := range list {
						told = append(told, string(l.Piece))
					}
					list = list[:0]
				}
			}
			stopped := false
			for _, p := range test.pieces {
				var text []byte
				list = append(list, infer.Logprob{Candidate: infer.Candidate{Piece: []byte(p)}})
				text, stopped = a.add([]byte(p))
				take(text)
			}
			if !stopped {
				take(a.end())
			}
			if !slices.Equal(got, test.want) || strings.Join(told, "|") != test.told {
				t.Errorf("released %q, told %q; want %q, %q", got, told, test.want, test.told)
			}
		})
	}
}

// The division of an answer into tokens changes neither its text, nor the reason for its end, nor the
// reported stop. The text is valid UTF-8, and does not begin with white space if that is trimmed. A
// stop is reported only if it is one of the request's.
func TestAnswerDoesNotDependOnTokens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		alphabet := rapid.SampledFrom([]string{"a", "b", "ab", "é", "\xff", "\xe2\x82", "😀", "€", " ", "\n"})
		whole := strings.Join(rapid.SliceOfN(alphabet, 0, 20).Draw(t, "text"), "")
		kinds := rapid.SampledFrom([]stop{
			{"ab", infer.StopSequence},
			{"aab", infer.EndOfTurn},
			{"a", infer.EndOfTurn},
			{"é", infer.StopSequence},
			{"b€", infer.EndOfTurn},
			{"\uFFFDa", infer.StopSequence},
			{"aabab", infer.StopSequence},
			{" ", infer.StopSequence},
			{"\na", infer.EndOfTurn},
		})
		stops := rapid.SliceOfN(kinds, 0, 3).Draw(t, "stops")
		trim := rapid.Bool().Draw(t, "trim")

		one := answer{stops: stops, trim: trim}
		want := collect(&one, []string{whole})
		var pieces []string
		for rest := whole; rest != ""; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "cut")
			pieces = append(pieces, rest[:n])
			rest = rest[n:]
		}
		many := answer{stops: stops, trim: trim}
		got := collect(&many, pieces)
		if got != want || many.reason != one.reason || many.stop != one.stop {
			t.Fatalf("pieces %q gave %q, %q %q, in one piece %q, %q %q", pieces, got, many.reason, many.stop, want, one.reason, one.stop)
		}
		if named := slices.Contains(stops, stop{one.stop, infer.StopSequence}); named != (one.reason == infer.StopSequence) {
			t.Fatalf("stopped by %q, because of %q", one.stop, one.reason)
		}
		if trim && got != strings.TrimLeftFunc(got, unicode.IsSpace) {
			t.Fatalf("%q begins with white space", got)
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
