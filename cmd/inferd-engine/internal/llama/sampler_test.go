package llama_test

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/llama"
	"github.com/inferd-go/inferd/internal/infer"
)

// hello decodes a prompt and returns the entry of its last token, from which several samplers may
// draw.
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

// draw returns the text of a sampler until it ends, as if the model always had the same logits.
func draw(t *testing.T, m *llama.Model, c *llama.Context, entry int, opt llama.SamplerOptions) (string, error) {
	t.Helper()
	s, err := llama.NewSampler(m, opt)
	if err != nil {
		return "", err
	}
	defer s.Free()
	var out []byte
	for range 100 {
		tok, err := s.Sample(c, entry)
		if err != nil || m.IsEOG(tok) {
			return string(out), err
		}
		out = m.AppendPiece(out, tok)
	}
	return string(out), nil
}

// With equally likely bytes as the vocabulary, a grammar of characters yields whole characters. With
// llama.cpp's own grammar every second one is invalid.
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
			longest := 0
			for seed := range uint32(600) {
				got, err := draw(t, m, c, entry, llama.SamplerOptions{Sampling: infer.Sampling{Temperature: new(1.0), Seed: &seed}, Grammar: test.grammar})
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
				t.Errorf("the longest of 600 has %d characters", longest)
			}
		})
	}
}

// A grammar that allows no token is an error, and other samplers are not affected.
func TestNothingFits(t *testing.T) {
	m, c := load(t, "tiny")
	entry := hello(t, m, c)
	for name, test := range map[string]struct{ grammar, before string }{
		"a surrogate":                {`root ::= "ab" [\uD800-\uDFFF]`, "ab\xed"},
		"beyond the last":            {`root ::= [\U00110000-\U00110010]`, "\xf4"},
		"a NUL":                      {`root ::= "a" [\x00]`, "a"},
		"the spelling of a token":    {`root ::= <[256]>`, ""},
		"nothing but a dead end":     {`root ::= "a" root`, strings.Repeat("a", 100)},
		"what is fine comes through": {`root ::= "fine"`, "fine"},
	} {
		t.Run(name, func(t *testing.T) {
			fine := test.before == "fine" || len(test.before) == 100
			got, err := draw(t, m, c, entry, llama.SamplerOptions{Grammar: test.grammar})
			if fine && err != nil || !fine && !errors.Is(err, llama.ErrNothingFits) || got != test.before {
				t.Errorf("%q, %v; want %q", got, err, test.before)
			}
		})
	}
}

func TestBias(t *testing.T) {
	m, c := load(t, "tiny")
	entry := hello(t, m, c)
	text := func(opt llama.SamplerOptions) string {
		t.Helper()
		got, err := draw(t, m, c, entry, opt)
		if err != nil {
			t.Fatal(err)
		}
		return got[:1]
	}
	with := func(bias map[int]float64) llama.SamplerOptions {
		return llama.SamplerOptions{Sampling: infer.Sampling{LogitBias: bias}}
	}
	plain := text(with(nil))
	all := make(map[int]float64)
	for tok := range m.NTokens() {
		all[tok] = -100
	}
	if got := text(with(all)); got != plain {
		t.Errorf("all disliked alike: %q, else %q", got, plain)
	}
	if got := text(with(map[int]float64{'x': 100})); got != "x" {
		t.Errorf("x liked: %q", got)
	}
	if got := text(with(map[int]float64{int(plain[0]): -100})); got == plain {
		t.Errorf("%q disliked, and chosen", plain)
	}
	bound := with(map[int]float64{'y': 100, 'x': 100})
	bound.Grammar = `root ::= [a-x]`
	if got := text(bound); got != "x" {
		t.Errorf("x and y liked, up to x allowed: %q", got)
	}
	for id, want := range map[int]string{m.NTokens(): "token 260 ", -1: "token -1 ", 1 << 40: "token 1099511627776 "} {
		if _, err := draw(t, m, c, entry, with(map[int]float64{id: 1, 5: 1})); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("token %d: %v", id, err)
		}
	}
}

// Logprobs are the model's own: the probabilities add up to 1, are in order, and no sampler changes
// them.
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
	biased := llama.SamplerOptions{Sampling: infer.Sampling{LogitBias: map[int]float64{int(likeliest): -100}}, Grammar: `root ::= [a-c]`}
	if _, err := draw(t, m, c, entry, biased); err != nil {
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

// A choice from a copied row equals the choice of Sample, even if the context has decoded another
// batch since, and another sampler chooses at the same time.
func TestDetachedChoices(t *testing.T) {
	m, c := load(t, "tiny")
	seed := uint32(7)
	for name, opt := range map[string]llama.SamplerOptions{
		"a grammar":          {Sampling: infer.Sampling{Temperature: new(1.0), Seed: &seed}, Grammar: `root ::= ("a" | "b" | [0-9]){40}`},
		"a greedy grammar":   {Grammar: `root ::= ([a-z]? [a-z]?){10}`},
		"none":               {Sampling: infer.Sampling{Temperature: new(1.0), TopK: new(40), Seed: &seed}},
		"none, with a limit": {Sampling: infer.Sampling{Temperature: new(1.0), TopP: new(0.9), MinP: new(0.01), RepeatPenalty: new(1.2), Seed: &seed}},
	} {
		t.Run(name, func(t *testing.T) {
			entry := hello(t, m, c)
			inside, err := llama.NewSampler(m, opt)
			if err != nil {
				t.Fatal(err)
			}
			defer inside.Free()
			var want []llama.Token
			for range 20 {
				tok, err := inside.Sample(c, entry)
				if err != nil {
					t.Fatal(err)
				}
				want = append(want, tok)
			}
			likely, err := m.Logprobs(c, entry, want[0], 3)
			if err != nil {
				t.Fatal(err)
			}
			var all sync.WaitGroup
			defer all.Wait()
			for range 2 {
				s, err := llama.NewSampler(m, opt)
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Detach(c, entry); err != nil {
					t.Fatal(err)
				}
				all.Go(func() {
					defer s.Free()
					for i := range 20 { // of the same row each time
						if got, err := s.Choose(); err != nil || got != want[i] {
							t.Errorf("choice %d: %d, %v, want %d", i, got, err, want[i])
						}
					}
					if got, err := s.Logprobs(want[0], 3); err != nil || !reflect.DeepEqual(got, likely) {
						t.Errorf("Logprobs = %+v, %v, want %+v", got, err, likely)
					}
				})
			}
			if err := c.Truncate(0, 0); err != nil {
				t.Fatal(err)
			}
			hello(t, m, c)
			if err := c.Truncate(0, 0); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A sampler may be freed at any time: its memory is freed when its choice ends.
func TestFreeDuringChoice(t *testing.T) {
	m, c := load(t, "tiny")
	entry := hello(t, m, c)
	var all sync.WaitGroup
	defer all.Wait()
	for range 20 {
		s, err := llama.NewSampler(m, llama.SamplerOptions{Grammar: `root ::= ([a-z]? [a-z]? [a-z]?){0,20}`})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Detach(c, entry); err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			for err == nil {
				_, err = s.Choose()
			}
		})
		s.Free()
	}
	if err := c.Truncate(0, 0); err != nil {
		t.Fatal(err)
	}
}
