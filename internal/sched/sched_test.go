package sched_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/inferd-go/inferd/internal/sched"
)

func always(string) bool { return true }

func user(name string) sched.Path { return sched.Path{User: name} }

// order runs all jobs one after the other, and returns their items in the order in which they ran.
func order(q *sched.Queue[string], costs map[string]int) string {
	var all []string
	for {
		e := q.Pop(always)
		if e == nil {
			return strings.Join(all, " ")
		}
		all = append(all, e.Item)
		q.Done(e, max(costs[e.Item], 1))
	}
}

// Jobs run in fair order, in cases that can be checked by hand.
func TestOrder(t *testing.T) {
	type arrival struct {
		flow sched.Path
		cost int
	}
	a, b := user("a"), user("b")
	background := sched.Path{Background: true, User: "a"}
	program := func(user, program string) sched.Path { return sched.Path{User: user, Program: program} }
	client := func(program, client string) sched.Path {
		return sched.Path{User: "a", Program: program, Client: client}
	}
	many := func(n int, x arrival) (all []arrival) {
		for range n {
			all = append(all, x)
		}
		return all
	}
	for name, test := range map[string]struct {
		arrivals []arrival
		want     string // indices of the arrivals
	}{
		"one flow runs in order": {many(3, arrival{a, 5}), "0 1 2"},
		"many jobs of one user do not delay another user": {
			append(many(4, arrival{a, 1}), arrival{b, 1}), "0 4 1 2 3",
		},
		"one expensive job counts as many cheap ones": {
			[]arrival{{a, 3}, {a, 1}, {b, 1}, {b, 1}, {b, 1}, {b, 1}}, "0 2 3 4 1 5",
		},
		"programs share the user's share": {
			[]arrival{{program("a", "x"), 1}, {program("a", "y"), 1}, {program("a", "z"), 1}, {program("b", "x"), 1}, {program("b", "x"), 1}},
			"0 3 1 4 2",
		},
		"clients share the program's share": {
			[]arrival{{client("x", "1"), 1}, {client("x", "2"), 1}, {client("x", "3"), 1}, {client("y", ""), 1}, {client("y", ""), 1}},
			"0 3 1 4 2",
		},
		"the first job runs first, also in the background": {
			[]arrival{{background, 1}, {a, 1}, {a, 1}}, "0 1 2", // nothing has been served yet
		},
		"the background gets one of sixteen turns": {
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

// An ineligible job does not block others, and keeps its turn.
func TestIneligible(t *testing.T) {
	var q sched.Queue[string]
	q.Push(user("a"), 1, "full")
	q.Push(user("a"), 1, "free")
	q.Push(user("b"), 1, "free too")
	notFull := func(item string) bool { return item != "full" }
	for range 2 {
		e := q.Pop(notFull)
		if e == nil {
			t.Fatal("no job is eligible")
		}
		q.Done(e, 1)
	}
	if e := q.Pop(notFull); e != nil || q.Len() != 1 {
		t.Errorf("got %v of %d", e, q.Len())
	}
	if e := q.Pop(always); e == nil || e.Item != "full" {
		t.Errorf("got %v", e)
	}
}

// The usage of a flow while other flows wait counts against the flow until no job waits or runs.
// Then that usage is dropped.
func TestDebt(t *testing.T) {
	var q sched.Queue[string]
	three := func() {
		for i := range 3 {
			q.Push(user("a"), 1, fmt.Sprint("a", i))
			q.Push(user("b"), 1, fmt.Sprint("b", i))
		}
	}
	held := q.Push(user("c"), 1, "ineligible")
	long := q.Push(user("a"), 100, "long")
	q.Start(long)
	q.Done(long, 100)
	three()
	withoutC := func(item string) bool { return item != "ineligible" }
	var all []string
	for e := q.Pop(withoutC); e != nil; e = q.Pop(withoutC) {
		all = append(all, e.Item)
		q.Done(e, 1)
	}
	if got, want := strings.Join(all, " "), "b0 b1 b2 a0 a1 a2"; got != want {
		t.Errorf("while another job waits: %s, want %s", got, want)
	}
	q.Done(held, 0) // now the queue is empty
	if n := q.Remembered(); n != 0 {
		t.Errorf("%d flows are remembered", n)
	}
	three()
	if got, want := order(&q, nil), "a0 b0 a1 b1 a2 b2"; got != want {
		t.Errorf("afterwards: %s, want %s", got, want)
	}
}

// Usage without competition is no debt, and an idle flow earns no credit.
func TestWithoutCompetition(t *testing.T) {
	var q sched.Queue[string]
	e := q.Push(user("a"), 1, "runs")
	q.Start(e)
	q.Charge(e, 100_000)
	for range 1000 {
		e := q.Push(user("a"), 1, "a")
		q.Start(e)
		q.Done(e, 1)
	}
	var shares [2]int
	for i := range 200 {
		q.Push(user(fmt.Sprint(i%2)), 1, fmt.Sprint(i%2))
		q.Push(user("a"), 1, "2")
	}
	for range 150 {
		e := q.Pop(always)
		if e.Item != "2" {
			shares[e.Item[0]-'0']++
		}
		q.Done(e, 1)
	}
	if shares[0] < 50 || shares[0] > 50+sched.Quantum || shares[1] < 50 || shares[1] > 50+sched.Quantum {
		t.Errorf("shares %v of 150", shares)
	}
}

// Victim chooses the running job to preempt by the shares of the flows. The running jobs are started
// in the order of the table, before the waiting job is pushed.
func TestVictim(t *testing.T) {
	type start struct {
		flow sched.Path
		used int
	}
	program := func(user, program string) sched.Path { return sched.Path{User: user, Program: program} }
	a, b, c := user("a"), user("b"), user("c")
	background := sched.Path{Background: true, User: "z"}
	for name, test := range map[string]struct {
		runs []start
		w    sched.Path // of the waiting job
		used int        // by the waiting job before it was preempted; 0 means new
		want int        // index of the preempted job; -1 for none

		waits []sched.Path // other waiting jobs
	}{
		"nothing runs":                          {nil, a, 0, -1, nil},
		"one user has all slots":                {[]start{{a, 500}, {a, 500}, {a, 500}}, b, 0, 2, nil},
		"a new user gets a slot at once":        {[]start{{a, 1}, {a, 1}}, b, 0, 1, nil},
		"even another user's only slot":         {[]start{{a, 500}}, b, 0, 0, nil},
		"from the user with the most running":   {[]start{{a, 1}, {b, 500}, {a, 1}}, c, 0, 2, nil},
		"or from the user served most":          {[]start{{a, 50}, {b, 500}}, c, 0, 1, nil},
		"never from the same flow":              {[]start{{a, 500}, {a, 500}}, a, 0, -1, nil},
		"from another program of the same user": {[]start{{program("a", "x"), 500}, {program("a", "x"), 500}}, program("a", "y"), 0, 1, nil},
		"a second slot is a matter of turns":    {[]start{{a, 40}, {a, 40}, {b, 40}}, b, 0, 1, nil},
		"unless another user has two more":      {[]start{{a, 20}, {a, 20}, {a, 20}, {b, 40}}, b, 0, 2, nil},
		"even if that user was served less":     {[]start{{a, 10}, {a, 10}, {a, 10}, {b, 40}}, b, 0, 2, nil},
		"but not for one of many waiting jobs":  {[]start{{a, 10}, {a, 10}, {a, 10}, {b, 40}}, b, 0, -1, []sched.Path{b}},
		"nor if that user was served much less": {[]start{{a, 10}, {a, 10}, {a, 10}, {b, 70}}, b, 0, -1, []sched.Path{a}},
		"a turn lasts a quantum":                {[]start{{a, 20}, {a, 20}, {b, 40}}, b, 0, -1, nil},
		"a preempted job waits for its turn":    {[]start{{a, 20}}, b, 40, -1, nil},
		"and then gets it":                      {[]start{{a, 200}}, b, 40, 0, nil},
		"also if its user has no other slot":    {[]start{{a, 33}, {a, 33}}, b, 40, 1, nil},
		"normal jobs preempt the background":    {[]start{{background, 1}}, a, 0, 0, nil},
		"all of it in time":                     {[]start{{a, 40}, {background, 40}, {background, 40}}, a, 0, 2, nil},
		"the background gets no slot at once":   {[]start{{a, 20}, {a, 20}}, background, 0, -1, nil},
		"but it gets its turn":                  {[]start{{a, 400}, {a, 400}}, background, 40, 1, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var q sched.Queue[int]
			var running []*sched.Job[int]
			var w *sched.Job[int]
			if test.used > 0 {
				w = q.Push(test.w, 0, -1)
				q.Start(w)
			}
			for i, x := range test.runs {
				e := q.Push(x.flow, 0, i)
				q.Start(e)
				running = append(running, e)
			}
			if w != nil {
				q.Charge(w, test.used)
				q.Preempt(w)
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
				t.Errorf("preempted %d, want %d", got, test.want)
			}
		})
	}
}

// A life is a queue, and a model of it in three lists.
type life struct {
	q         sched.Queue[*work]
	waiting   []*work
	running   []*work
	suspended []*work
}

type work struct {
	path  sched.Path
	nth   int
	used  int
	entry *sched.Job[*work]
}

func anyWork(*work) bool { return true }

// In any order of operations no job is lost or doubled, Pop always finds an eligible waiting job,
// the jobs of a flow keep their order, and an empty queue keeps no flow.
func TestAnySequence(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := new(life)
		for n := range rapid.IntRange(1, 200).Draw(t, "steps") {
			switch rapid.IntRange(0, 8).Draw(t, "what") {
			case 0, 1:
				w := &work{nth: n, path: sched.Path{
					Background: rapid.IntRange(0, 4).Draw(t, "band") == 0,
					User:       rapid.SampledFrom([]string{"1", "2", "3"}).Draw(t, "user"),
					Program:    rapid.SampledFrom([]string{"x", "y"}).Draw(t, "program"),
					Client:     rapid.SampledFrom([]string{"", "c"}).Draw(t, "client"),
				}}
				w.used = rapid.IntRange(0, 50).Draw(t, "cost")
				w.entry = l.q.Push(w.path, w.used, w)
				l.waiting = append(l.waiting, w)
			case 2:
				e := l.q.Pop(anyWork)
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
					l.preempts(w)
				}
			case 5:
				for e := range l.q.Heads(func(w *work) string { return fmt.Sprint(w.kind()) }) {
					var running []*sched.Job[*work]
					for _, w := range l.running {
						running = append(running, w.entry)
					}
					if v := l.q.Victim(e, running); v != nil {
						if v.Item.path == e.Item.path {
							t.Fatalf("%+v is preempted for its own flow", v.Item)
						}
						l.preempts(v.Item)
						l.q.Start(e)
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
					l.running, l.suspended = without(l.running, w), append(l.suspended, w)
				}
			case 8:
				for _, w := range some(t, l.suspended) {
					l.q.Resume(w.entry)
					l.suspended, l.waiting = without(l.suspended, w), append(l.waiting, w)
				}
			}
			l.check(t)
		}
		for _, w := range slices.Concat(l.waiting, l.running, l.suspended) {
			l.q.Done(w.entry, w.used)
		}
		if n := l.q.Remembered(); n != 0 || l.q.Len() != 0 {
			t.Fatalf("%d flows are left, %d jobs wait", n, l.q.Len())
		}
	})
}

