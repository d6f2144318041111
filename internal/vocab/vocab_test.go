package vocab_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/schema"
	"github.com/inferd-go/inferd/internal/vocab"
)

// schemas have grammars with parts of every kind: free and bounded strings, patterns, guards, numbers.
var schemas = []string{
	`true`,
	`{"type":"string","maxLength":5}`,
	`{"type":"string","minLength":3,"maxLength":20}`,
	`{"type":"string","pattern":"^[a-c]{2,}x?$"}`,
	`{"type":"string","pattern":"^([ab1]|é )*$","maxLength":300}`,
	`{"type":"array","uniqueItems":true,"items":{"enum":["a","b","ab",1,12,true,null]},"minItems":2}`,
	`{"type":"array","uniqueItems":true,"items":{"type":"string","maxLength":1},"maxItems":5}`,
	`{"anyOf":[{"type":"array","uniqueItems":true,"items":{"enum":["a","b",1,12]}},{"type":"array","items":{"enum":["a",1,2]},"minItems":3,"maxItems":6}]}`,
	`{"type":"object","patternProperties":{"^[ab]$":{"type":"integer"}},"additionalProperties":false,"minProperties":1}`,
	`{"type":"object","additionalProperties":{"type":"boolean"},"properties":{"a":{},"ab":{"type":"string"}},"required":["ab"]}`,
	`{"type":"number","minimum":-12,"maximum":100}`,
	`{"type":"object","properties":{"xa":{},"b":{}},"patternProperties":{"^x":{"type":"integer"},"^x2.":{"maximum":3}}}`,
	`{"type":"string","pattern":"^[$1a].*$"}`,
	`{"type":"object","patternProperties":{"^[^x]{3}":{},"^.?.?[^a]":{"type":"null"}},"additionalProperties":false}`,
	`{"anyOf":[{"type":"string","format":"date"},{"type":"object","properties":{"é":{"const":"\u0001\"\\日"}}}]}`,
	`{"$ref":"#/$defs/tree","$defs":{"tree":{"type":"object","properties":{"v":{"type":"integer"},"next":{"$ref":"#/$defs/tree"}},"required":["v"],"additionalProperties":false}}}`,
}

func compile(tb testing.TB, source string) *automaton.Grammar {
	tb.Helper()
	s, err := schema.Compile([]byte(source), &automaton.Budget{Time: time.Minute})
	if err != nil {
		tb.Fatalf("%s: %v", source, err)
	}
	return s.Grammar
}

