package batch

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// in is a sequence in the cache, on cells of its own, that has written; out is one that waits.
func in(owner string, cached, known int) view {
	return view{owner: owner, cached: cached, known: known, own: cached, wrote: true}
}
func out(owner string, known int) view { return view{owner: owner, known: known} }

func (v view) paused() view { v.held = true; return v }
func (v view) mature() view { v.ripe = true; return v }

// spared is out with n tokens known, from cells that are used already or that are not.
func spared(owner string, known, n int, used bool) view {
	v := view{owner: owner, known: known, prefix: n}
	if used {
		v.shared = n
	}
	return v
}

func TestPlan(t *testing.T) {
	const chunk = 16
	limits := Limits{Context: 800, Batch: 64, Sequences: 4, Kept: 2} // headroom 100
	for name, test := range map[string]struct {
		seqs []view
		drop []int
		feed []int
	}{
		"a prompt alone gets the whole batch":              {[]view{out("a", 100)}, nil, []int{64}},
		"a prompt goes on where it was":                    {[]view{in("a", 64, 100)}, nil, []int{36}},
		"everybody who writes gets one token":              {[]view{in("a", 100, 101), in("b", 50, 51)}, nil, []int{1, 1}},
		"a prompt beside somebody who writes gets a chunk": {[]view{in("a", 100, 101), out("b", 50)}, nil, []int{1, 16}},
		"a prompt of one token":                            {[]view{out("a", 1)}, nil, []int{1}},
		"what is known is not read":                        {[]view{spared("a", 50, 40, false)}, nil, []int{10}},
		"two prompts share, and the shorter is read first": {[]view{out("a", 90), out("a", 40)}, nil, []int{24, 40}},
		"the longest of three gets on too":                 {[]view{out("a", 90), out("a", 80), out("a", 70)}, nil, []int{2, 2, 60}},
		"who has least running is read first":              {[]view{out("a", 20), out("a", 30), out("b", 70)}, nil, []int{2, 2, 60}},
		"more prompts than tokens": {
			[]view{in("a", 9, 10), in("a", 9, 12), in("a", 9, 12)}, nil, []int{1, 3, 3},
		},
		"the fifth waits": {
			[]view{in("a", 9, 10), in("a", 9, 10), in("a", 9, 10), in("a", 9, 10), out("b", 1)}, nil, []int{1, 1, 1, 1, 0},
		},
		"the fifth gets the place of one that is paused": {
			[]view{in("a", 9, 10).paused(), in("a", 9, 10), in("a", 9, 10), in("a", 9, 10), out("b", 1)}, nil, []int{0, 1, 1, 1, 1},
		},
		"five that run, before one of them is paused": {
			[]view{in("a", 9, 10), in("a", 9, 10), in("a", 9, 10), in("a", 9, 10), in("b", 9, 10)}, nil, []int{1, 1, 1, 1, 0},
		},
		"who does not fit waits, and nobody overtakes": {
			[]view{in("a", 600, 601), out("a", 150), out("a", 1)}, nil, []int{1, 0, 0},
		},
		"who is spared cells fits": {
			[]view{in("a", 600, 601), spared("a", 650, 600, true)}, nil, []int{1, 16},
		},
		"cells that are not used yet spare no room": {
			[]view{in("a", 300, 301), spared("b", 650, 600, false)}, nil, []int{1, 0},
		},
		"alone there need be no headroom": {[]view{out("a", 799)}, nil, []int{64}},
		"the youngest loses its cache when the answers outgrow the context": {
			[]view{in("a", 400, 401), in("b", 300, 301), in("c", 98, 99)}, []int{2}, []int{1, 1, 0},
		},
		"the paused lose theirs before those that run": {
			[]view{in("a", 400, 401).paused(), in("b", 300, 301), in("c", 98, 99)}, nil, []int{0, 1, 1},
		},
		"the paused lose theirs first": {
			[]view{in("a", 400, 401).paused(), in("b", 301, 302), in("c", 99, 100)}, []int{0}, []int{0, 1, 1},
		},
		"a prompt half read loses its cache as well": {[]view{in("a", 700, 701), in("b", 20, 100)}, []int{1}, []int{1, 0}},
		"one that lost it comes back before those who never began": {
			[]view{in("a", 500, 501), out("b", 150), out("c", 5)}, nil, []int{1, 11, 5},
		},
		"the oldest stays even when it fills the context": {[]view{in("a", 799, 800), in("b", 9, 10)}, []int{1}, []int{1, 0}},
		"the paused make room for one who waits": {
			[]view{in("a", 300, 301), in("a", 300, 301).paused(), out("b", 200)}, []int{1}, []int{1, 0, 16},
		},
		"they keep theirs when it would be in vain": {
			[]view{in("a", 500, 501), in("a", 100, 101).paused(), out("a", 500)}, nil, []int{1, 0, 0},
		},
		"who has nothing running takes it from the one with whom most runs": {
			[]view{in("a", 300, 301).mature(), in("b", 100, 101).mature(), in("a", 300, 301).mature(), out("c", 100)}, []int{2}, []int{1, 1, 0, 16},
		},
		"but not before that has written a while": {
			[]view{in("a", 300, 301), in("a", 300, 301), out("c", 200)}, nil, []int{1, 1, 0},
		},
		"nor if something of its own runs": {
			[]view{in("a", 300, 301).mature(), in("a", 300, 301).mature(), in("c", 9, 10).mature(), out("c", 200)}, nil, []int{1, 1, 1, 0},
		},
		"a paused one too many loses its cache": {
			[]view{in("a", 9, 10).paused(), in("a", 9, 10).paused(), in("a", 9, 10).paused(), in("b", 9, 10), in("b", 9, 10), in("b", 9, 10), out("c", 5)},
			[]int{2},
			[]int{0, 0, 0, 1, 1, 1, 5},
		},
	} {
		t.Run(name, func(t *testing.T) {
			used := 0
			for _, v := range test.seqs {
				used += v.own
			}
			got := plan(limits, test.seqs, used, rooms{chunk: chunk, now: chunk})
			if !slices.Equal(got.drop, test.drop) || !slices.Equal(got.feed, test.feed) {
				t.Errorf("drops %v, feeds %v; want %v, %v", got.drop, got.feed, test.drop, test.feed)
			}
		})
	}
}

