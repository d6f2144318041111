package sched_test

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/inferd-go/inferd/internal/sched"
)

func whoever(string) bool { return true }

func user(name string) sched.Flow { return sched.Flow{User: name} }

// order pops everything, one after the other, each ending before the next begins.
func order(q *sched.Queue[string], flows map[string]sched.Flow) string {
	var all []string
	for {
		item, ok := q.Pop(whoever)
		if !ok {
			return strings.Join(all, " ")
		}
		all = append(all, item)
		q.Done(flows[item])
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
			flows := make(map[string]sched.Flow)
			for i, x := range test.arrivals {
				flows[fmt.Sprint(i)] = x.flow
				q.Push(x.flow, x.cost, fmt.Sprint(i))
			}
			if got := order(&q, flows); got != test.want {
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
	for _, want := range []string{"free", "free too"} {
		if got, ok := q.Pop(notFull); got != want || !ok {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got, ok := q.Pop(notFull); ok || q.Len() != 1 {
		t.Errorf("got %q of %d", got, q.Len())
	}
	if got, _ := q.Pop(whoever); got != "full" {
		t.Errorf("got %q", got)
	}
}

// A debt is remembered while anybody waits or runs, and forgotten after.
func TestDebts(t *testing.T) {
	var q sched.Queue[string]
	q.Push(user("a"), 100, "long")
	q.Pop(whoever) // it runs on
	q.Push(user("b"), 1, "b0")
	q.Pop(whoever)
	q.Done(user("b")) // b has had 1, a 100
	for i := range 3 {
		q.Push(user("a"), 1, fmt.Sprint("a", i))
		q.Push(user("b"), 1, fmt.Sprint("b", i+1))
	}
	flows := map[string]sched.Flow{"a0": user("a"), "a1": user("a"), "a2": user("a"), "b1": user("b"), "b2": user("b"), "b3": user("b")}
	if got, want := order(&q, flows), "b1 b2 b3 a0 a1 a2"; got != want {
		t.Errorf("while it runs: %s, want %s", got, want)
	}
	q.Done(user("a")) // now nobody is there
	q.Push(user("a"), 1, "a0")
	q.Push(user("b"), 1, "b1")
	if got, want := order(&q, flows), "a0 b1"; got != want {
		t.Errorf("afterwards: %s, want %s", got, want)
	}
}

// A life is a queue with a model of it beside it.
type life struct {
	q       sched.Queue[*work]
	waiting []*work
	running []*work
}

type work struct {
	flow  sched.Flow
	cost  int
	nth   int
	entry *sched.Entry[*work]
}

// Whatever comes, goes, is withdrawn and ends: nothing is lost or doubled, work is never
// held back, and a flow keeps its order.
func TestAnyLife(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := new(life)
		last := make(map[sched.Flow]int)
		for n := range rapid.IntRange(1, 120).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0, 1:
				w := &work{nth: n, cost: rapid.IntRange(0, 50).Draw(t, "cost"), flow: sched.Flow{
					Background: rapid.IntRange(0, 4).Draw(t, "band") == 0,
					User:       rapid.SampledFrom([]string{"1", "2", "3"}).Draw(t, "user"),
					Program:    rapid.SampledFrom([]string{"x", "y"}).Draw(t, "program"),
					Client:     rapid.SampledFrom([]string{"", "c"}).Draw(t, "client"),
				}}
				w.entry = l.q.Push(w.flow, w.cost, w)
				l.waiting = append(l.waiting, w)
			case 2:
				w, ok := l.q.Pop(func(*work) bool { return true })
				if ok != (len(l.waiting) > 0) {
					t.Fatalf("Pop = %v with %d waiting", ok, len(l.waiting))
				}
				if ok {
					l.take(t, w)
					if w.nth < last[w.flow] {
						t.Fatalf("%d after %d in one flow", w.nth, last[w.flow])
					}
					last[w.flow] = w.nth
					l.running = append(l.running, w)
				}
			case 3:
				if len(l.waiting) > 0 && rapid.Bool().Draw(t, "withdraw") {
					w := l.waiting[rapid.IntRange(0, len(l.waiting)-1).Draw(t, "which")]
					if !l.q.Remove(w.entry) || l.q.Remove(w.entry) {
						t.Fatal("Remove")
					}
					l.take(t, w)
				} else if len(l.running) > 0 {
					i := rapid.IntRange(0, len(l.running)-1).Draw(t, "which")
					l.q.Done(l.running[i].flow)
					l.running = append(l.running[:i:i], l.running[i+1:]...)
				}
			}
			if l.q.Len() != len(l.waiting) {
				t.Fatalf("Len = %d, want %d", l.q.Len(), len(l.waiting))
			}
		}
	})
}

