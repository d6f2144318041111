package llama

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	yzma "github.com/hybridgroup/yzma/pkg/llama"

	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/builtin"
	"github.com/inferd-go/inferd/internal/gbnf"
	"github.com/inferd-go/inferd/internal/vocab"
)

// drawGrammar returns a random grammar over ASCII. A rule refers to later rules only, so each rule
// matches some text.
func drawGrammar(r *rand.Rand) string {
	const rules = 3
	var expression func(rule, depth int) string
	element := func(rule, depth int) string {
		var s string
		switch n := r.IntN(7); {
		case n < 2:
			s = fmt.Sprintf("%q", []string{"a", "b", "ab", "ba", "c", `"`, "}"}[r.IntN(7)])
		case n < 4:
			s = []string{"[ab]", "[^ab\\n]", "[0-9a]", "[a-c]"}[r.IntN(4)]
		case n == 4 && depth > 0:
			s = "(" + expression(rule, depth-1) + ")"
		case n >= 5 && rule+1 < rules:
			s = fmt.Sprintf("r%d", rule+1+r.IntN(rules-rule-1))
		default:
			s = `"x"`
		}
		return s + []string{"", "", "", "?", "{2}", "{0,2}", "*", "+"}[r.IntN(8)]
	}
	expression = func(rule, depth int) string {
		var ways []string
		for range 1 + r.IntN(3) {
			var parts []string
			for range 1 + r.IntN(3) {
				parts = append(parts, element(rule, depth))
			}
			ways = append(ways, strings.Join(parts, " "))
		}
		return strings.Join(ways, " | ")
	}
	var all []string
	for i := range rules {
		name := "root"
		if i > 0 {
			name = fmt.Sprintf("r%d", i)
		}
		all = append(all, name+" ::= "+expression(i, 1))
	}
	return strings.Join(all, "\n") + "\n"
}

// acceptedBy reports for each token whether s, llama.cpp's sampler for a grammar, accepts it next.
func (m *Model) acceptedBy(s yzma.Sampler) []bool {
	all := make([]yzma.TokenData, m.size)
	for i := range all {
		all[i].Id = yzma.Token(i)
	}
	yzma.SamplerApply(s, &yzma.TokenDataArray{Data: &all[0], Size: uint64(m.size), Selected: -1})
	takes := make([]bool, m.size)
	for _, c := range all {
		takes[c.Id] = !math.IsInf(float64(c.Logit), -1)
	}
	return takes
}

// For random grammars and texts, the masks of package vocab agree with llama.cpp's own sampler for
// grammars on every ASCII token, and on whether an answer may end.
func TestMasksAgreeWithLlamaCpp(t *testing.T) {
	path, err := builtin.Ensure(t.TempDir(), "tiny")
	if err != nil {
		t.Fatal(err)
	}
	m, err := Load(path, Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	words, ends := m.Vocabulary(nil)
	v := vocab.New(words, nil)
	r := rand.New(rand.NewPCG(1, 2))
	drawn, leastGrammars, leastPositions := 120, 50, 250
	if testing.Short() {
		drawn, leastGrammars, leastPositions = 40, 16, 83
	}
	grammars, positions := 0, 0
	for range drawn {
		source := drawGrammar(r)
		g, err := gbnf.Compile(source, nil, nil)
		theirs := yzma.SamplerInitGrammar(m.vocab, source, "root")
		if err != nil || theirs == 0 { // for example at a repetition of an element that may be empty
			if theirs != 0 {
				yzma.SamplerFree(theirs)
			}
			continue
		}
		grammars++
		positions += follow(t, m, v, automaton.New(g), theirs, ends, r, source)
		yzma.SamplerFree(theirs)
	}
	t.Logf("%d grammars, %d positions", grammars, positions)
	if grammars < leastGrammars || positions < leastPositions {
		t.Errorf("%d grammars and %d positions are too few", grammars, positions)
	}
}

// follow walks through a random text of the grammar. At each position it compares our mask with the
// tokens that llama.cpp's sampler accepts. It returns the number of positions.
func follow(t *testing.T, m *Model, v *vocab.Vocab, a *automaton.Automaton, theirs yzma.Sampler, ends []int32, r *rand.Rand, source string) (positions int) {
	t.Helper()
	masks, cursor, mask, text := vocab.NewMasks(v, a), a.Open(), make([]uint64, v.Words()), ""
	for range 12 {
		if err := masks.Mask(cursor, mask); err != nil {
			t.Fatalf("%s\nbehind %q: %v", source, text, err)
		}
		positions++
		takes := m.acceptedBy(theirs)
		var fit []int32
		for id := int32(1); id < 0x80; id++ { // other ids differ: llama.cpp accepts halves of longer characters, and no NUL
			if vocab.Has(mask, id) != takes[id] {
				t.Fatalf("%s\nbehind %q: token %q: mask %v, llama.cpp %v", source, text, v.Bytes(id), vocab.Has(mask, id), takes[id])
			}
			if takes[id] {
				fit = append(fit, id)
			}
		}
		for _, id := range ends {
			if cursor.MayEnd() != takes[id] {
				t.Fatalf("%s\nbehind %q: may end %v, llama.cpp %v", source, text, cursor.MayEnd(), takes[id])
			}
		}
		if len(fit) == 0 {
			break
		}
		id := fit[r.IntN(len(fit))]
		if !masks.Next(cursor, id) {
			t.Fatalf("%s\nbehind %q: token %q does not fit", source, text, v.Bytes(id))
		}
		yzma.SamplerAccept(theirs, yzma.Token(id))
		text += string(v.Bytes(id))
	}
	return positions
}
