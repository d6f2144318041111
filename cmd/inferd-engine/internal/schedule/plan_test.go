package schedule

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// cached returns a sequence with cached tokens, on cells of its own; it decodes if only one token is
// pending. waiting returns a waiting sequence.
func cached(owner string, cached, total int) Sequence {
	s := Sequence{Owner: owner, State: Prefilling, Cached: cached, Total: total, Exclusive: cached}
	if total == cached+1 {
		s.State = Decoding
	}
	return s
}
func waiting(owner string, total int) Sequence { return Sequence{Owner: owner, Total: total} }

func (s Sequence) asPaused() Sequence    { s.State = Paused; return s }
func (s Sequence) asEvictable() Sequence { s.Evictable = true; return s }

// withPrefix returns a waiting sequence with a prefix of n tokens in the cache, on active cells or on
// retained ones.
func withPrefix(owner string, total, n int, active bool) Sequence {
	s := Sequence{Owner: owner, Total: total, Prefix: n}
	if active {
		s.Shared = n
	}
	return s
}

func TestPlan(t *testing.T) {
	const chunk = 16
	limits := Limits{Context: 800, Batch: 64, Sequences: 4, Retained: 2} // headroom 100
	for name, test := range map[string]struct {
		seqs  []Sequence
		evict []int
		feed  []int
	}{
		"a prompt alone gets the whole batch":           {[]Sequence{waiting("a", 100)}, nil, []int{64}},
		"a prompt goes on where it was":                 {[]Sequence{cached("a", 64, 100)}, nil, []int{36}},
		"up to a multiple of the batch":                 {[]Sequence{cached("a", 128, 700)}, nil, []int{64}},
		"behind a cached prefix of whole tiles":         {[]Sequence{withPrefix("a", 200, 64, false)}, nil, []int{64}},
		"behind another prefix as many as there may be": {[]Sequence{withPrefix("a", 200, 70, false)}, nil, []int{64}},
		"every decoding sequence gets one token":        {[]Sequence{cached("a", 100, 101), cached("b", 50, 51)}, nil, []int{1, 1}},
		"a prompt beside a stream gets a chunk":         {[]Sequence{cached("a", 100, 101), waiting("b", 50)}, nil, []int{1, 16}},
		"a prompt of one token":                         {[]Sequence{waiting("a", 1)}, nil, []int{1}},
		"a cached prefix is not decoded":                {[]Sequence{withPrefix("a", 50, 40, false)}, nil, []int{10}},
		"two prompts share, the shorter first":          {[]Sequence{waiting("a", 90), waiting("a", 40)}, nil, []int{24, 40}},
		"the longest of three progresses too":           {[]Sequence{waiting("a", 90), waiting("a", 80), waiting("a", 70)}, nil, []int{2, 2, 60}},
		"the owner with the fewest running comes first": {[]Sequence{waiting("a", 20), waiting("a", 30), waiting("b", 70)}, nil, []int{2, 2, 60}},
		"more prompts than tokens": {
			[]Sequence{cached("a", 9, 10), cached("a", 9, 12), cached("a", 9, 12)}, nil, []int{1, 3, 3},
		},
		"the fifth waits": {
			[]Sequence{cached("a", 9, 10), cached("a", 9, 10), cached("a", 9, 10), cached("a", 9, 10), waiting("b", 1)}, nil, []int{1, 1, 1, 1, 0},
		},
		"the fifth gets the place of a paused one": {
			[]Sequence{cached("a", 9, 10).asPaused(), cached("a", 9, 10), cached("a", 9, 10), cached("a", 9, 10), waiting("b", 1)}, nil, []int{0, 1, 1, 1, 1},
		},
		"five running, before one of them is paused": {
			[]Sequence{cached("a", 9, 10), cached("a", 9, 10), cached("a", 9, 10), cached("a", 9, 10), cached("b", 9, 10)}, nil, []int{1, 1, 1, 1, 0},
		},
		"one that does not fit waits, and none overtakes it": {
			[]Sequence{cached("a", 600, 601), waiting("a", 150), waiting("a", 1)}, nil, []int{1, 0, 0},
		},
		"one with shared cells fits": {
			[]Sequence{cached("a", 600, 601), withPrefix("a", 650, 600, true)}, nil, []int{1, 16},
		},
		"inactive cells save no room": {
			[]Sequence{cached("a", 300, 301), withPrefix("b", 650, 600, false)}, nil, []int{1, 0},
		},
		"alone there need be no headroom": {[]Sequence{waiting("a", 799)}, nil, []int{64}},
		"the youngest is evicted when the answers outgrow the context": {
			[]Sequence{cached("a", 400, 401), cached("b", 300, 301), cached("c", 98, 99)}, []int{2}, []int{1, 1, 0},
		},
		"there is room while one is paused": {
			[]Sequence{cached("a", 400, 401).asPaused(), cached("b", 300, 301), cached("c", 98, 99)}, nil, []int{0, 1, 1},
		},
		"paused ones are evicted first": {
			[]Sequence{cached("a", 400, 401).asPaused(), cached("b", 301, 302), cached("c", 99, 100)}, []int{0}, []int{0, 1, 1},
		},
		"a prompt half decoded is evicted as well": {[]Sequence{cached("a", 700, 701), cached("b", 20, 100)}, []int{1}, []int{1, 0}},
		"an evicted one comes back before later ones": {
			[]Sequence{cached("a", 500, 501), waiting("b", 150), waiting("c", 5)}, nil, []int{1, 11, 5},
		},
		"the oldest stays even when it fills the context": {[]Sequence{cached("a", 799, 800), cached("b", 9, 10)}, []int{1}, []int{1, 0}},
		"a paused one is evicted for a waiting one": {
			[]Sequence{cached("a", 300, 301), cached("a", 300, 301).asPaused(), waiting("b", 200)}, []int{1}, []int{1, 0, 16},
		},
		"none is evicted in vain": {
			[]Sequence{cached("a", 500, 501), cached("a", 100, 101).asPaused(), waiting("a", 500)}, nil, []int{1, 0, 0},
		},
		"an owner without any running gets room from the one with the most": {
			[]Sequence{cached("a", 300, 301).asEvictable(), cached("b", 100, 101).asEvictable(), cached("a", 300, 301).asEvictable(), waiting("c", 100)}, []int{2}, []int{1, 1, 0, 16},
		},
		"but not before that has decoded a while": {
			[]Sequence{cached("a", 300, 301), cached("a", 300, 301), waiting("c", 200)}, nil, []int{1, 1, 0},
		},
		"nor if it has one running": {
			[]Sequence{cached("a", 300, 301).asEvictable(), cached("a", 300, 301).asEvictable(), cached("c", 9, 10).asEvictable(), waiting("c", 200)}, nil, []int{1, 1, 1, 0},
		},
		"a paused one too many is evicted": {
			[]Sequence{cached("a", 9, 10).asPaused(), cached("a", 9, 10).asPaused(), cached("a", 9, 10).asPaused(), cached("b", 9, 10), cached("b", 9, 10), cached("b", 9, 10), waiting("c", 5)},
			[]int{2},
			[]int{0, 0, 0, 1, 1, 1, 5},
		},
	} {
		t.Run(name, func(t *testing.T) {
			used := 0
			for _, v := range test.seqs {
				used += v.Exclusive
			}
			got := Plan(limits, test.seqs, used, Budget{Chunk: chunk, Now: chunk})
			if !slices.Equal(got.Evict, test.evict) || !slices.Equal(got.Feed, test.feed) {
				t.Errorf("evicts %v, feeds %v; want %v, %v", got.Evict, got.Feed, test.evict, test.feed)
			}
		})
	}
}

