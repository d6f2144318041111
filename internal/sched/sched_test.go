package sched_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/inferd-go/inferd/internal/sched"
)

func whoever(string) bool { return true }

func user(name string) sched.Flow { return sched.Flow{User: name} }

// order lets everything run, one after the other, each ending before the next begins.
func order(q *sched.Queue[string], costs map[string]int) string {
	var all []string
	for {
		e := q.Pop(whoever)
		if e == nil {
			return strings.Join(all, " ")
		}
		all = append(all, e.Item)
		q.Done(e, max(costs[e.Item], 1))
	}
}

// Scenes to check by hand: who waits (in this order, at what cost), and who comes next.
func TestOrder(t *testing.T) {
	type arrival struct {
		flow sched.Flow
		cost int
	}
	a, b := user("a"), user("b")
	background := sched.Flow{Background: true, User: "a"}
	program := func(user, program string) sched.Flow { return sched.Flow{User: user, Program: program} }
	client := func(program, client string) sched.Flow {
		return sched.Flow{User: "a", Program: program, Client: client}
	}
	many := func(n int, x arrival) (all []arrival) {
		for range n {
			all = append(all, x)
		}
		return all
	}
	for name, test := range map[string]struct {
		arrivals []arrival
		want     string // numbers of the arrivals
	}{
		"of one flow in order": {many(3, arrival{a, 5}), "0 1 2"},
		"a crowd does not hold up one": {
			append(many(4, arrival{a, 1}), arrival{b, 1}), "0 4 1 2 3",
		},
		"a dear one counts for many cheap ones": {
			[]arrival{{a, 3}, {a, 1}, {b, 1}, {b, 1}, {b, 1}, {b, 1}}, "0 2 3 4 1 5",
		},
		"programs share their user's part": {
			[]arrival{{program("a", "x"), 1}, {program("a", "y"), 1}, {program("a", "z"), 1}, {program("b", "x"), 1}, {program("b", "x"), 1}},
			"0 3 1 4 2",
		},
		"clients share their program's part": {
			[]arrival{{client("x", "1"), 1}, {client("x", "2"), 1}, {client("x", "3"), 1}, {client("y", ""), 1}, {client("y", ""), 1}},
			"0 3 1 4 2",
		},
		"the background comes last": {
			[]arrival{{background, 1}, {a, 1}, {a, 1}}, "0 1 2", // it was first: nobody had had anything
		},
		"the background gets one in sixteen": {
			append(many(2, arrival{background, 1}), many(20, arrival{a, 1})...),
			"0 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 1 17 18 19 20 21",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var q sched.Queue[string]
			costs := make(map[string]int)
			for i, x := range test.arrivals {
				costs[fmt.Sprint(i)] = x.cost
				q.Push(x.flow, x.cost, fmt.Sprint(i))
			}
			if got := order(&q, costs); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

// Who cannot go holds up nobody who can, and keeps its turn.
func TestWhoCannotGo(t *testing.T) {
	var q sched.Queue[string]
	q.Push(user("a"), 1, "full")
	q.Push(user("a"), 1, "free")
	q.Push(user("b"), 1, "free too")
	notFull := func(item string) bool { return item != "full" }
	for range 2 {
		e := q.Pop(notFull)
		if e == nil {
			t.Fatal("nobody goes")
		}
		q.Done(e, 1)
	}
	if e := q.Pop(notFull); e != nil || q.Len() != 1 {
		t.Errorf("got %v of %d", e, q.Len())
	}
	if e := q.Pop(whoever); e == nil || e.Item != "full" {
		t.Errorf("got %v", e)
	}
}

// What somebody has had while others waited is remembered while anybody waits or runs, and
// forgotten after.
func TestDebts(t *testing.T) {
	var q sched.Queue[string]
	three := func() {
		for i := range 3 {
			q.Push(user("a"), 1, fmt.Sprint("a", i))
			q.Push(user("b"), 1, fmt.Sprint("b", i))
		}
	}
	held := q.Push(user("c"), 1, "never goes")
	long := q.Push(user("a"), 100, "long")
	q.Take(long)
	q.Done(long, 100)
	three()
	withoutC := func(item string) bool { return item != "never goes" }
	var all []string
	for e := q.Pop(withoutC); e != nil; e = q.Pop(withoutC) {
		all = append(all, e.Item)
		q.Done(e, 1)
	}
	if got, want := strings.Join(all, " "), "b0 b1 b2 a0 a1 a2"; got != want {
		t.Errorf("while somebody waits: %s, want %s", got, want)
	}
	q.Done(held, 0) // now nobody is there
	if n := q.Remembered(); n != 0 {
		t.Errorf("%d flows are remembered", n)
	}
	three()
	if got, want := order(&q, nil), "a0 b0 a1 b1 a2 b2"; got != want {
		t.Errorf("afterwards: %s, want %s", got, want)
	}
}

// What was used while nobody else wanted anything is no debt, and who was away has no credit.
func TestAlone(t *testing.T) {
	var q sched.Queue[string]
	e := q.Push(user("a"), 1, "runs")
	q.Take(e)
	q.Charge(e, 100_000)
	for range 1000 {
		e := q.Push(user("a"), 1, "a")
		q.Take(e)
		q.Done(e, 1)
	}
	var parts [2]int
	for i := range 200 {
		q.Push(user(fmt.Sprint(i%2)), 1, fmt.Sprint(i%2))
		q.Push(user("a"), 1, "2")
	}
	for range 150 {
		e := q.Pop(whoever)
		if e.Item != "2" {
			parts[e.Item[0]-'0']++
		}
		q.Done(e, 1)
	}
	if parts[0] < 50 || parts[0] > 50+sched.Quantum || parts[1] < 50 || parts[1] > 50+sched.Quantum {
		t.Errorf("of 150 they have had %v", parts)
	}
}

// Who is parked for whom, scene by scene. What runs has been there for a while unless it is
// said to be new, in this order.
func TestVictim(t *testing.T) {
	type start struct {
		flow sched.Flow
		used int
	}
	program := func(user, program string) sched.Flow { return sched.Flow{User: user, Program: program} }
	a, b, c := user("a"), user("b"), user("c")
	background := sched.Flow{Background: true, User: "z"}
	for name, test := range map[string]struct {
		runs []start // then the one who waits is pushed
		w    sched.Flow
		used int // by the one who waits, before it was parked; 0 is that it has just come
		want int // number of who is parked; -1 is nobody

		waits []sched.Flow // others
	}{
		"nobody runs":                            {nil, a, 0, -1, nil},
		"one caller has all":                     {[]start{{a, 500}, {a, 500}, {a, 500}}, b, 0, 2, nil},
		"who comes has a place at once":          {[]start{{a, 1}, {a, 1}}, b, 0, 1, nil},
		"also of who has only that one":          {[]start{{a, 500}}, b, 0, 0, nil},
		"of the one who runs most":               {[]start{{a, 1}, {b, 500}, {a, 1}}, c, 0, 2, nil},
		"of the one who has had most":            {[]start{{a, 50}, {b, 500}}, c, 0, 1, nil},
		"not of itself":                          {[]start{{a, 500}, {a, 500}}, a, 0, -1, nil},
		"of another program of one's own":        {[]start{{program("a", "x"), 500}, {program("a", "x"), 500}}, program("a", "y"), 0, 1, nil},
		"a second place is a matter of turns":    {[]start{{a, 40}, {a, 40}, {b, 40}}, b, 0, 1, nil},
		"unless another has two more":            {[]start{{a, 20}, {a, 20}, {a, 20}, {b, 40}}, b, 0, 2, nil},
		"or has hardly been served less":         {[]start{{a, 10}, {a, 10}, {a, 10}, {b, 40}}, b, 0, 2, nil},
		"but not for one of many":                {[]start{{a, 10}, {a, 10}, {a, 10}, {b, 40}}, b, 0, -1, []sched.Flow{b}},
		"nor of who has been served much less":   {[]start{{a, 10}, {a, 10}, {a, 10}, {b, 70}}, b, 0, -1, []sched.Flow{a}},
		"and of their length":                    {[]start{{a, 20}, {a, 20}, {b, 40}}, b, 0, -1, nil},
		"who was parked waits for its turn":      {[]start{{a, 20}}, b, 40, -1, nil},
		"and then it has one":                    {[]start{{a, 200}}, b, 40, 0, nil},
		"who was parked and has none":            {[]start{{a, 33}, {a, 33}}, b, 40, 1, nil},
		"normal work has the background's place": {[]start{{background, 1}}, a, 0, 0, nil},
		"and all of them in time":                {[]start{{a, 40}, {background, 40}, {background, 40}}, a, 0, 2, nil},
		"the background takes no place at once":  {[]start{{a, 20}, {a, 20}}, background, 0, -1, nil},
		"but it has its turn":                    {[]start{{a, 400}, {a, 400}}, background, 40, 1, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var q sched.Queue[int]
			var running []*sched.Entry[int]
			var w *sched.Entry[int]
			if test.used > 0 {
				w = q.Push(test.w, 0, -1)
				q.Take(w)
			}
			for i, x := range test.runs {
				e := q.Push(x.flow, 0, i)
				q.Take(e)
				running = append(running, e)
			}
			if w != nil {
				q.Charge(w, test.used)
				q.Park(w)
			}
			for _, f := range test.waits {
				q.Push(f, 0, -1)
			}
			for i, x := range test.runs {
				q.Charge(running[i], x.used)
			}
			if w == nil {
				w = q.Push(test.w, 0, -1)
			}
			got := -1
			if v := q.Victim(w, running); v != nil {
				got = v.Item
			}
			if got != test.want {
				t.Errorf("parked is %d, want %d", got, test.want)
			}
		})
	}
}

// A life is a queue with a model of it beside it.
type life struct {
	q       sched.Queue[*work]
	waiting []*work
	running []*work
	away    []*work // suspended
}

type work struct {
	flow  sched.Flow
	nth   int
	used  int
	entry *sched.Entry[*work]
}

func anyone(*work) bool { return true }

// Whatever comes, goes, is parked, withdrawn and ends: nothing is lost or doubled, work is
// never held back, a flow keeps its order, and in the end nothing is left.
func TestAnyLife(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := new(life)
		for n := range rapid.IntRange(1, 200).Draw(t, "steps") {
			switch rapid.IntRange(0, 8).Draw(t, "what") {
			case 0, 1:
				w := &work{nth: n, flow: sched.Flow{
					Background: rapid.IntRange(0, 4).Draw(t, "band") == 0,
					User:       rapid.SampledFrom([]string{"1", "2", "3"}).Draw(t, "user"),
					Program:    rapid.SampledFrom([]string{"x", "y"}).Draw(t, "program"),
					Client:     rapid.SampledFrom([]string{"", "c"}).Draw(t, "client"),
				}}
				w.used = rapid.IntRange(0, 50).Draw(t, "cost")
				w.entry = l.q.Push(w.flow, w.used, w)
				l.waiting = append(l.waiting, w)
			case 2:
				e := l.q.Pop(anyone)
				if (e != nil) != (len(l.waiting) > 0) {
					t.Fatalf("Pop = %v with %d waiting", e, len(l.waiting))
				}
				if e != nil {
					l.begins(t, e.Item)
				}
			case 3:
				for _, w := range some(t, l.running) {
					w.used += rapid.IntRange(0, 100).Draw(t, "used")
					l.q.Charge(w.entry, w.used)
				}
			case 4:
				for _, w := range some(t, l.running) {
					l.parks(w)
				}
			case 5:
				for e := range l.q.Heads(func(w *work) string { return fmt.Sprint(w.kind()) }) {
					var running []*sched.Entry[*work]
					for _, w := range l.running {
						running = append(running, w.entry)
					}
					if v := l.q.Victim(e, running); v != nil {
						if v.Item.flow == e.Item.flow {
							t.Fatalf("%+v is parked for its own flow", v.Item)
						}
						l.parks(v.Item)
						l.q.Take(e)
						l.begins(t, e.Item, e.Item.kind())
						break
					}
				}
			case 6:
				from := l.state(t, "ends")
				for _, w := range some(t, *from) {
					l.q.Done(w.entry, rapid.IntRange(0, w.used).Draw(t, "used"))
					*from = without(*from, w)
				}
			case 7:
				for _, w := range some(t, l.running) {
					l.q.Suspend(w.entry)
					l.running, l.away = without(l.running, w), append(l.away, w)
				}
			case 8:
				for _, w := range some(t, l.away) {
					l.q.Resume(w.entry)
					l.away, l.waiting = without(l.away, w), append(l.waiting, w)
				}
			}
			l.check(t)
		}
		for _, w := range slices.Concat(l.waiting, l.running, l.away) {
			l.q.Done(w.entry, w.used)
		}
		if n := l.q.Remembered(); n != 0 || l.q.Len() != 0 {
			t.Fatalf("%d flows are left, %d wait", n, l.q.Len())
		}
	})
}

