package automaton_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/inferd-go/inferd/internal/automaton"
)

// A form is an expression of a grammar, both for the naive recogniser and for a Builder.
type form struct {
	kind        string // byte, set, seq, alt, repeat, rule, dfa
	text        string
	parts       []form
	least, most int // most < 0: no maximum
	rule        int
}

// abPlus is the DFA of (ab)+.
var abPlus = &automaton.DFA{
	First: []int32{0, 1, 2, 3}, Accept: []bool{false, false, true},
	Edges: []automaton.Edge{{Lo: 'a', Hi: 'a', To: 1}, {Lo: 'b', Hi: 'b', To: 2}, {Lo: 'a', Hi: 'a', To: 1}},
}

// naive is a recogniser by backtracking. work counts its steps, because some grammars would take too many
// of them.
type naive struct {
	rules []form
	work  int
}

const enough = 1_000_000

// ends returns the positions where a text of the form that begins at position at may end. It is plain
// backtracking, so it is easy to see that it is correct.
func (f form) ends(rules *naive, text string, at int) map[int]bool {
	out := make(map[int]bool)
	if rules.work++; rules.work > enough {
		return out
	}
	switch f.kind {
	case "byte":
		if strings.HasPrefix(text[at:], f.text) {
			out[at+len(f.text)] = true
		}
	case "set":
		if at < len(text) && strings.IndexByte(f.text, text[at]) >= 0 {
			out[at+1] = true
		}
	case "seq":
		out[at] = true
		for _, p := range f.parts {
			out = after(p, rules, text, out)
		}
	case "alt":
		for _, p := range f.parts {
			for e := range p.ends(rules, text, at) {
				out[e] = true
			}
		}
	case "repeat":
		reached := map[int]bool{at: true}
		for n := 0; len(reached) > 0 && (f.most < 0 && n <= f.least+len(text)+1 || n <= f.most); n++ {
			if n >= f.least {
				for e := range reached {
					out[e] = true
				}
			}
			reached = after(f.parts[0], rules, text, reached)
		}
	case "rule":
		return rules.rules[f.rule].ends(rules, text, at)
	case "dfa":
		for e := at; strings.HasPrefix(text[e:], "ab"); {
			e += 2
			out[e] = true
		}
	}
	return out
}

func after(f form, rules *naive, text string, from map[int]bool) map[int]bool {
	out := make(map[int]bool)
	for at := range from {
		for e := range f.ends(rules, text, at) {
			out[e] = true
		}
	}
	return out
}

// build returns a node that takes a text of the form, followed by next.
func (f form) build(b *automaton.Builder, rules []automaton.Rule, next automaton.Node) automaton.Node {
	switch f.kind {
	case "byte":
		return b.Bytes(f.text, next)
	case "set":
		var s automaton.Set
		for i := range len(f.text) {
			s.Add(f.text[i], f.text[i])
		}
		return b.Set(s, next)
	case "seq":
		for _, p := range slices.Backward(f.parts) {
			next = p.build(b, rules, next)
		}
		return next
	case "alt":
		var ways []automaton.Node
		for _, p := range f.parts {
			ways = append(ways, p.build(b, rules, next))
		}
		return b.Alt(ways...)
	case "repeat":
		body := b.Rule()
		b.Body(body, f.parts[0].build(b, rules, b.End()))
		most := f.most
		if most < 0 {
			most = automaton.Unlimited
		}
		return b.Repeat(body, f.least, most, next)
	case "rule":
		return b.Nest(rules[f.rule], next)
	case "dfa":
		return b.DFA(abPlus, next)
	}
	panic(f.kind)
}

func drawForm(t *rapid.T, depth, rules int) form {
	kinds := []string{"byte", "byte", "set", "dfa", "byte rule"}
	if depth > 0 {
		kinds = append(kinds, "seq", "seq", "alt", "alt", "repeat")
	}
	f := form{kind: rapid.SampledFrom(kinds).Draw(t, "kind")}
	switch f.kind {
	case "byte":
		f.text = rapid.SampledFrom([]string{"", "a", "b", "c", "ab", "ca"}).Draw(t, "text")
	case "set":
		f.text = rapid.SampledFrom([]string{"ab", "bc", "abc", ""}).Draw(t, "set")
	case "byte rule": // begins with a byte, so no rule begins with itself
		return form{kind: "seq", parts: []form{
			{kind: "byte", text: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "text")},
			{kind: "rule", rule: rapid.IntRange(0, rules-1).Draw(t, "rule")},
		}}
	case "seq", "alt":
		for range rapid.IntRange(0, 3).Draw(t, "parts") {
			f.parts = append(f.parts, drawForm(t, depth-1, rules))
		}
	case "repeat":
		f.parts = []form{drawForm(t, depth-1, rules)}
		f.least = rapid.IntRange(0, 3).Draw(t, "least")
		f.most = rapid.SampledFrom([]int{-1, f.least, f.least + 1, f.least + 2}).Draw(t, "most")
	}
	return f
}