func (s Sequence) inState(state State) Sequence { s.State = state; return s }
func (s Sequence) asRefused() Sequence          { s.NoOffload = true; return s }

// Beside a stream the prefill worker gets the prompts, except short ones of owners with few running
// sequences, which the step decodes.
func TestPlanOffload(t *testing.T) {
	limits := Limits{Context: 4000, Batch: 512, Sequences: 4, Retained: 2}
	idle := Budget{Chunk: 16, Now: 16, Worker: 1000}
	busy, late, none := idle, idle, idle
	busy.Busy, late.Now, none.Worker = true, 4, 0
	stream := cached("a", 100, 101)
	for name, test := range map[string]struct {
		budget  Budget
		seqs    []Sequence
		feed    []int
		offload []int
		urgent  bool
		noDelay bool
	}{
		"no stream":                                   {idle, []Sequence{waiting("a", 300)}, []int{300}, []int{0}, false, false},
		"no stream, two prompts":                      {idle, []Sequence{waiting("a", 300), waiting("b", 400)}, []int{300, 212}, []int{0, 0}, false, false},
		"one of them short":                           {idle, []Sequence{waiting("a", 300), waiting("b", 20)}, []int{44, 20}, []int{0, 0}, false, false},
		"a long prompt":                               {idle, []Sequence{stream, waiting("b", 300)}, []int{1, 0}, []int{0, 128}, true, false},
		"but for its last token":                      {idle, []Sequence{stream, cached("b", 200, 251).inState(Staged)}, []int{1, 0}, []int{0, 50}, true, false},
		"which a step decodes":                        {idle, []Sequence{stream, cached("b", 250, 251).inState(Staged)}, []int{1, 1}, []int{0, 0}, false, false},
		"in a step with time for it":                  {late, []Sequence{stream, cached("b", 250, 251).inState(Staged)}, []int{1, 0}, []int{0, 0}, false, true},
		"a short one":                                 {idle, []Sequence{stream, waiting("b", 16)}, []int{1, 16}, []int{0, 0}, false, false},
		"one of two steps":                            {idle, []Sequence{stream, waiting("b", 32)}, []int{1, 16}, []int{0, 0}, false, false},
		"a short one of an owner with enough running": {idle, []Sequence{stream, waiting("a", 16)}, []int{1, 0}, []int{0, 15}, true, false},
		"a short one of an owner under its share":     {idle, []Sequence{stream, stream, cached("b", 9, 10), waiting("b", 16)}, []int{1, 1, 1, 0}, []int{0, 0, 0, 15}, false, false},
		"a few tokens of any owner":                   {idle, []Sequence{stream, waiting("a", 8)}, []int{1, 8}, []int{0, 0}, false, false},
		"or behind a long context":                    {idle, []Sequence{stream, withPrefix("a", 600, 592, true)}, []int{1, 0}, []int{0, 7}, true, false},
		"a short one behind a long context":           {idle, []Sequence{stream, withPrefix("b", 600, 584, true)}, []int{1, 0}, []int{0, 15}, true, false},
		"all of it is cached":                         {idle, []Sequence{stream, withPrefix("b", 600, 599, true)}, []int{1, 1}, []int{0, 0}, false, false},
		"two at the worker": {
			idle, []Sequence{stream, waiting("b", 300), waiting("c", 100)}, []int{1, 0, 0}, []int{0, 29, 99}, true, false,
		},
		"the worker has no room": {
			idle, []Sequence{stream, cached("b", 100, 900).inState(Staged), waiting("c", 200)}, []int{1, 0, 16}, []int{0, 128, 0}, true, false,
		},
		"the worker has failed at it": {idle, []Sequence{stream, waiting("b", 300).asRefused()}, []int{1, 16}, []int{0, 0}, false, false},
		"the worker is busy":          {busy, []Sequence{stream, cached("b", 100, 300).inState(Offloaded), waiting("c", 300)}, []int{1, 0, 0}, []int{0, 0, 0}, false, false},
		"the worker is busy, and a short one comes": {
			busy, []Sequence{stream, cached("b", 100, 300).inState(Offloaded), waiting("c", 10)}, []int{1, 0, 10}, []int{0, 0, 0}, false, false,
		},
		"the worker is busy, and there is no stream": {busy, []Sequence{cached("b", 100, 300).inState(Offloaded), waiting("c", 300)}, []int{0, 0}, []int{0, 0}, false, false},
		"no stream any more":                         {idle, []Sequence{cached("b", 100, 300).inState(Staged)}, []int{200}, []int{0}, false, false},
		"the streams have waited":                    {late, []Sequence{stream, waiting("b", 16)}, []int{1, 0}, []int{0, 0}, false, true},
		"there is no worker":                         {none, []Sequence{stream, waiting("b", 300)}, []int{1, 16}, []int{0, 0}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			used := 0
			for _, v := range test.seqs {
				used += v.Exclusive
			}
			got := Plan(limits, test.seqs, used, test.budget)
			if !slices.Equal(got.Feed, test.feed) || !slices.Equal(got.Offload, test.offload) {
				t.Errorf("feeds %v, offloads %v; want %v, %v", got.Feed, got.Offload, test.feed, test.offload)
			}
			if got.Urgent != test.urgent || got.NoDelay != test.noDelay {
				t.Errorf("urgent %v, no delay %v; want %v, %v", got.Urgent, got.NoDelay, test.urgent, test.noDelay)
			}
		})
	}
}