// drawVocab draws a small vocabulary: all bytes, pieces of JSON, twins, control tokens.
func drawVocab(t *rapid.T) *vocab.Vocab {
	var tokens []vocab.Token
	for b := range 256 {
		tokens = append(tokens, vocab.Token{Bytes: []byte{byte(b)}})
	}
	pieces := []string{`$`, "\u2028", "\xe2", "\xa8", `a`, `b`, `x`, `"`, `":`, `",`, `{"`, `["`, ` `, "\n ", `1`, `2`, `12`, `,`, `true`, `null`, `é`, "\xe6\x97", `日`, `\`, `\u0001`, `ab`, `}`, `]`, `next`, `v`, `20`, `-0`}
	for range rapid.IntRange(0, 60).Draw(t, "tokens") {
		var text strings.Builder
		for range rapid.IntRange(0, 5).Draw(t, "pieces") {
			text.WriteString(rapid.SampledFrom(pieces).Draw(t, "piece"))
		}
		tokens = append(tokens, vocab.Token{Bytes: []byte(text.String()), Control: rapid.IntRange(0, 9).Draw(t, "control") == 0})
	}
	for _, n := range []int{8, 9, 16, 17, 18, 32, 33, 40} { // the borders of groups
		tokens = append(tokens, vocab.Token{Bytes: slices.Repeat([]byte("a"), n)})
	}
	return vocab.New(tokens, nil)
}

// Along random texts of random schemas, every mask has exactly the tokens that fit: with groups and
// kept masks, without them, and when it is computed a second time. The ends that Shortest and
// ShortestBehind return complete the text, and do not depend on kept ends.
func TestMasks(t *testing.T) {
	grammars := make(map[string]*automaton.Grammar)
	for _, s := range schemas {
		grammars[s] = compile(t, s)
	}
	rapid.Check(t, func(t *rapid.T) {
		v := drawVocab(t)
		source := rapid.SampledFrom(schemas).Draw(t, "schema")
		a := automaton.New(grammars[source])
		c := a.Open()
		quick, plainly := vocab.NewMasks(v, a), vocab.NewMasks(v, a)
		plainly.Plainly = true
		text := ""
		for range 15 {
			var masks [3][]uint64
			for i, m := range []*vocab.Masks{quick, plainly, quick} {
				masks[i] = make([]uint64, v.Words())
				if err := m.Mask(c, masks[i]); err != nil {
					t.Fatal(err)
				}
			}
			var fit []int32
			for id := range int32(v.Len()) {
				p := v.Bytes(id)
				probe := a.Open() // a new cursor, which has seen no other token
				want := !v.Control(id) && len(p) > 0 && probe.Feed(append([]byte(text), p...))
				probe.Close()
				for i, name := range []string{"quick", "plain", "again"} {
					if got := vocab.Has(masks[i], id); got != want {
						t.Fatalf("%s: behind %q, token %q: %s mask %v, want %v", source, text, p, name, got, want)
					}
				}
				if want {
					fit = append(fit, id)
				}
			}
			if len(fit) == 0 {
				if !c.MayEnd() {
					t.Fatalf("%s: %q is a dead end", source, text)
				}
				break
			}
			id := rapid.SampledFrom(fit).Draw(t, "next")
			var symbols []automaton.Symbol
			for _, b := range v.Bytes(id) {
				symbols = append(symbols, automaton.Symbol(b))
			}
			behind, found := c.ShortestBehind(symbols, 500)
			if !quick.Next(c, id) {
				t.Fatalf("%s: token %q does not fit behind %q", source, v.Bytes(id), text)
			}
			text += string(v.Bytes(id))
			end, ok := c.Shortest(500)
			if !ok || v.Count(end) > len(end) || !found || !slices.Equal(behind, end) {
				t.Fatalf("%s: behind %q: Shortest = %v, %v; before it %v", source, text, end, ok, behind)
			}
			probe := a.Open()
			probe.Feed([]byte(text)) // remembers no end
			if again, _ := probe.Shortest(500); !slices.Equal(again, end) {
				t.Fatalf("%s: behind %q: Shortest = %v, before %v", source, text, again, end)
			}
			probe.Close()
			probe = a.Open()
			whole := []byte(text)
			for _, s := range end {
				whole = append(whole, byte(s))
			}
			if !probe.Feed(whole) || !probe.MayEnd() {
				t.Fatalf("%s: %q, ended as %q, does not fit", source, text, whole)
			}
			probe.Close()
		}
	})
}

func TestControlTokensAndTwins(t *testing.T) {
	v := vocab.New([]vocab.Token{{Bytes: []byte(`"`)}, {Bytes: []byte("a"), Control: true}, {Bytes: []byte("a")}, {}, {Bytes: []byte("a")}, {Bytes: []byte{0xc3}}, {Bytes: []byte{0xa9}}}, nil)
	a := automaton.New(compile(t, `{"type":"string"}`))
	m := vocab.NewMasks(v, a)
	c := a.Open()
	for _, step := range []struct {
		token int32
		want  string
	}{{0, "[0 2 4 5]"}, {5, "[6]"}, {6, "[0 2 4 5]"}, {4, "[0 2 4 5]"}, {0, "[]"}} {
		if !m.Next(c, step.token) {
			t.Fatalf("token %d does not fit", step.token)
		}
		mask := make([]uint64, v.Words())
		if err := m.Mask(c, mask); err != nil {
			t.Fatal(err)
		}
		var got []int32
		for id := range int32(v.Len()) {
			if vocab.Has(mask, id) {
				got = append(got, id)
			}
		}
		if fmt.Sprint(got) != step.want {
			t.Errorf("behind token %d: %v, want %s", step.token, got, step.want)
		}
	}
	if m.Next(c, 1) || m.Next(c, 3) {
		t.Error("a control token or an empty one fits")
	}
}

