package engine_test

import (
	"strings"
	"testing"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/chat"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
	"github.com/inferd-go/inferd/internal/infer"
)

// In every family with thoughts, the thoughts end within their budget, whether their markers are control tokens or
// bytes. No part of the answer contains the marker of their end.
func TestBudgetOfThoughts(t *testing.T) {
	const budget = 20
	thoughts := strings.Repeat("and so on ", 30)
	tested, least := 0, 3
	if testing.Short() {
		least = 2
	}
	for _, family := range families() {
		s := &scene{template: familyTemplate(t, family)}
		d := s.dialect(t)
		if !d.Thinking.Has() || testing.Short() && tested == least {
			continue
		}
		tested++
		t.Run(family, func(t *testing.T) {
			gen := greedy(publicTools[:1])
			gen.Thinking, gen.ThinkingBudget, gen.MaxTokens = infer.ThinkOn, budget, 200
			tmpl, err := chat.New(s.template, nil, "<|bos|>", "<|im_end|>")
			if err != nil {
				t.Fatal(err)
			}
			segments, err := tmpl.Prompt(&chat.Conversation{Messages: gen.Messages, Tools: gen.Tools, Think: new(true)})
			if err != nil {
				t.Fatal(err)
			}
			s.answer = thoughts
			if d.Thinking.Position(segments[len(segments)-1].Text) == dialect.Before {
				s.answer = d.Thinking.Begin + thoughts
			}
			for _, controls := range [][]string{markersOf(d), nil} {
				if d.Next != "" && controls == nil {
					continue // messages need control tokens
				}
				s.controls = controls
				h := request(t, s.play(t, gen, cuts["words"]), gen)
				if n := len(strings.Fields(h.thoughts.String())); n == 0 || n > budget || !strings.HasPrefix(thoughts, h.thoughts.String()) {
					t.Errorf("%d markers: %d words of thoughts: %q", len(controls), n, h.log)
				}
				if strings.Contains(strings.Join(h.log, ""), strings.TrimSpace(d.Thinking.End)) {
					t.Errorf("%d markers: %q", len(controls), h.log)
				}
			}
		})
	}
	if tested < least {
		t.Errorf("%d families have thoughts", tested)
	}
}

// The events count all tokens of the answer, except those of markers behind the last call.
func TestTokensOfEvents(t *testing.T) {
	for name, test := range map[string]struct {
		family, answer string
		behind         int
	}{
		"text":             {"hermes", "So be it.", 0},
		"thoughts":         {"hermes", "<think>\nHm, hm.\n</think>\n\nSo.", 0},
		"a call":           {"hermes", hermesCall, 0},
		"all":              {"hermes", "<think>\nHm.\n</think>\n\nSo:\n" + hermesCall + "\n" + hermesCall, 0},
		"a space at last":  {"hermes", "So be it. ", 0},
		"a closing marker": {"deepseek-v3.1", "Hm</think>So<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>", 1},
	} {
		s := &scene{template: familyTemplate(t, test.family), answer: test.answer}
		s.controls = markersOf(s.dialect(t))
		gen := greedy(publicTools)
		h := request(t, s.play(t, gen, cuts[chunkings()[0]]), gen)
		if got := h.done.Out - h.tokens; got != test.behind {
			t.Errorf("%s: %d tokens are behind the last event, want %d; %q", name, got, test.behind, h.log)
		}
	}
}