func (v view) flying() view   { v.away, v.lane = true, true; return v }
func (v view) resident() view { v.lane = true; return v }
func (v view) fresh() view    { v.wrote = false; return v }
func (v view) staying() view  { v.stays = true; return v }

// Beside somebody who writes the lane reads, and steps only what is short and of who has little.
func TestPlanLane(t *testing.T) {
	limits := Limits{Context: 4000, Batch: 512, Sequences: 4, Kept: 2}
	idle := rooms{chunk: 16, now: 16, lane: 1000}
	busy, late, none := idle, idle, idle
	busy.busy, late.now, none.lane = true, 4, 0
	writer := in("a", 100, 101)
	for name, test := range map[string]struct {
		rooms  rooms
		seqs   []view
		feed   []int
		aside  []int
		urgent bool
		hurry  bool
	}{
		"nobody writes":           {idle, []view{out("a", 300)}, []int{300}, []int{0}, false, false},
		"nobody writes, two":      {idle, []view{out("a", 300), out("b", 400)}, []int{300, 212}, []int{0, 0}, false, false},
		"one of them short":       {idle, []view{out("a", 300), out("b", 20)}, []int{44, 20}, []int{0, 0}, false, false},
		"a long prompt":           {idle, []view{writer, out("b", 300)}, []int{1, 0}, []int{0, 128}, true, false},
		"but for its last token":  {idle, []view{writer, in("b", 200, 251).resident()}, []int{1, 0}, []int{0, 50}, true, false},
		"which is a step's":       {idle, []view{writer, in("b", 250, 251).resident().fresh()}, []int{1, 1}, []int{0, 0}, false, false},
		"that has time for it":    {late, []view{writer, in("b", 250, 251).resident().fresh()}, []int{1, 0}, []int{0, 0}, false, true},
		"a short one":             {idle, []view{writer, out("b", 16)}, []int{1, 16}, []int{0, 0}, false, false},
		"one of two steps":        {idle, []view{writer, out("b", 32)}, []int{1, 16}, []int{0, 0}, false, false},
		"one of who has enough":   {idle, []view{writer, out("a", 16)}, []int{1, 0}, []int{0, 15}, true, false},
		"one of who has less":     {idle, []view{writer, writer, in("b", 9, 10), out("b", 16)}, []int{1, 1, 1, 0}, []int{0, 0, 0, 15}, false, false},
		"a few tokens of anybody": {idle, []view{writer, out("a", 8)}, []int{1, 8}, []int{0, 0}, false, false},
		"or of a long context":    {idle, []view{writer, spared("a", 600, 592, true)}, []int{1, 0}, []int{0, 7}, true, false},
		"short, behind much":      {idle, []view{writer, spared("b", 600, 584, true)}, []int{1, 0}, []int{0, 15}, true, false},
		"all of it is known":      {idle, []view{writer, spared("b", 600, 599, true)}, []int{1, 1}, []int{0, 0}, false, false},
		"two in the lane": {
			idle, []view{writer, out("b", 300), out("c", 100)}, []int{1, 0, 0}, []int{0, 29, 99}, true, false,
		},
		"the lane has no room": {
			idle, []view{writer, in("b", 100, 900).resident(), out("c", 200)}, []int{1, 0, 16}, []int{0, 128, 0}, true, false,
		},
		"the lane has failed at it": {idle, []view{writer, out("b", 300).staying()}, []int{1, 16}, []int{0, 0}, false, false},
		"the lane is busy":          {busy, []view{writer, in("b", 100, 300).flying(), out("c", 300)}, []int{1, 0, 0}, []int{0, 0, 0}, false, false},
		"the lane is busy, and a short one comes": {
			busy, []view{writer, in("b", 100, 300).flying(), out("c", 10)}, []int{1, 0, 10}, []int{0, 0, 0}, false, false,
		},
		"the lane is busy, and nobody writes": {busy, []view{in("b", 100, 300).flying(), out("c", 300)}, []int{0, 0}, []int{0, 0}, false, false},
		"nobody writes any more":              {idle, []view{in("b", 100, 300).resident()}, []int{200}, []int{0}, false, false},
		"those who write have waited":         {late, []view{writer, out("b", 16)}, []int{1, 0}, []int{0, 0}, false, true},
		"there is none":                       {none, []view{writer, out("b", 300)}, []int{1, 16}, []int{0, 0}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			used := 0
			for _, v := range test.seqs {
				used += v.own
			}
			got := plan(limits, test.seqs, used, test.rooms)
			if !slices.Equal(got.feed, test.feed) || !slices.Equal(got.aside, test.aside) {
				t.Errorf("feeds %v, aside %v; want %v, %v", got.feed, got.aside, test.feed, test.aside)
			}
			if got.urgent != test.urgent || got.hurry != test.hurry {
				t.Errorf("urgent %v, hurry %v; want %v, %v", got.urgent, got.hurry, test.urgent, test.hurry)
			}
		})
	}
}

