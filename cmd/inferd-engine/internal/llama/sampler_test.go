package llama_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/constraint"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/llama"
	"github.com/inferd-go/inferd/internal/infer"
)

// hello decodes a prompt and returns the entry of its last token. Several samplers may draw from its
// logits.
func hello(t *testing.T, m *llama.Model, c *llama.Context) int {
	t.Helper()
	tokens, err := m.Tokenize("hello", false)
	if err != nil {
		t.Fatal(err)
	}
	entry, err := read(c, 0, 0, tokens)
	if err != nil {
		t.Fatal(err)
	}
	return entry
}

// draw samples tokens up to an end token, at most 100, and returns their text. All are drawn from the
// same logits. If grammar is not empty, they are drawn from the masks of the grammar.
func draw(t *testing.T, m *llama.Model, c *llama.Context, entry int, opt infer.Sampling, grammar string) (string, error) {
	t.Helper()
	s, err := llama.NewSampler(m, llama.SamplerOptions{Sampling: opt, Masked: grammar != ""})
	if err != nil {
		return "", err
	}
	defer s.Free()
	var answer *constraint.Answer
	if grammar != "" {
		k, _, err := (&constraint.Compiler{Model: m}).Compile(t.Context(), "", constraint.Format{Format: &infer.Format{Grammar: grammar}})
		if err != nil {
			return "", err
		}
		if answer, err = k.Open(1000); err != nil {
			return "", err
		}
	}
	var out []byte
	for range 100 {
		tok, err := one(s, c, entry, answer)
		if err != nil || m.IsEOG(tok) {
			return string(out), err
		}
		out = m.AppendPiece(out, tok)
	}
	return string(out), nil
}

// one chooses the next token: from the mask of answer, or from all tokens if answer is nil.
func one(s *llama.Sampler, c *llama.Context, entry int, answer *constraint.Answer) (llama.Token, error) {
	if answer == nil {
		return s.Sample(c, entry)
	}
	mask, err := answer.Mask()
	if err != nil {
		return 0, err
	}
	tok, err := s.Choose(c, entry, mask)
	if err == nil && !answer.Take(tok) {
		return 0, errors.New("refused")
	}
	s.Accept(tok)
	return tok, err
}

// Answers under a grammar of characters consist of whole characters, even if the tokens are single
// bytes and equally likely. Under llama.cpp's own grammars half of the answers are invalid UTF-8.
func TestGrammarsWriteCharacters(t *testing.T) {
	m, c := load(t, "tiny")
	entry := hello(t, m, c)
	for name, test := range map[string]struct {
		grammar string
		fits    func(rune) bool
	}{
		"any":            {`root ::= char{0,8}` + "\n" + `char ::= [^\n]`, func(r rune) bool { return r != '\n' }},
		"all but quotes": {`root ::= [^"]{8}`, func(r rune) bool { return r != '"' }},
		"far away":       {`root ::= [\U0001F600-\U0001F64F]{1,8}`, func(r rune) bool { return r >= 0x1f600 && r <= 0x1f64f }},
		"to the end":     {`root ::= [\U00010000-\U0010FFFF]{1,8}`, func(r rune) bool { return r >= 0x10000 }},
		"short and long": {`root ::= [a-é]{1,8}`, func(r rune) bool { return r >= 'a' && r <= 'é' }},
	} {
		t.Run(name, func(t *testing.T) {
			longest, seeds := 0, uint32(600)
			if testing.Short() {
				seeds = 30
			}
			for seed := range seeds {
				got, err := draw(t, m, c, entry, infer.Sampling{Temperature: new(1.0), Seed: &seed}, test.grammar)
				switch n := utf8.RuneCountInString(got); {
				case err != nil:
					t.Fatalf("seed %d: %q, %v", seed, got, err)
				case !utf8.ValidString(got) || n > 8 || strings.ContainsFunc(got, func(r rune) bool { return !test.fits(r) }):
					t.Errorf("seed %d: %q", seed, got)
				default:
					longest = max(longest, n)
				}
			}
			if longest != 8 {
				t.Errorf("the longest of %d has %d characters", seeds, longest)
			}
		})
	}
}

// Parts of a grammar that no text satisfies are left out. A grammar with no other parts is refused.
// Control tokens are chosen only where a grammar names them.
func TestGrammarsWithoutText(t *testing.T) {
	m, c := load(t, "tiny")
	entry := hello(t, m, c)
	for name, test := range map[string]struct{ grammar, want, refused string }{
		"a surrogate":             {`root ::= "ab" [\uD800-\uDFFF]`, "", "no text"},
		"beyond the last":         {`root ::= [\U00110000-\U00110010]`, "", "line 1"},
		"a dead end":              {`root ::= "a" root`, "", "no text"},
		"a dead end beside a way": {`root ::= "a" root | "ab" [\uD800-\uDFFF] | "fine"`, "", ""},
		"a NUL":                   {`root ::= "a" [\x00] "b"`, "a\x00b", ""},
		"a control token":         {`root ::= "a" <[256]> "b"`, "ab", ""},
		"a plain text":            {`root ::= "fine"`, "fine", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := draw(t, m, c, entry, infer.Sampling{}, test.grammar)
			switch {
			case test.refused != "":
				if infer.CodeOf(err) != infer.Invalid || !strings.Contains(err.Error(), test.refused) {
					t.Errorf("%q, %v", got, err)
				}
			case err != nil, test.want != "" && got != test.want:
				t.Errorf("%q, %v; want %q", got, err, test.want)
			}
		})
	}
}