// texts returns all texts of the letters a, b and c, up to a length of most.
func texts(most int) []string {
	all := []string{""}
	for i := 0; i < len(all); i++ {
		if len(all[i]) < most {
			all = append(all, all[i]+"a", all[i]+"b", all[i]+"c")
		}
	}
	return all
}

func TestAgainstNaiveRecogniser(t *testing.T) {
	all := texts(6)
	rapid.Check(t, func(t *rapid.T) {
		rules := make([]form, rapid.IntRange(1, 3).Draw(t, "rules"))
		for i := range rules {
			rules[i] = drawForm(t, 3, len(rules))
		}
		n := &naive{rules: rules}
		var b automaton.Builder
		made := make([]automaton.Rule, len(rules))
		for i := range rules {
			made[i] = b.Rule()
		}
		for i, r := range rules {
			b.Body(made[i], r.build(&b, made, b.End()))
		}
		g, err := b.Build(made[0])
		accepted := make(map[string]bool) // including prefixes of texts that fit
		fits := 0
		for _, text := range all {
			if rules[0].ends(n, text, 0)[len(text)] {
				fits++
				for i := range len(text) + 1 {
					accepted[text[:i]] = true
				}
			}
		}
		if n.work > enough/2 {
			return
		}
		if err != nil {
			if !errors.Is(err, automaton.ErrNothing) || fits > 0 {
				t.Fatalf("Build: %v, though %d texts fit", err, fits)
			}
			return
		}
		a := automaton.New(g)
		n.work = 0
		for _, text := range all {
			c := a.Open()
			ok := c.Feed([]byte(text))
			if got, want := ok && c.MayEnd(), rules[0].ends(n, text, 0)[len(text)]; got != want {
				t.Fatalf("%q: fits = %v, want %v", text, got, want)
			}
			if !ok && accepted[text] {
				t.Fatalf("%q: refused, though a longer text fits", text)
			}
			if ok {
				end, ended := c.Shortest(1000)
				var whole strings.Builder
				whole.WriteString(text)
				for _, s := range end {
					whole.WriteString(string(rune(s)))
				}
				if !ended || len(end) != a.Cost(c.State()) || n.work < enough && !rules[0].ends(n, whole.String(), 0)[len(whole.String())] && n.work < enough {
					t.Fatalf("%q: Shortest = %v %v, cost %d", text, end, ended, a.Cost(c.State()))
				}
			}
			if len(text) == 3 {
				a.Renew(nil)
			}
			c.Close()
		}
	})
}

func TestBuildRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		build func(b *automaton.Builder, r automaton.Rule) automaton.Node
		want  error
	}{
		"a rule that begins with itself": {func(b *automaton.Builder, r automaton.Rule) automaton.Node {
			return b.Alt(b.Call(r, b.Bytes("a", b.End())), b.Bytes("b", b.End()))
		}, automaton.ErrLeftRecursion},
		"behind what may be empty": {func(b *automaton.Builder, r automaton.Rule) automaton.Node {
			return b.Alt(b.Text(0, 3, b.Call(r, b.End())), b.Bytes("b", b.End()))
		}, automaton.ErrLeftRecursion},
		"a rule without an end":       {func(b *automaton.Builder, r automaton.Rule) automaton.Node { return b.Bytes("a", b.Call(r, b.End())) }, automaton.ErrNothing},
		"no alternatives":             {func(b *automaton.Builder, _ automaton.Rule) automaton.Node { return b.Bytes("a", b.Alt()) }, automaton.ErrNothing},
		"a maximum below the minimum": {func(b *automaton.Builder, _ automaton.Rule) automaton.Node { return b.Text(3, 2, b.End()) }, automaton.ErrNothing},
		"an empty set":                {func(b *automaton.Builder, _ automaton.Rule) automaton.Node { return b.Set(automaton.Set{}, b.End()) }, automaton.ErrNothing},
		"more memory than the budget has": {func(b *automaton.Builder, _ automaton.Rule) automaton.Node {
			b.Budget = &automaton.Budget{Bytes: 1000}
			return b.Bytes(strings.Repeat("a", 100), b.End())
		}, automaton.ErrMemory},
		"more time than the budget has": {func(b *automaton.Builder, _ automaton.Rule) automaton.Node {
			b.Budget = &automaton.Budget{Time: 1}
			b.Spend(0)

			return b.Bytes(strings.Repeat("a", 1000), b.End())
		}, automaton.ErrTime},
	} {
		t.Run(name, func(t *testing.T) {
			var b automaton.Builder
			r := b.Rule()
			b.Body(r, test.build(&b, r))
			if _, err := b.Build(r); !errors.Is(err, test.want) {
				t.Errorf("Build = %v, want %v", err, test.want)
			}
		})
	}
}