// While random sequences arrive, pause and resume, no step exceeds its limits, the cache never holds
// more tokens than it has cells, and every step decodes a token, unless all sequences are paused. All
// sequences end.
func TestPlanProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := Limits{
			Context:   rapid.IntRange(16, 400).Draw(t, "context"),
			Sequences: rapid.IntRange(1, 5).Draw(t, "sequences"),
			Retained:  rapid.IntRange(0, 5).Draw(t, "kept"),
		}
		l.Batch = rapid.IntRange(2*l.Sequences, 64).Draw(t, "batch")
		chunk := rapid.IntRange(l.Sequences, 20).Draw(t, "chunk")
		type life struct{ prompt, answer, read int }
		var (
			seqs  []Sequence
			lives []life
		)
		come := rapid.IntRange(1, 12).Draw(t, "count")
		for steps := 0; come > 0 || len(seqs) > 0; steps++ {
			if steps > 200_000 {
				t.Fatalf("no end: %v", seqs)
			}
			for come > 0 && (len(seqs) == 0 || steps%3 == 0) {
				prompt := rapid.IntRange(1, l.Context-1).Draw(t, "prompt")
				answer := rapid.IntRange(1, l.Context-prompt).Draw(t, "answer")
				lives = append(lives, life{prompt: prompt, answer: answer})
				s := waiting(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "owner"), prompt)
				seqs = append(seqs, s)
				come--
			}
			// In the first 200 steps the sequences pause in turns; later none does.
			waiting, used := 0, 0
			for i := range seqs {
				s := &seqs[i]
				held := steps < 200 && (steps/8+i)%3 == 1
				switch {
				case held && s.Cached == 0:
					s.State = Suspended
				case held:
					s.State = Paused
				case s.Cached == 0:
					s.State = Waiting
				case s.Total > lives[i].prompt && s.pending() == 1:
					s.State = Decoding
				default:
					s.State = Prefilling
				}
				if !held {
					waiting++
				}
				s.Exclusive = s.Cached
				s.Evictable = s.Total-lives[i].read >= 32
				used += s.Cached
			}
			s := Plan(l, seqs, used, Budget{Chunk: chunk, Now: chunk})
			for _, i := range s.Evict {
				if s.Feed[i] != 0 || seqs[i].Cached == 0 {
					t.Fatalf("%d is evicted and fed, or has no cells", i)
				}
				seqs[i].Cached = 0
			}
			total, present, running, cells, writing := 0, 0, 0, 0, false
			for i := range seqs {
				n := s.Feed[i]
				switch {
				case n < 0 || n > seqs[i].pending():
					t.Fatalf("feeds %d of %d pending", n, seqs[i].pending())
				case n > 0 && !seqs[i].State.Running():
					t.Fatalf("feeds %d, which is paused", i)
				}
				writing = writing || n == 1 && seqs[i].State == Decoding
				if n > 0 {
					running++
					if seqs[i].Cached == 0 {
						lives[i].read = seqs[i].Total
					}
				}
				total += n
				seqs[i].Cached += n
				cells += seqs[i].Cached
				if seqs[i].Cached > 0 {
					present++
				}
			}
			switch {
			case total > l.Batch, writing && total > l.Sequences+chunk:
				t.Fatalf("a step of %d tokens", total)
			case total == 0 && waiting > 0:
				t.Fatalf("an empty step for %v", seqs)
			case cells > l.Context:
				t.Fatalf("%d tokens in a context of %d", cells, l.Context)
			case running > l.Sequences:
				t.Fatalf("%d sequences run", running)
			case present > l.Sequences+l.Retained:
				t.Fatalf("%d sequences in the cache", present)
			}
			for i := len(seqs) - 1; i >= 0; i-- {
				if s.Feed[i] > 0 && seqs[i].pending() == 0 {
					seqs[i].Total++
					if seqs[i].Total > lives[i].prompt+lives[i].answer-1 {
						seqs, lives = slices.Delete(seqs, i, i+1), slices.Delete(lives, i, i+1)
					}
				}
			}
		}
	})
}

func ExampleLimits() {
	// Beside a stream a prompt of 50 tokens is decoded, 16 at a time.
	l := Limits{Context: 1024, Batch: 64, Sequences: 2}
	fmt.Println(Plan(l, []Sequence{cached("a", 10, 11), waiting("b", 50)}, 10, Budget{Chunk: 16, Now: 16}).Feed)
	// Output: [1 16]
}