// state is one of the states' lists.
func (l *life) state(t *rapid.T, label string) *[]*work {
	return rapid.SampledFrom([]*[]*work{&l.waiting, &l.running, &l.away}).Draw(t, label)
}

func (w *work) kind() int { return w.nth % 2 }

// begins checks that w overtakes nothing of its flow; if kinds are given, only of these.
func (l *life) begins(t *rapid.T, w *work, kinds ...int) {
	for _, other := range l.waiting {
		if other.flow == w.flow && other.nth < w.nth && (len(kinds) == 0 || slices.Contains(kinds, other.kind())) {
			t.Fatalf("%d before %d of one flow", w.nth, other.nth)
		}
	}
	l.waiting = without(l.waiting, w)
	l.running = append(l.running, w)
}

func (l *life) parks(w *work) {
	l.q.Park(w.entry)
	l.running = without(l.running, w)
	l.waiting = append(l.waiting, w)
}

// check compares what waits.
func (l *life) check(t *rapid.T) {
	seen := make(map[*work]bool)
	last := make(map[sched.Flow]int)
	for e := range l.q.Waiting() {
		if seen[e.Item] || e.Item.nth < last[e.Item.flow] {
			t.Fatalf("%+v waits twice, or behind one who came later", e.Item)
		}
		seen[e.Item], last[e.Item.flow] = true, e.Item.nth
	}
	for _, w := range l.waiting {
		if !seen[w] {
			t.Fatalf("%+v is lost", w)
		}
	}
	if len(seen) != len(l.waiting) || l.q.Len() != len(l.waiting) {
		t.Fatalf("%d wait, Len = %d, want %d", len(seen), l.q.Len(), len(l.waiting))
	}
}