// A long compilation calls Yield repeatedly.
func TestYield(t *testing.T) {
	yields := 0
	b := &automaton.Budget{Yield: func() { yields++ }}
	for yields < 3 && b.Spend(0) { // Spend reports false at the time limit at the latest
	}
	if yields < 3 {
		t.Errorf("yielded %d times", yields)
	}
}

// Depth bounds the levels of nesting. A text at the last level can still end.
func TestDepth(t *testing.T) {
	b := automaton.Builder{Depth: 5}
	r := b.Rule()
	b.Body(r, b.Alt(b.Bytes("x", b.End()), b.Bytes("(", b.Nest(r, b.Bytes(")", b.End())))))
	g, err := b.Build(r)
	if err != nil {
		t.Fatal(err)
	}
	c := automaton.New(g).Open()
	if !c.Feed([]byte("(((((")) || c.Feed([]byte("(")) || !c.Feed([]byte("x)))))")) || !c.MayEnd() {
		t.Error("want five levels, and not six")
	}
}

func TestItemsAreBounded(t *testing.T) {
	var b automaton.Builder
	word, r := b.Rule(), b.Rule()
	b.Body(word, b.Alt(b.Bytes("a", b.End()), b.End()))
	b.Body(r, b.Repeat(word, 0, 60000, b.Bytes("b", b.End())))
	g, err := b.Build(r)
	if err != nil {
		t.Fatal(err)
	}
	a := automaton.New(g)
	if s := a.Start(); s != automaton.Dead || !errors.Is(a.Err(), automaton.ErrItems) {
		t.Errorf("Start = %v, Err = %v", s, a.Err())
	}
}

func TestTokens(t *testing.T) {
	var b automaton.Builder
	r := b.Rule()
	b.Body(r, b.Alt(b.Token(7, b.Bytes("x", b.End())), b.OtherToken(3, b.Bytes("y", b.End())), b.Bytes("long", b.End())))
	g, err := b.Build(r)
	if err != nil {
		t.Fatal(err)
	}
	c := automaton.New(g).Open()
	if end, ok := c.Shortest(9); !ok || fmt.Sprint(end) != "[263 120]" {
		t.Errorf("Shortest = %v", end)
	}
	if c.FeedToken(3) || c.Feed([]byte("x")) || !c.FeedToken(7) || !c.Try([]byte("y")) || !c.Feed([]byte("x")) || !c.MayEnd() {
		t.Error("want token 7 and x")
	}
}

// A mark is passed with the byte before it in the grammar. Marks returns the marks that any way has
// passed there, SureMarks the marks that all ways have passed.
func TestMarks(t *testing.T) {
	var b automaton.Builder
	r := b.Rule()
	b.Body(r, b.Alt(b.Bytes("ab", b.Mark(automaton.User, b.Bytes("c", b.Mark(automaton.User<<1, b.End())))), b.Bytes("abd", b.End())))
	g, err := b.Build(r)
	if err != nil {
		t.Fatal(err)
	}
	c := automaton.New(g).Open()
	c.Feed([]byte("ab"))
	if c.Marks() != automaton.User || c.SureMarks() != 0 {
		t.Errorf("behind ab: %b, sure %b", c.Marks(), c.SureMarks())
	}
	c.Feed([]byte("c"))
	if c.Marks() != automaton.User<<1 || c.SureMarks() != automaton.User<<1 {
		t.Errorf("behind abc: %b, sure %b", c.Marks(), c.SureMarks())
	}
}