// Tokens that the grammar names by id fit whatever their bytes are.
func TestTokensByID(t *testing.T) {
	var b automaton.Builder
	r := b.Rule()
	b.Body(r, b.Token(1, b.OtherToken(0, b.End())))
	g, err := b.Build(r)
	if err != nil {
		t.Fatal(err)
	}
	v := vocab.New([]vocab.Token{{Bytes: []byte("x")}, {Control: true}, {Bytes: []byte("y")}}, nil)
	a := automaton.New(g)
	m, c, mask := vocab.NewMasks(v, a), a.Open(), make([]uint64, 1)
	if err := m.Mask(c, mask); err != nil || mask[0] != 0b010 {
		t.Errorf("first: %b, %v", mask[0], err)
	}
	if m.Next(c, 0) || !m.Next(c, 1) {
		t.Error("want token 1 to fit, and 0 not")
	}
	if err := m.Mask(c, mask); err != nil || mask[0] != 0b110 {
		t.Errorf("second: %b, %v", mask[0], err)
	}
}

func TestCount(t *testing.T) {
	v := vocab.New([]vocab.Token{{Bytes: []byte(`"`)}, {Bytes: []byte(`"a`)}, {Bytes: []byte("abc")}, {Bytes: []byte("a")}, {Bytes: []byte("ab")}}, nil)
	var text []automaton.Symbol
	for _, b := range []byte(`"abcabz`) { // "a|b|c|ab|z
		text = append(text, automaton.Symbol(b))
	}
	if n := v.Count(append(text, 300)); n != 6 {
		t.Errorf("Count = %d, want 6", n)
	}
}

// Plain counts plain characters that the ways of a state take only together: one way takes the names
// that match a pattern, and another one takes other names.
func TestPlain(t *testing.T) {
	for source, test := range map[string]struct {
		text string
		want int
	}{
		`{"type":"object","properties":{"xa":{},"b":{}},"patternProperties":{"^x":{"type":"integer"}}}`:                  {`{"`, math.MaxInt32},
		`{"type":"object","patternProperties":{"^x":{},"^xyz":{}}}`:                                                      {`{"xy`, math.MaxInt32},
		`{"type":"object","patternProperties":{"^x":{}},"additionalProperties":false}`:                                   {`{"`, 0},
		`{"type":"object","patternProperties":{"^[^x]{3}":{},"^.?.?[^a]":{"type":"null"}},"additionalProperties":false}`: {`{"`, math.MaxInt32},
		`{"type":"object","patternProperties":{"^[^x]{3}$":{},"^.[^a].$":{"type":"null"}},"additionalProperties":false}`: {`{"`, 1},
		`{"type":"string","pattern":"^\\$.*$"}`:                                                                          {`"$`, math.MaxInt32},
		`{"type":"string","pattern":"^[^x]*$"}`:                                                                          {`"a`, 0},
	} {
		a := automaton.New(compile(t, source))
		c := a.Open()
		if !c.Feed([]byte(test.text)) {
			t.Fatalf("%s: %s does not fit", source, test.text)
		}
		if n, _ := a.Plain(c.State()); n != test.want {
			t.Errorf("%s behind %s: %d plain characters, want %d", source, test.text, n, test.want)
		}
	}
}