// some is one of all, if there is one.
func some(t *rapid.T, all []*work) []*work {
	if len(all) == 0 {
		return nil
	}
	return []*work{all[rapid.IntRange(0, len(all)-1).Draw(t, "which")]}
}

func without(all []*work, w *work) []*work {
	return slices.DeleteFunc(slices.Clone(all), func(x *work) bool { return x == w })
}

// A flow whose entries are all suspended is idle: it neither holds back the clock of the
// others nor earns credit, and a resumed entry goes before the later ones of its flow.
func TestSuspended(t *testing.T) {
	var q sched.Queue[string]
	slow := q.Push(user("a"), 10, "slow")
	q.Take(slow)
	q.Suspend(slow)
	for i := range 200 { // others are served
		e := q.Push(user(fmt.Sprint("b", i%2)), 100, "b")
		q.Take(e)
		q.Push(user(fmt.Sprint("b", (i+1)%2)), 0, "rest")
		q.Done(e, 100)
	}
	q.Push(user("a"), 10, "later")
	q.Resume(slow)
	var first []string
	for e := range q.Waiting() {
		if e.Item == "slow" || e.Item == "later" {
			first = append(first, e.Item)
		}
	}
	if got := strings.Join(first, " "); got != "slow later" {
		t.Errorf("in the order %s", got)
	}
	if !slow.Parked() {
		t.Error("a resumed entry counts as new")
	}
	turns := 0
	for e := q.Pop(whoever); e.Item != "rest"; e = q.Pop(whoever) {
		q.Done(e, 10)
		turns++
	}
	if turns > 2 {
		t.Errorf("%d turns before the others have one", turns)
	}
}

