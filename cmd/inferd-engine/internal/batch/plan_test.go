package batch

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestPlan(t *testing.T) {
	limits := Limits{Context: 800, Batch: 64, Sequences: 4, Chunk: 16} // headroom 100
	for name, test := range map[string]struct {
		seqs []view
		park []int
		feed []int
	}{
		"a prompt alone gets the whole batch": {
			[]view{{0, 100}}, nil, []int{64},
		},
		"a prompt goes on where it was": {
			[]view{{64, 100}}, nil, []int{36},
		},
		"everybody who writes gets one token": {
			[]view{{100, 101}, {50, 51}}, nil, []int{1, 1},
		},
		"a prompt beside somebody who writes gets a chunk": {
			[]view{{100, 101}, {0, 50}}, nil, []int{1, 16},
		},
		"two prompts in the order in which they came": {
			[]view{{0, 40}, {0, 40}}, nil, []int{40, 24},
		},
		"a prompt of one token": {
			[]view{{0, 1}}, nil, []int{1},
		},
		"the fifth waits": {
			[]view{{9, 10}, {9, 10}, {9, 10}, {9, 10}, {0, 1}}, nil, []int{1, 1, 1, 1, 0},
		},
		"who does not fit waits, and nobody overtakes": {
			[]view{{600, 601}, {0, 150}, {0, 1}}, nil, []int{1, 0, 0},
		},
		"alone there need be no headroom": {
			[]view{{0, 799}}, nil, []int{64},
		},
		"the youngest is parked when the answers outgrow the context": {
			[]view{{400, 401}, {300, 301}, {98, 99}}, []int{2}, []int{1, 1, 0},
		},
		"a prompt half read is parked as well": {
			[]view{{700, 701}, {20, 100}}, []int{1}, []int{1, 0},
		},
		"one who was parked comes back before those who never began": {
			[]view{{500, 501}, {0, 150}, {0, 5}}, nil, []int{1, 16, 0},
		},
		"the oldest stays even when it fills the context": {
			[]view{{799, 800}, {9, 10}}, []int{1}, []int{1, 0},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := plan(limits, test.seqs)
			if !slices.Equal(got.park, test.park) || !slices.Equal(got.feed, test.feed) {
				t.Errorf("parks %v, feeds %v; want %v, %v", got.park, got.feed, test.park, test.feed)
			}
		})
	}
}

// A whole life of random sequences under the plan: no step is larger than it may be, the
// cache never holds more than there is room for, only the youngest are parked, and all
// get to their end.
func TestPlanProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := Limits{
			Context:   rapid.IntRange(16, 400).Draw(t, "context"),
			Sequences: rapid.IntRange(1, 5).Draw(t, "sequences"),
			Chunk:     rapid.IntRange(1, 20).Draw(t, "chunk"),
		}
		l.Batch = rapid.IntRange(l.Sequences, 64).Draw(t, "batch")
		type life struct{ prompt, answer int }
		var (
			seqs  []view
			lives []life
		)
		for range rapid.IntRange(1, 12).Draw(t, "count") {
			prompt := rapid.IntRange(1, l.Context-1).Draw(t, "prompt")
			answer := rapid.IntRange(1, l.Context-prompt).Draw(t, "answer")
			lives = append(lives, life{prompt, answer})
			seqs = append(seqs, view{known: prompt})
		}
		for steps := 0; len(seqs) > 0; steps++ {
			if steps > 200_000 {
				t.Fatalf("no end: %v", seqs)
			}
			s := plan(l, seqs)
			for _, i := range s.park {
				if i == 0 {
					t.Fatal("the oldest was parked")
				}
				if s.feed[i] != 0 {
					t.Fatalf("%d is parked and fed", i)
				}
				seqs[i].cached = 0
			}
			total, inCache, cells := 0, 0, 0
			for i := range seqs {
				n := s.feed[i]
				if n < 0 || n > seqs[i].pending() {
					t.Fatalf("feeds %d of %d pending", n, seqs[i].pending())
				}
				total += n
				seqs[i].cached += n
				cells += seqs[i].cached
				if seqs[i].cached > 0 {
					inCache++
				}
			}
			switch {
			case total > l.Batch:
				t.Fatalf("a step of %d tokens", total)
			case total == 0:
				t.Fatalf("a step of nothing for %v", seqs)
			case cells > l.Context:
				t.Fatalf("%d tokens in a context of %d", cells, l.Context)
			case inCache > l.Sequences:
				t.Fatalf("%d sequences in the cache", inCache)
			case s.feed[0] == 0:
				t.Fatalf("the oldest got nothing: %v", seqs)
			}
			for i := len(seqs) - 1; i >= 0; i-- {
				if s.feed[i] > 0 && seqs[i].pending() == 0 {
					seqs[i].known++
					if seqs[i].known > lives[i].prompt+lives[i].answer-1 {
						seqs, lives = slices.Delete(seqs, i, i+1), slices.Delete(lives, i, i+1)
					}
				}
			}
		}
	})
}

func ExampleLimits() {
	// One stream writes while a prompt of 50 tokens is read beside it.
	l := Limits{Context: 1024, Batch: 64, Sequences: 2, Chunk: 16}
	fmt.Println(plan(l, []view{{cached: 10, known: 11}, {cached: 0, known: 50}}).feed)
	// Output: [1 16]
}