// A whole life of random sequences under the plan, which come, pause and go on: no step is
// larger than it may be, the cache never holds more than there is room for, all that have
// begun get on in every step, and all get to their end.
func TestPlanProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := Limits{
			Context:   rapid.IntRange(16, 400).Draw(t, "context"),
			Sequences: rapid.IntRange(1, 5).Draw(t, "sequences"),
			Kept:      rapid.IntRange(0, 5).Draw(t, "kept"),
		}
		l.Batch = rapid.IntRange(2*l.Sequences, 64).Draw(t, "batch")
		chunk := rapid.IntRange(l.Sequences, 20).Draw(t, "chunk")
		type life struct{ prompt, answer, read int }
		var (
			seqs  []view
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
				seqs = append(seqs, out(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "owner"), prompt))
				come--
			}
			// Who is paused changes in the beginning; then all may go on.
			waiting := 0
			for i := range seqs {
				seqs[i].held = steps < 200 && (steps/8+i)%3 == 1
				if !seqs[i].held {
					waiting++
				}
			}
			used := 0
			for i := range seqs {
				seqs[i].own = seqs[i].cached
				seqs[i].ripe = seqs[i].known-lives[i].read >= 32
				seqs[i].wrote = seqs[i].known > lives[i].prompt
				used += seqs[i].cached
			}
			s := plan(l, seqs, used, rooms{chunk: chunk, now: chunk})
			for _, i := range s.drop {
				if s.feed[i] != 0 || seqs[i].cached == 0 {
					t.Fatalf("%d is dropped and fed, or has nothing", i)
				}
				seqs[i].cached = 0
			}
			total, present, running, cells, writing := 0, 0, 0, 0, false
			for i := range seqs {
				n := s.feed[i]
				switch {
				case n < 0 || n > seqs[i].pending():
					t.Fatalf("feeds %d of %d pending", n, seqs[i].pending())
				case n > 0 && seqs[i].held:
					t.Fatalf("feeds %d, which is paused", i)
				}
				writing = writing || n == 1 && seqs[i].writes()
				if n > 0 {
					running++
					if seqs[i].cached == 0 {
						lives[i].read = seqs[i].known
					}
				}
				total += n
				seqs[i].cached += n
				cells += seqs[i].cached
				if seqs[i].cached > 0 {
					present++
				}
			}
			switch {
			case total > l.Batch, writing && total > l.Sequences+chunk:
				t.Fatalf("a step of %d tokens", total)
			case total == 0 && waiting > 0:
				t.Fatalf("a step of nothing for %v", seqs)
			case cells > l.Context:
				t.Fatalf("%d tokens in a context of %d", cells, l.Context)
			case running > l.Sequences:
				t.Fatalf("%d sequences run", running)
			case present > l.Sequences+l.Kept:
				t.Fatalf("%d sequences in the cache", present)
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
	// One stream writes while a prompt of 50 tokens is read beside it, 16 at a time.
	l := Limits{Context: 1024, Batch: 64, Sequences: 2}
	fmt.Println(plan(l, []view{in("a", 10, 11), out("b", 50)}, 10, rooms{chunk: 16, now: 16}).feed)
	// Output: [1 16]
}