// An entry that is resumed after its flow was forgotten gives the flow no credit when it
// ends below its estimate.
func TestSuspendedAndForgotten(t *testing.T) {
	var q sched.Queue[string]
	slow := q.Push(user("a"), 100_000, "slow") // estimated
	q.Take(slow)
	q.Suspend(slow)
	if n := q.Remembered(); n != 0 {
		t.Fatalf("%d flows are remembered", n)
	}
	other := q.Push(user("b"), 1, "b")
	q.Resume(slow)
	q.Take(slow)
	for i := range 10 {
		q.Push(user("a"), 10, fmt.Sprint("a", i))
		q.Push(user("b"), 10, fmt.Sprint("b", i))
	}
	q.Done(slow, 10)
	q.Take(other)
	q.Done(other, 1)
	var turns [2]int
	for range 10 {
		e := q.Pop(whoever)
		turns[e.Item[0]-'a']++
		q.Done(e, 10)
	}
	if turns[0] > 7 {
		t.Errorf("turns: %v", turns)
	}
}

// Countless programs that come once each do not fill the memory.
func TestMemoryIsBounded(t *testing.T) {
	var q sched.Queue[int]
	q.Push(user("somebody else"), 1, 0) // waits for ever, so that nobody is ever alone
	for i := range 50_000 {
		e := q.Push(sched.Flow{User: "a", Program: fmt.Sprint(i)}, 1000, i)
		q.Take(e)
		q.Done(e, 1000)
	}
	if n := q.Remembered(); n > 2100 { // a program and its client each
		t.Errorf("%d flows are remembered", n)
	}
}

func BenchmarkPushPop(b *testing.B) {
	var q sched.Queue[int]
	for i := range 256 {
		q.Push(sched.Flow{User: fmt.Sprint(i % 8), Program: fmt.Sprint(i % 32)}, 10, i)
	}
	f := sched.Flow{User: "1", Program: "1"}
	b.ReportAllocs()
	for b.Loop() {
		q.Push(f, 10, -1)
		q.Done(q.Pop(func(i int) bool { return i == -1 }), 10)
	}
}

func BenchmarkVictim(b *testing.B) {
	var q sched.Queue[int]
	var running []*sched.Entry[int]
	for i := range 8 {
		e := q.Push(sched.Flow{User: fmt.Sprint(i)}, 10, i)
		q.Take(e)
		running = append(running, e)
	}
	w := q.Push(user("w"), 10, 0)
	b.ReportAllocs()
	for b.Loop() {
		if q.Victim(w, running) == nil {
			b.Fatal("nobody")
		}
	}
}
