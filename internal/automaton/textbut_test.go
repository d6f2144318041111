package automaton_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/inferd-go/inferd/internal/automaton"
)

// TextBut takes the texts that Text takes, except the given words.
func TestTextBut(t *testing.T) {
	grammar := func(t *rapid.T, write func(b *automaton.Builder, next automaton.Node) automaton.Node) *automaton.Automaton {
		var b automaton.Builder
		r := b.Rule()
		b.Body(r, write(&b, b.Bytes(`"`, b.End())))
		g, err := b.Build(r)
		if err != nil {
			t.Fatal(err)
		}
		return automaton.New(g)
	}
	rapid.Check(t, func(t *rapid.T) {
		letters := []string{"a", "b", "é", "日", `\"`, `\n`, `\u0001`, "🙂"}
		text := func(label string) (s string) {
			for _, i := range rapid.SliceOfN(rapid.IntRange(0, len(letters)-1), 0, 4).Draw(t, label) {
				s += letters[i]
			}
			return s
		}
		var words []string
		for range rapid.IntRange(0, 6).Draw(t, "words") {
			words = append(words, text("word"))
		}
		all := grammar(t, func(b *automaton.Builder, next automaton.Node) automaton.Node {
			return b.Text(0, automaton.Unlimited, next)
		})
		but := grammar(t, func(b *automaton.Builder, next automaton.Node) automaton.Node {
			return b.DFA(automaton.TextBut(words), next)
		})
		for _, s := range append(slices.Clone(words), text("other"), "a"+text("tail"), "\xc3", `\`, `\u0041`, "\x00", "\xff") {
			x, y := all.Open(), but.Open()
			taken := x.Feed([]byte(s+`"`)) && x.MayEnd()
			if got, want := y.Feed([]byte(s+`"`)) && y.MayEnd(), taken && !slices.Contains(words, s); got != want {
				t.Fatalf("%q without %q: %v, want %v", s, words, got, want)
			}
		}
	})
}