// unique returns the automaton of the lists [x,…] of at least two different words. A word has one
// or two letters, each of them a or b.
func unique(t *testing.T) *automaton.Automaton {
	t.Helper()
	var b automaton.Builder
	item, more, r := b.Rule(), b.Rule(), b.Rule()
	var ab automaton.Set
	ab.Add('a', 'b')
	letter := b.Rule()
	b.Body(letter, b.Set(ab, b.End()))
	b.Body(item, b.Repeat(letter, 1, 2, b.End()))
	b.Body(more, b.Bytes(",", b.Mark(automaton.End|automaton.Begin, b.Call(item, b.End()))))
	b.Body(r, b.Bytes("[", b.Mark(automaton.Open|automaton.Begin, b.Call(item, b.Repeat(more, 1, automaton.Unlimited, b.Bytes("]", b.Mark(automaton.End|automaton.Close, b.End())))))))
	g, err := b.Build(r)
	if err != nil {
		t.Fatal(err)
	}
	return automaton.New(g)
}

func TestGuard(t *testing.T) {
	for text, want := range map[string]string{
		"[a,b]":             "",
		"[a,a]":             "]", // a may become aa or ab
		"[a,aa,a,":          ",",
		"[a,aa,ab,a":        "a", // no new word begins with a
		"[a,aa,ab,b,ba,bb":  "",
		"[a,aa,ab,b,ba,bb,": ",", // all six words are used
		"[a,b,a]":           "]",
	} {
		c := unique(t).Open()
		refused := ""
		for i := range len(text) {
			ok := c.Try([]byte{text[i]})
			if ok != c.Feed([]byte{text[i]}) {
				t.Fatalf("%q: Try and Feed differ", text[:i+1])
			}
			if !ok {
				refused = text[i : i+1]
				break
			}
			probe := c.Automaton().Open()
			if !probe.Feed([]byte(text[:i+1])) {
				t.Errorf("%q in one piece is refused", text[:i+1])
			}
			end, ok := probe.Shortest(100)
			for _, s := range end {
				if !probe.Feed([]byte{byte(s)}) {
					t.Errorf("%q: Shortest = %v does not fit", text[:i+1], end)
				}
			}
			if !ok || !probe.MayEnd() {
				t.Errorf("%q: Shortest = %v, %v", text[:i+1], end, ok)
			}
			probe.Close()
		}
		if refused != want {
			t.Errorf("%q: refused %q, want %q", text, refused, want)
		}
	}
}

// A cursor keeps its position when a full automaton is renewed. The automaton gets full because a string
// with a maximum length needs a state for each character.
func TestRenew(t *testing.T) {
	var b automaton.Builder
	r := b.Rule()
	b.Body(r, b.Bytes(`"`, b.Text(0, 200_000, b.Bytes(`"`, b.End()))))
	g, err := b.Build(r)
	if err != nil {
		t.Fatal(err)
	}
	a := automaton.New(g)
	c := a.Open()
	c.Feed([]byte(`"`))
	for range 200_000 {
		if !c.Feed([]byte("x")) {
			t.Fatal("refused")
		}
		if a.Full() {
			a.Renew(nil)
		}
	}
	if c.Feed([]byte("x")) || !c.Feed([]byte(`"`)) || !c.MayEnd() || a.Renewed() == 0 || a.Bytes() > 64<<20 {
		t.Errorf("renewed %d times, %d bytes", a.Renewed(), a.Bytes())
	}
}

func TestText(t *testing.T) {
	var b automaton.Builder
	r := b.Rule()
	b.Body(r, b.Text(1, 2, b.End()))
	g, err := b.Build(r)
	if err != nil {
		t.Fatal(err)
	}
	a := automaton.New(g)
	for text, want := range map[string]bool{
		"a": true, "é": true, "日本": true, "🙂🙂": true, `\"\\`: true, `\u001f\u000b`: true, "\x7f": true, "": false, "abc": false, `"`: false, "\n": false,
		`\u0041`: false, `\u001F`: false, `\u000a`: false, `\/`: false, "\xed\xa0\x80": false, "\xc0\x80": false, "\xf4\x90\x80\x80": false, "\xe0\x80\x80": false, "\xc3": false,
	} {
		c := a.Open()
		if got := c.Feed([]byte(text)) && c.MayEnd(); got != want {
			t.Errorf("%q = %v, want %v", text, got, want)
		}
	}
}
