package regex_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/regex"
)

func compile(tb testing.TB, pattern string) *regex.DFA {
	tb.Helper()
	d, err := regex.Compile(&regex.Budget{}, pattern)
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

func TestMatch(t *testing.T) {
	for pattern, test := range map[string]struct{ yes, no []string }{
		`a`:                  {[]string{"a", "xax", "ba"}, []string{"", "b"}},
		`^a`:                 {[]string{"a", "ab"}, []string{"ba", ""}},
		`a$`:                 {[]string{"a", "ba"}, []string{"ab", ""}},
		`^$`:                 {[]string{""}, []string{"a"}},
		``:                   {[]string{"", "x"}, nil},
		`^a|b$`:              {[]string{"ax", "xb"}, []string{"xa", "bx"}},
		`^(a|b|)c$`:          {[]string{"ac", "bc", "c"}, []string{"abc", ""}},
		`a$b`:                {nil, []string{"ab", "a", "a\nb"}},
		`^a{2}b{1,}c{0,2}$`:  {[]string{"aab", "aabbbcc"}, []string{"ab", "aabccc"}},
		`^a{,2}$`:            {[]string{"a{,2}"}, []string{"aa"}},
		`^{x}$`:              {[]string{"{x}"}, []string{"x"}},
		`^(?:ab)+?$`:         {[]string{"ab", "abab"}, []string{"aba"}},
		`^(?<name>a)*$`:      {[]string{"", "aa"}, []string{"b"}},
		`^.$`:                {[]string{"x", "é", "🙂"}, []string{"\n", "\r", "\u2028", "xy"}},
		`^[^a-c]$`:           {[]string{"d", "\n", "🙂"}, []string{"a", "c"}},
		`^[a\-z]$`:           {[]string{"a", "-", "z"}, []string{"b"}},
		`^[\w-.]$`:           {[]string{"a", "-", "."}, []string{","}},
		`^[]$`:               {nil, []string{"", "]"}},
		`^[^]$`:              {[]string{"x", "\n"}, []string{""}},
		`^\d\D\w\W$`:         {[]string{"1x_-"}, []string{"xxxx", "١x_-"}},
		`^\s\S$`:             {[]string{" x", "\u00a0x", "\ufeffx", "\u2029x"}, []string{"\u200bx", "  "}},
		`^\cA\x41\u00e9\0$`:  {[]string{"\x01Aé\x00"}, []string{"AAé0"}},
		`^\ud83d\ude42$`:     {[]string{"🙂"}, nil},
		`^\u{1f642}$`:        {[]string{"🙂"}, nil},
		`^\p{Lu}\p{L}$`:      {[]string{"Éa", "ΣΩ"}, []string{"ab", "A1"}},
		`^\P{Letter}$`:       {[]string{"1"}, []string{"x"}},
		`^\p{Script=Greek}$`: {[]string{"Ω"}, []string{"a"}},
		`^\^\$\.\/\-\@$`:     {[]string{"^$./-@"}, nil},
		`^\t\n\v\f\r$`:       {[]string{"\t\n\v\f\r"}, nil},
		`(^a)|(b)`:           {[]string{"a", "xb"}, []string{"xa"}},
		`(a*)*b`:             {[]string{"b", "aaab", "x b"}, []string{"aaa"}},
		`^(a?){3}$`:          {[]string{"", "aaa"}, []string{"aaaa"}},
		`^([a-z]+\.)+com$`:   {[]string{"a.b.com"}, []string{"com", "a..com"}},
		`]`:                  {[]string{"]"}, []string{"x"}},
	} {
		d := compile(t, pattern)
		for _, s := range test.yes {
			if !d.Match(s) {
				t.Errorf("%s does not match %q", pattern, s)
			}
		}
		for _, s := range test.no {
			if d.Match(s) {
				t.Errorf("%s matches %q", pattern, s)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	for pattern, want := range map[string]string{
		`(`: "the group has no end", `)`: "closing parenthesis", `[a`: "the class has no end", `*a`: "nothing to repeat", `a**`: "nothing to repeat", `^*`: "an assertion is repeated",
		`a(?=b)`: "look-around", `(?!b)`: "look-around", `(?<=b)`: "look-around", `(?<!b)`: "look-around", `(a)\1`: "back-references", `(?<n>a)\k<n>`: "back-references", `\bfoo`: "word boundaries",
		`\a`: "an unknown escape", `\Z`: "an unknown escape", `\`: "a backslash at the end", `\x1`: "two hexadecimal", `\u12`: "four hexadecimal", `\p{Nonsense}`: "an unknown property", `\pL`: "the name of a property",
		`[z-a]`: "is empty", `a{3,2}`: "at least 3", `a{99999999}`: "more than", `((a{1000}){1000}){1000}`: "too large", `(?i)a`: "an unknown kind of group",
		strings.Repeat("(", 1000): "groups nested", `\u{110000}`: "not a code point", `\c1`: "a letter is missing",
	} {
		_, err := regex.Compile(&regex.Budget{}, pattern)
		if _, ok := errors.AsType[*regex.Error](err); !ok || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", pattern, err, want)
		}
	}
}

// The compilation of a pattern with an exponentially growing automaton ends at the budget.
func TestExploding(t *testing.T) {
	for _, pattern := range []string{`(a|b)*a(a|b){30}`, `^(.*a.{20}|.*b.{20})$`, `[ab]*a[ab]{24}c[ab]{24}`} {
		b := &regex.Budget{Bytes: 8 << 20}
		if _, err := regex.Compile(b, pattern); !errors.Is(err, automaton.ErrMemory) && !errors.Is(err, automaton.ErrTime) {
			t.Errorf("%s: %v", pattern, err)
		}
	}
}

// drawPattern draws a pattern that Go's regexp understands in the same way.
func drawPattern(t *rapid.T, depth int) string {
	if depth == 0 {
		return rapid.SampledFrom([]string{"a", "b", "[ab]", "[^a]", "é", ".", "^", "$", ""}).Draw(t, "atom")
	}
	sub := func() string { return drawPattern(t, depth-1) }
	switch rapid.IntRange(0, 4).Draw(t, "op") {
	case 0:
		return sub() + sub()
	case 1:
		return "(" + sub() + "|" + sub() + ")"
	case 2:
		return "(" + sub() + ")" + rapid.SampledFrom([]string{"*", "+", "?", "{2}", "{1,3}", "{2,}", "*?"}).Draw(t, "quantifier")
	case 3:
		return sub() + sub() + sub()
	}
	return sub()
}

func TestAgainstStandardLibrary(t *testing.T) {
	var texts []string
	for _, s := range []string{"", "a", "b", "é", "\""} {
		for _, u := range []string{"", "a", "b", "é", "ab", "\n"} {
			for _, v := range []string{"", "a", "b", "c"} {
				texts = append(texts, s+u+v)
			}
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		b := &regex.Budget{}
		p, q := drawPattern(t, 3), drawPattern(t, 2)
		x, err := regexp.Compile(p)
		if err != nil {
			t.Skip(err)
		}
		y := regexp.MustCompile(q)
		d, err := regex.Compile(b, p)
		if err != nil {
			t.Fatal(err)
		}
		e, err := regex.Compile(b, q)
		if err != nil {
			t.Fatal(err)
		}
		and, or, minus, not := regex.And(b, d, e), regex.Or(b, d, e), regex.Minus(b, d, e), regex.Not(b, d)
		if regex.Disjoint(d, e) != and.Empty() {
			t.Fatalf("%s, %s: disjoint = %v", p, q, !and.Empty())
		}
		lengths := regex.And(b, d, regex.Lengths(b, 1, 2))
		quoted, ascii := regex.Quoted(b, d), regex.ASCII(b, d)
		for _, s := range texts {
			// Go's . excludes only \n, and the texts have no other ends of lines.
			m, n := x.MatchString(s), y.MatchString(s)
			for name, got := range map[string][2]bool{
				p: {d.Match(s), m}, "and": {and.Match(s), m && n}, "or": {or.Match(s), m || n}, "minus": {minus.Match(s), m && !n}, "not": {not.Match(s), !m},
				"lengths": {lengths.Match(s), m && s != "" && utf8.RuneCountInString(s) <= 2},
				"quoted":  {run(quoted, inner(s)), m},
				"ascii":   {run(ascii, escaped(s)), m},
			} {
				if got[0] != got[1] {
					t.Fatalf("%s, %s: %s of %q is %v, want %v", p, q, name, s, got[0], got[1])
				}
			}
		}
	})
}

// inner returns s as the inside of a JSON string.
func inner(s string) string {
	out, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(out[1 : len(out)-1])
}

// escaped is inner, but with DEL and all characters beyond ASCII as \uXXXX, as Python's json.dumps
// writes them.
func escaped(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch high, low := utf16.EncodeRune(r); {
		case high != unicode.ReplacementChar:
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		case r >= 0x7f:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteString(inner(string(r)))
		}
	}
	return b.String()
}

// run reports whether d accepts s.
func run(d *automaton.DFA, s string) bool {
	state := int32(0)
	if len(d.Accept) == 0 {
		return false
	}
next:
	for i := range len(s) {
		for _, e := range d.Edges[d.First[state]:d.First[state+1]] {
			if s[i] >= e.Lo && s[i] <= e.Hi {
				state = e.To
				continue next
			}
		}
		return false
	}
	return d.Accept[state]
}

func TestQuoted(t *testing.T) {
	b := &regex.Budget{}
	d := regex.Quoted(b, regex.Any())
	for s, want := range map[string]bool{
		`a"`: false, `a\"\\\n\u001f`: true, `\u000a`: false, `\/`: false, "\x01": false, "é日🙂\x7f": true, "\xed\xa0\x80": false, "\xf4\x90\x80\x80": false, "\xc1\x80": false, "\xff": false,
	} {
		if got := run(d, s); got != want {
			t.Errorf("%q = %v", s, got)
		}
	}
	if d.Plain[0] < 1<<30 {
		t.Errorf("Plain = %d, want no limit", d.Plain[0])
	}
	three := regex.Quoted(b, regex.Lengths(b, 0, 3))
	if three.Plain[0] != 3 {
		t.Errorf("Plain = %d, want 3", three.Plain[0])
	}
	if !run(regex.Raw(b, regex.Words(b, []string{`a"b`, "日"})), `a"b`) {
		t.Error("Raw does not spell a quote as it is")
	}
}

// In the language that ASCII returns, DEL and each character beyond ASCII have one spelling: one escape,
// or two for a character beyond the basic plane. Other characters are spelt as in Quoted.
func TestASCII(t *testing.T) {
	b := &regex.Budget{}
	d := regex.ASCII(b, regex.Any())
	for s, want := range map[string]bool{
		`a"`: false, `a\"\\\n\u001f~`: true, `\u000a`: false, `\u0041`: false, "é": false, "\x7f": false, `\u007f\u00e9\u65e5\uffff`: true, `\u00E9`: false,
		`\ud83d\ude42`: true, `\ud800\udc00\udbff\udfff`: true, `\ud83d`: false, `\ude42`: false, `\ud83d\u0041`: false, `\ud83d\ud83d`: false, `\ue000`: true,
	} {
		if got := run(d, s); got != want {
			t.Errorf("%q = %v", s, got)
		}
	}
	words := []string{"é", "日本", "a🙂", "\U0010FFFF", "\x7f"}
	d = regex.ASCII(b, regex.Words(b, words))
	for _, w := range append(words, "ê", "日", "a🙁", "\U0010FFFE", "") {
		if got := run(d, escaped(w)); got != slices.Contains(words, w) {
			t.Errorf("%q = %v", w, got)
		}
	}
}

// The inside of a Python string has one spelling, with escapes for its quotation mark and for characters that are not
// printable.
func TestPython(t *testing.T) {
	words := []string{"", "it's", `a "b"`, "\\\n\r\t", "\x00\x1f\x7f", "ü漢🎈", "both ' and \""}
	for quote, spellings := range map[byte][]string{
		'\'': {"", `it\'s`, `a "b"`, `\\\n\r\t`, `\x00\x1f\x7f`, "ü漢🎈", `both \' and "`},
		'"':  {"", `it's`, `a \"b\"`, `\\\n\r\t`, `\x00\x1f\x7f`, "ü漢🎈", `both ' and \"`},
	} {
		d := regex.Python(&regex.Budget{}, regex.Words(&regex.Budget{}, words), quote)
		all := regex.Python(&regex.Budget{}, regex.Any(), quote)
		for _, spelling := range []string{`\xa0\xad`, `\u200d\u2028`, `\U000e0001`, "🎈\uffe5"} {
			if !run(all, spelling) {
				t.Errorf("%q is not taken", spelling)
			}
		}
		for i, spelling := range spellings {
			if !run(d, spelling) || !run(all, spelling) {
				t.Errorf("%q is not taken for %q", spelling, words[i])
			}
		}
		for _, text := range []string{"\u00a0", "\u200d", "\U000e0001", `\u00a0`, `\U0000200d`, `\ud800`, `\u0041`, `\x41`, `\d`, "\n", "\x7f", string(quote), `\`} {
			if run(d, text) || run(all, text) {
				t.Errorf("%q is taken", text)
			}
		}
	}
}

func TestWords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := &regex.Budget{}
		words := rapid.SliceOf(rapid.StringOfN(rapid.SampledFrom([]rune("abé\x00\x01\U0010FFFF")), 0, 4, -1)).Draw(t, "words")
		d := regex.Words(b, words)
		set := make(map[string]bool)
		for _, w := range words {
			set[w] = true
			if !d.Match(w) {
				t.Fatalf("%q is missing", w)
			}
			if probe := w + "a"; d.Match(probe) != slices.Contains(words, probe) {
				t.Fatalf("%q", probe)
			}
		}
		if d.Count(1000) != len(set) {
			t.Fatalf("Count = %d, want %d", d.Count(1000), len(set))
		}
	})
}

func TestCount(t *testing.T) {
	for pattern, want := range map[string]int{`^[ab]{0,2}$`: 7, `^a?b?$`: 4, `^a*$`: 100, `a`: 100, `^[0-9]{2}$`: 100, `^[0-9]$`: 10, `^.$`: 100} {
		if got := compile(t, pattern).Count(100); got != want {
			t.Errorf("%s: %d, want %d", pattern, got, want)
		}
	}
}

var numbers = []string{"0", "-0", "0.0", "-0.00", "1", "1.0", "-1", "9", "10", "10.50", "99", "100", "101", "-7.25", "7.25", "7.2", "7.3", "0.001", "-0.001", "0.0075", "123456789", "1.5", "-10", "33", "0.3", "1e5", "01", "1.", "-", ""}

func TestNumbers(t *testing.T) {
	b := &regex.Budget{}
	canonical := regex.Canonical(b)
	for _, bound := range []string{"0", "-0.0", "1", "-1", "10", "7.25", "-7.25", "0.001", "100", "-0.5", "9e1", "1e-3", "99.99"} {
		d, err := regex.ParseDecimal(bound)
		if err != nil {
			t.Fatal(err)
		}
		f, err := strconv.ParseFloat(bound, 64)
		if err != nil {
			t.Fatal(err)
		}
		less, equal, greater := regex.Compare(b, d, true, false, false), regex.Equals(b, d), regex.Compare(b, d, false, false, true)
		for _, s := range numbers {
			v, err := strconv.ParseFloat(s, 64)
			decimal := err == nil && !strings.HasPrefix(s, "01") && !strings.HasSuffix(s, ".") && !strings.Contains(s, "e")
			if less.Match(s) != (decimal && v < f) || equal.Match(s) != (decimal && v == f) || greater.Match(s) != (decimal && v > f) {
				t.Errorf("%s beside %s: less %v, equal %v, greater %v", s, bound, less.Match(s), equal.Match(s), greater.Match(s))
			}
		}
		if !equal.Match(d.String()) || !canonical.Match(d.String()) {
			t.Errorf("%s is written %s", bound, d)
		}
	}
	for s, want := range map[string]bool{"0": true, "-0": false, "1.0": false, "1.50": false, "1.05": true, "-0.5": true, "10": true, "-0.0": false} {
		if canonical.Match(s) != want {
			t.Errorf("canonical %s = %v", s, !want)
		}
	}
}

func TestMultiples(t *testing.T) {
	b := &regex.Budget{}
	for of, yes := range map[string]string{
		"1": "0 -0 0.0 -0.00 1 1.0 -1 9 10 99 100 101 123456789 -10 33", "3": "0 -0 0.0 -0.00 9 99 123456789 33", "0.25": "0 -0 0.0 -0.00 1 1.0 -1 9 10 10.50 99 100 101 -7.25 7.25 123456789 1.5 -10 33",
		"0.0001": "0 -0 0.0 -0.00 1 1.0 -1 9 10 10.50 99 100 101 -7.25 7.25 7.2 7.3 0.001 -0.001 0.0075 123456789 1.5 -10 33 0.3", "10": "0 -0 0.0 -0.00 10 100 -10",
	} {
		d, err := regex.ParseDecimal(of)
		if err != nil {
			t.Fatal(err)
		}
		m, err := regex.Multiples(b, d)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range numbers {
			if m.Match(s) {
				got = append(got, s)
			}
		}
		if strings.Join(got, " ") != yes {
			t.Errorf("multiples of %s: %s, want %s", of, got, yes)
		}
	}
	for _, of := range []string{"0", "-1", "4097", "0.12345"} {
		d, _ := regex.ParseDecimal(of)
		if _, err := regex.Multiples(b, d); !errors.Is(err, regex.ErrMultiple) {
			t.Errorf("%s: %v", of, err)
		}
	}
	if _, err := regex.ParseDecimal("1e9999999999"); !errors.Is(err, regex.ErrDigits) {
		t.Errorf("a huge exponent: %v", err)
	}
}

func FuzzCompile(f *testing.F) {
	for _, p := range []string{
		`^a(b|c)*?[^d-f\w]{2,3}\u00e9$`, `(a*)*b`, `\p{L}+\.`, `^\d{3}\-\w+$`, `(?=a)b`, `(?<x>a)\k<x>`, `[^]`, `[]`, `^$|^`, `\u{1F600}|\ud83d\ude00`,
		`((a{9}){9}){9}`, `(a|b)*a(a|b){12}`, `[\s\S]\S`, `\bx\B`, `[z-a]`, `a{3,1}`, `^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}$`,
	} {
		f.Add(p, "abc")
	}
	f.Fuzz(func(t *testing.T, pattern, text string) {
		b := &regex.Budget{Bytes: 4 << 20}
		d, err := regex.Compile(b, pattern)
		if err != nil || !utf8.ValidString(text) {
			return
		}
		not := regex.Not(b, d)
		if b.Err() == nil && d.Match(text) == not.Match(text) {
			t.Errorf("%q and its complement agree on %q", pattern, text)
		}
	})
}

func BenchmarkCompile(b *testing.B) {
	for _, p := range []string{`^[a-z0-9-]{1,63}$`, `^\p{L}+$`, `foo|bar`} {
		b.Run(fmt.Sprintf("%.10s", p), func(b *testing.B) {
			for b.Loop() {
				compile(b, p)
			}
		})
	}
}

// Cut returns the same language as the intersection with Lengths.
func TestCut(t *testing.T) {
	b := &regex.Budget{Time: time.Minute}
	for _, pattern := range []string{``, `^a*$`, `^(ab)*$`, `b+$`, `^[^x]{2,5}$`, `^$`, `é|x`} {
		lang, err := regex.Compile(b, pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, bounds := range [][2]int{{0, -1}, {1, -1}, {3, -1}, {0, 0}, {0, 4}, {2, 3}, {4, 2}, {3, 3}} {
			cut, want := regex.Cut(b, lang, bounds[0], bounds[1]), regex.And(b, lang, regex.Lengths(b, bounds[0], bounds[1]))
			if d := regex.Or(b, regex.Minus(b, cut, want), regex.Minus(b, want, cut)); !d.Empty() {
				t.Errorf("%q cut to %v differs", pattern, bounds)
			}
			if want.Longest() != cut.Longest() {
				t.Errorf("%q cut to %v: the longest string has %d characters, want %d", pattern, bounds, cut.Longest(), want.Longest())
			}
		}
	}
	for pattern, want := range map[string]int{``: -1, `^a{2,7}$`: 7, `^$`: 0, `^(ab|c)(d|eee)$`: 5} {
		lang, err := regex.Compile(b, pattern)
		if err != nil || lang.Longest() != want {
			t.Errorf("%q: the longest string has %d characters, want %d (%v)", pattern, lang.Longest(), want, err)
		}
	}
}