// New calls yield often for a large vocabulary. A vocabulary that is made without yield has as many
// tokens, and counts a text in the same way.
func TestYields(t *testing.T) {
	tokens, yields := synthetic(20_000), 0
	v, other := vocab.New(tokens, func() { yields++ }), vocab.New(tokens, nil)
	if yields < 100 {
		t.Errorf("%d yields", yields)
	}
	text := []automaton.Symbol{'a', 'b', 'a', ' ', 't', 'h', 'e'}
	if v.Len() != other.Len() || v.Count(text) != other.Count(text) {
		t.Error("they differ")
	}
}

// synthetic returns n tokens that resemble a large vocabulary: mostly words with or without a
// leading space, some code, and single bytes.
func synthetic(n int) []vocab.Token {
	r := rand.New(rand.NewPCG(1, 2))
	var tokens []vocab.Token
	for b := range 256 {
		tokens = append(tokens, vocab.Token{Bytes: []byte{byte(b)}})
	}
	syllables := []string{"a", "be", "ti", "on", "er", "in", "al", "st", "re", "日", "本", "é", "ло", "go", "th", "qu", "us"}
	marks := []string{"\"", "\":", "\",", "{\"", "[\"", "\\n", "\n  ", "},", "]", "\\\"", "\t", "();\n"}
	for len(tokens) < n {
		text := ""
		if r.IntN(2) == 0 {
			text = " "
		}
		for range 1 + r.IntN(5) {
			text += syllables[r.IntN(len(syllables))]
		}
		switch r.IntN(120) {
		case 0:
			text = marks[r.IntN(len(marks))] + text
		case 1:
			text += marks[r.IntN(len(marks))]
		case 2, 3, 4, 5:
			text = fmt.Sprint(r.IntN(10000))
		}
		tokens = append(tokens, vocab.Token{Bytes: []byte(text)})
	}
	return tokens
}

// Once the transitions are known, computing a mask allocates nothing, even if no masks are kept.
func TestNoAllocation(t *testing.T) {
	v := vocab.New(synthetic(20_000), nil)
	for _, source := range schemas {
		a := automaton.New(compile(t, source))
		m, c, mask := vocab.NewMasks(v, a), a.Open(), make([]uint64, v.Words())
		m.Plainly = true
		for _, p := range []string{"", "{", `{"`, `"`, `["`, `1`} {
			if p != "" && !c.Feed([]byte(p)) {
				continue
			}
			once := func() {
				if err := m.Mask(c, mask); err != nil {
					t.Fatal(err)
				}
			}
			once()
			if n := testing.AllocsPerRun(5, once); n > 0 {
				t.Errorf("%s: behind %q: %v allocations", source, p, n)
			}
			c.Close()
			c = a.Open()
		}
	}
}

// The memory of the kept masks stays within its bound, and Forget frees it. A mask that was dropped is
// computed again, and is the same.
func TestKeptMasksAreBounded(t *testing.T) {
	v := vocab.New(synthetic(1<<15), nil)
	a := automaton.New(compile(t, `{"type":"string","pattern":"^([a-z]{1,400}[0-9])+$"}`))
	m, plainly := vocab.NewMasks(v, a), vocab.NewMasks(v, a)
	plainly.Plainly = true
	x, y := make([]uint64, v.Words()), make([]uint64, v.Words())
	for range 2 {
		c := a.Open()
		for _, b := range []byte(`"` + strings.Repeat("a", 380) + "1" + strings.Repeat("b", 380)) {
			if err := errors.Join(m.Mask(c, x), plainly.Mask(c, y)); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(x, y) {
				t.Fatal("masks differ")
			}
			if !c.Feed([]byte{b}) {
				t.Fatalf("%q does not fit", b)
			}
		}
		c.Close()
	}
	fresh := vocab.NewMasks(v, a).Bytes()
	if n := m.Bytes(); n <= fresh || n > 2<<20+64<<10 {
		t.Errorf("%d bytes are kept", n)
	}
	if m.Forget(); m.Bytes() != fresh {
		t.Errorf("%d bytes are kept after Forget", m.Bytes())
	}
}