// take removes w from what the model has waiting.
func (l *life) take(t *rapid.T, w *work) {
	for i, other := range l.waiting {
		if other == w {
			l.waiting = append(l.waiting[:i:i], l.waiting[i+1:]...)
			return
		}
	}
	t.Fatalf("%+v does not wait", w)
}

// While two users wait, what they have been given differs by no more than the dearest
// thing each has: whatever their programs are, and however many.
func TestTwoUsersAreEqual(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q sched.Queue[*work]
		most := rapid.IntRange(1, 64).Draw(t, "most")
		push := func(who string, i int) {
			f := sched.Flow{User: who, Program: fmt.Sprint(i % rapid.IntRange(1, 200).Draw(t, "programs"))}
			w := &work{flow: f, cost: rapid.IntRange(1, most).Draw(t, "cost")}
			q.Push(f, w.cost, w)
		}
		left := map[string]int{"a": 0, "b": 0}
		for i := range 40 {
			push("a", i)
			left["a"]++
			if i < 10 {
				push("b", i)
				left["b"]++
			}
		}
		given := make(map[string]int)
		for left["a"] > 0 && left["b"] > 0 {
			w, _ := q.Pop(func(*work) bool { return true })
			given[w.flow.User] += w.cost
			left[w.flow.User]--
			if d := given["a"] - given["b"]; d > 2*most || d < -2*most {
				t.Fatalf("given %v, costs up to %d", given, most)
			}
			if rapid.Bool().Draw(t, "ends") {
				q.Done(w.flow)
			}
		}
	})
}

// Who was away has no credit: the first turn is its own, the others are shared.
func TestNoCredit(t *testing.T) {
	var q sched.Queue[string]
	q.Push(user("a"), 1, "runs")
	q.Pop(whoever)
	for range 1000 {
		q.Push(user("a"), 1, "a")
		q.Pop(whoever)
		q.Done(user("a"))
	}
	flows := make(map[string]sched.Flow)
	for i := range 3 {
		for _, who := range []string{"a", "b"} {
			name := fmt.Sprint(who, i)
			flows[name] = user(who)
			q.Push(user(who), 1, name)
		}
	}
	got := order(&q, flows)
	if got != "b0 a0 b1 a1 b2 a2" && got != "b0 b1 a0 b2 a1 a2" && got != "a0 b0 a1 b1 a2 b2" {
		t.Errorf("order %s", got)
	}
}

// Countless programs that come once each do not fill the memory.
func TestMemoryIsBounded(t *testing.T) {
	var q sched.Queue[int]
	q.Push(user("somebody else"), 1, 0)
	q.Pop(func(int) bool { return true }) // so that nobody is ever alone
	for i := range 50_000 {
		f := sched.Flow{User: "a", Program: fmt.Sprint(i)}
		q.Push(f, 1000, i)
		q.Pop(func(int) bool { return true })
		q.Done(f)
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
		q.Push(f, 10, 1)
		item, _ := q.Pop(func(i int) bool { return i == 1 })
		q.Done(f)
		_ = item
	}
}