// For an empty mask Choose returns ErrNothingFits. The sampler and others can be used afterwards.
func TestNothingFits(t *testing.T) {
	m, c := load(t, "tiny")
	entry := hello(t, m, c)
	s, err := llama.NewSampler(m, llama.SamplerOptions{Masked: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Free()
	mask := make([]uint64, (m.NTokens()+63)/64)
	if _, err := s.Choose(c, entry, mask); !errors.Is(err, llama.ErrNothingFits) {
		t.Errorf("no token: %v", err)
	}
	mask['q'>>6] |= 1 << ('q' & 63)
	if tok, err := s.Choose(c, entry, mask); err != nil || tok != 'q' {
		t.Errorf("one token: %d, %v", tok, err)
	}
	if _, err := draw(t, m, c, entry, infer.Sampling{}, ""); err != nil {
		t.Error(err)
	}
}

// The mask is applied before top-k: each token of the mask is drawn in proportion to its
// probability.
func TestMaskComesFirst(t *testing.T) {
	m, c := load(t, "tiny")
	entry := hello(t, m, c)
	all, err := m.Logprobs(c, entry, 'a', m.NTokens())
	if err != nil {
		t.Fatal(err)
	}
	least := all.Top[len(all.Top)-3:] // top-k without the mask would leave out all three
	mask := make([]uint64, (m.NTokens()+63)/64)
	sum := 0.0
	for _, l := range least {
		mask[l.ID>>6] |= 1 << (l.ID & 63)
		sum += math.Exp(l.Logprob)
	}
	count := make(map[int]int)
	const draws = 6000
	for seed := range uint32(draws) {
		s, err := llama.NewSampler(m, llama.SamplerOptions{Masked: true, Sampling: infer.Sampling{Temperature: new(1.0), TopK: new(3), Seed: &seed}})
		if err != nil {
			t.Fatal(err)
		}
		tok, err := s.Choose(c, entry, mask)
		s.Free()
		if err != nil {
			t.Fatal(err)
		}
		count[int(tok)]++
	}
	for _, l := range least {
		want := draws * math.Exp(l.Logprob) / sum
		if got := float64(count[l.ID]); math.Abs(got-want) > 5*math.Sqrt(want) {
			t.Errorf("token %d came %v times, want about %.0f", l.ID, got, want)
		}
	}
}

func TestBias(t *testing.T) {
	m, c := load(t, "tiny")
	entry := hello(t, m, c)
	bound := func(bias map[int]float64, grammar string) string {
		t.Helper()
		got, err := draw(t, m, c, entry, infer.Sampling{LogitBias: bias}, grammar)
		if err != nil {
			t.Fatal(err)
		}
		return got[:1]
	}
	text := func(bias map[int]float64) string { return bound(bias, "") }
	plain := text(nil)
	all := make(map[int]float64)
	for tok := range m.NTokens() {
		all[tok] = -100
	}
	if got := text(all); got != plain {
		t.Errorf("all disliked alike: %q, else %q", got, plain)
	}
	if got := text(map[int]float64{'x': 100}); got != "x" {
		t.Errorf("x liked: %q", got)
	}
	if got := text(map[int]float64{int(plain[0]): -100}); got == plain {
		t.Errorf("%q disliked, and chosen", plain)
	}
	if got := bound(map[int]float64{'y': 100, 'x': 100}, `root ::= [a-x]`); got != "x" {
		t.Errorf("x and y liked, up to x allowed: %q", got)
	}
	for id, want := range map[int]string{m.NTokens(): "token 260 ", -1: "token -1 ", 1 << 40: "token 1099511627776 "} {
		if _, err := draw(t, m, c, entry, infer.Sampling{LogitBias: map[int]float64{id: 1, 5: 1}}, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("token %d: %v", id, err)
		}
	}
}

// The results of Logprobs are the model's own: their probabilities add up to 1, they are sorted, and
// no sampler changes them.
func TestLogprobs(t *testing.T) {
	m, c := load(t, "tiny")
	entry := hello(t, m, c)
	greedy, err := llama.NewSampler(m, llama.SamplerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer greedy.Free()
	likeliest, err := greedy.Sample(c, entry)
	if err != nil {
		t.Fatal(err)
	}
	all, err := m.Logprobs(c, entry, likeliest, m.NTokens()+5)
	if err != nil || len(all.Top) != m.NTokens() {
		t.Fatalf("%d tokens, %v", len(all.Top), err)
	}
	sum := 0.0
	for i, cand := range all.Top {
		if i > 0 && cand.Logprob > all.Top[i-1].Logprob {
			t.Errorf("%+v stands behind %+v", cand, all.Top[i-1])
		}
		sum += math.Exp(cand.Logprob)
	}
	if math.Abs(sum-1) > 1e-6 {
		t.Errorf("together %v", sum)
	}
	if got := all.Candidate; got.ID != int(likeliest) || got.Logprob != all.Top[0].Logprob || string(got.Piece) != string([]byte{byte(likeliest)}) {
		t.Errorf("%+v, likeliest is %d: %+v", got, likeliest, all.Top[0])
	}
	if _, err := draw(t, m, c, entry, infer.Sampling{LogitBias: map[int]float64{int(likeliest): -100}}, `root ::= [a-c]`); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1, 3} {
		got, err := m.Logprobs(c, entry, 'a', n)
		if err != nil || got.ID != 'a' || len(got.Top) != n {
			t.Fatalf("%+v, %v", got, err)
		}
		for i, cand := range got.Top {
			if cand.ID != all.Top[i].ID || cand.Logprob != all.Top[i].Logprob {
				t.Errorf("%+v, at first %+v", cand, all.Top[i])
			}
		}
	}
	_, entryErr := m.Logprobs(c, entry+1, 'a', 1)
	_, tokenErr := m.Logprobs(c, entry, -1, 1)
	if entryErr == nil || tokenErr == nil {
		t.Errorf("no logits: %v, no token: %v", entryErr, tokenErr)
	}
}