// state returns one of the lists at random.
func (l *life) state(t *rapid.T, label string) *[]*work {
	return rapid.SampledFrom([]*[]*work{&l.waiting, &l.running, &l.suspended}).Draw(t, label)
}

func (w *work) kind() int { return w.nth % 2 }

// begins moves w to running. It checks that w does not overtake an earlier job of its flow. If kinds
// are given, only jobs of these kinds count.
func (l *life) begins(t *rapid.T, w *work, kinds ...int) {
	for _, other := range l.waiting {
		if other.path == w.path && other.nth < w.nth && (len(kinds) == 0 || slices.Contains(kinds, other.kind())) {
			t.Fatalf("%d starts before %d of the same flow", w.nth, other.nth)
		}
	}
	l.waiting = without(l.waiting, w)
	l.running = append(l.running, w)
}

func (l *life) preempts(w *work) {
	l.q.Preempt(w.entry)
	l.running = without(l.running, w)
	l.waiting = append(l.waiting, w)
}

// check compares the waiting jobs of the queue with those of the model.
func (l *life) check(t *rapid.T) {
	seen := make(map[*work]bool)
	last := make(map[sched.Path]int)
	for e := range l.q.Waiting() {
		if seen[e.Item] || e.Item.nth < last[e.Item.path] {
			t.Fatalf("%+v waits twice, or behind a later job", e.Item)
		}
		seen[e.Item], last[e.Item.path] = true, e.Item.nth
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

// some returns a list with one random element of all, or an empty list if all is empty.
func some(t *rapid.T, all []*work) []*work {
	if len(all) == 0 {
		return nil
	}
	return []*work{all[rapid.IntRange(0, len(all)-1).Draw(t, "which")]}
}

func without(all []*work, w *work) []*work {
	return slices.DeleteFunc(slices.Clone(all), func(x *work) bool { return x == w })
}

// A flow is idle while all its jobs are suspended: it neither holds back the virtual time of the other
// flows nor earns credit. A resumed job goes before the later jobs of its flow.
func TestSuspended(t *testing.T) {
	var q sched.Queue[string]
	slow := q.Push(user("a"), 10, "slow")
	q.Start(slow)
	q.Suspend(slow)
	for i := range 200 { // others are served
		e := q.Push(user(fmt.Sprint("b", i%2)), 100, "b")
		q.Start(e)
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
		t.Errorf("order %s", got)
	}
	if !slow.Preempted() {
		t.Error("a resumed job counts as new")
	}
	turns := 0
	for e := q.Pop(always); e.Item != "rest"; e = q.Pop(always) {
		q.Done(e, 10)
		turns++
	}
	if turns > 2 {
		t.Errorf("%d turns before the other flows", turns)
	}
}

// A job that is resumed after its flow was dropped gives the flow no credit if its final usage is
// below the estimate that it was charged.
func TestSuspendedAndDropped(t *testing.T) {
	var q sched.Queue[string]
	slow := q.Push(user("a"), 100_000, "slow") // estimated
	q.Start(slow)
	q.Suspend(slow)
	if n := q.Remembered(); n != 0 {
		t.Fatalf("%d flows are remembered", n)
	}
	other := q.Push(user("b"), 1, "b")
	q.Resume(slow)
	q.Start(slow)
	for i := range 10 {
		q.Push(user("a"), 10, fmt.Sprint("a", i))
		q.Push(user("b"), 10, fmt.Sprint("b", i))
	}
	q.Done(slow, 10)
	q.Start(other)
	q.Done(other, 1)
	var turns [2]int
	for range 10 {
		e := q.Pop(always)
		turns[e.Item[0]-'a']++
		q.Done(e, 10)
	}
	if turns[0] > 7 {
		t.Errorf("turns: %v", turns)
	}
}

// The number of flows in memory is bounded, however many programs have one job each.
func TestMemoryIsBounded(t *testing.T) {
	var q sched.Queue[int]
	q.Push(user("other"), 1, 0) // waits for ever, so that there is always competition
	programs := 50_000
	if testing.Short() {
		programs = 5000
	}
	for i := range programs {
		e := q.Push(sched.Path{User: "a", Program: fmt.Sprint(i)}, 1000, i)
		q.Start(e)
		q.Done(e, 1000)
	}
	if n := q.Remembered(); n > 2100 { // a program and its client count as two
		t.Errorf("%d flows are remembered", n)
	}
}

func BenchmarkPushPop(b *testing.B) {
	var q sched.Queue[int]
	for i := range 256 {
		q.Push(sched.Path{User: fmt.Sprint(i % 8), Program: fmt.Sprint(i % 32)}, 10, i)
	}
	f := sched.Path{User: "1", Program: "1"}
	b.ReportAllocs()
	for b.Loop() {
		q.Push(f, 10, -1)
		q.Done(q.Pop(func(i int) bool { return i == -1 }), 10)
	}
}

func BenchmarkVictim(b *testing.B) {
	var q sched.Queue[int]
	var running []*sched.Job[int]
	for i := range 8 {
		e := q.Push(sched.Path{User: fmt.Sprint(i)}, 10, i)
		q.Start(e)
		running = append(running, e)
	}
	w := q.Push(user("w"), 10, 0)
	b.ReportAllocs()
	for b.Loop() {
		if q.Victim(w, running) == nil {
			b.Fatal("no victim")
		}
	}
}