// Cells are never given out twice, never lost, and needed exactly while somebody who is not
// only kept stands on them.
func TestCells(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const context, sequences = 40, 5
		c := newCells(context, sequences)
		t.Repeat(map[string]func(*rapid.T){
			"grow": func(t *rapid.T) {
				seq := rapid.IntRange(0, sequences-1).Draw(t, "seq")
				if n := min(rapid.IntRange(1, 9).Draw(t, "n"), len(c.free)); n > 0 && !c.kept[seq] {
					c.grow(seq, n)
				}
			},
			"copy": func(t *rapid.T) {
				src, dst := rapid.IntRange(0, sequences-1).Draw(t, "src"), rapid.IntRange(0, sequences-1).Draw(t, "dst")
				if src != dst && c.size(dst) == 0 && c.size(src) > 0 {
					c.copy(src, dst, rapid.IntRange(1, c.size(src)).Draw(t, "n"))
				}
			},
			"cut": func(t *rapid.T) {
				seq := rapid.IntRange(0, sequences-1).Draw(t, "seq")
				c.cut(seq, rapid.IntRange(0, c.size(seq)).Draw(t, "n"))
			},
			"keep": func(t *rapid.T) {
				if seq := rapid.IntRange(0, sequences-1).Draw(t, "seq"); c.size(seq) > 0 && !c.kept[seq] {
					c.keep(seq)
				}
			},
			"": func(t *rapid.T) {
				on, firm := make(map[int32]int32), make(map[int32]int32)
				for seq, cells := range c.of {
					mine := make(map[int32]bool)
					for _, cell := range cells {
						if mine[cell] {
							t.Fatalf("sequence %d has cell %d twice", seq, cell)
						}
						mine[cell] = true
						on[cell]++
						if !c.kept[seq] {
							firm[cell]++
						}
					}
				}
				for cell := range int32(context) {
					if c.on[cell] != on[cell] || c.firm[cell] != firm[cell] || slices.Contains(c.free, cell) != (on[cell] == 0) {
						t.Fatalf("cell %d: on %d, firm %d, want %d, %d", cell, c.on[cell], c.firm[cell], on[cell], firm[cell])
					}
				}
				if c.used() != len(on) || c.needed != len(firm) {
					t.Fatalf("%d used, %d needed; want %d, %d", c.used(), c.needed, len(on), len(firm))
				}
			},
		})
	})
}
