package sched_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/inferd-go/inferd/internal/sched"
)

// A machine has slots. In a step each entry that runs uses a unit; then whoever is to run is
// let in, as the gate does it.
type machine struct {
	q       sched.Queue[*job]
	slots   int
	running []*sched.Entry[*job]

	had   map[string]int // units, by user
	parks int
}

// A job runs until it has used its size; then the next of its source comes.
type job struct {
	*source
	size, used int
	waits      int // steps until it began to run; -1 until it has
	came       int
}

// A source always has so many jobs there.
type source struct {
	flow  sched.Flow
	size  func() int
	begun func(waited int)
}

func (m *machine) push(s *source, now int) {
	m.q.Push(s.flow, 0, &job{source: s, size: s.size(), waits: -1, came: now})
}

func (m *machine) start(e *sched.Entry[*job], now int) {
	m.running = append(m.running, e)
	if j := e.Item; j.waits < 0 {
		j.waits = now - j.came
		if j.begun != nil {
			j.begun(j.waits)
		}
	}
}

func (m *machine) step(now int) {
	for _, e := range slices.Clone(m.running) {
		j := e.Item
		j.used++
		m.had[j.flow.User]++
		if j.used < j.size {
			m.q.Charge(e, j.used)
			continue
		}
		m.q.Done(e, j.used)
		m.running = slices.DeleteFunc(m.running, func(r *sched.Entry[*job]) bool { return r == e })
		m.push(j.source, now)
	}
	m.admit(now)
}

func (m *machine) admit(now int) {
	for len(m.running) < m.slots {
		e := m.q.Pop(func(*job) bool { return true })
		if e == nil {
			return
		}
		m.start(e, now)
	}
	for m.rotate(now) {
	}
}

func (m *machine) rotate(now int) bool {
	for e := range m.q.Heads(func(*job) string { return "" }) {
		if v := m.q.Victim(e, m.running); v != nil {
			m.parks++
			m.q.Park(v)
			m.running = slices.DeleteFunc(m.running, func(r *sched.Entry[*job]) bool { return r == v })
			m.q.Take(e)
			m.start(e, now)
			return true
		}
	}
	return false
}

// jain is Jain's index of fairness.
func jain(all map[string]int) float64 {
	var sum, squares float64
	for _, n := range all {
		sum += float64(n)
		squares += float64(n) * float64(n)
	}
	return sum * sum / (float64(len(all)) * squares)
}

// Users who always want more get the same, whatever the size of what they ask for, and however
// many programs, clients and connections they have.
func TestSharesAreEqual(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const steps = 1500
		m := &machine{slots: rapid.IntRange(1, 6).Draw(t, "slots"), had: make(map[string]int)}
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		for u := range rapid.IntRange(2, 6).Draw(t, "users") {
			most := rapid.SampledFrom([]int{8, 32, 128, 512, 100_000}).Draw(t, "size")
			programs, clients := rapid.IntRange(1, 12).Draw(t, "programs"), rapid.IntRange(1, 2).Draw(t, "clients")
			for range rapid.IntRange(m.slots+1, m.slots+8).Draw(t, "connections") {
				m.push(&source{
					flow: sched.Flow{User: fmt.Sprint(u), Program: fmt.Sprint(r.IntN(programs)), Client: fmt.Sprint(r.IntN(clients))},
					size: func() int { return most/2 + r.IntN(most/2) },
				}, 0)
			}
		}
		for now := range steps {
			m.step(now)
		}
		m.equal(t, (steps-1)*m.slots)
	})
}

// equal checks that all work was done, and went to all users alike.
func (m *machine) equal(t *rapid.T, want int) {
	total, least, most := 0, want, 0
	for _, n := range m.had {
		total += n
		least, most = min(least, n), max(most, n)
	}
	if total != want {
		t.Fatalf("%d units were used, want %d", total, want)
	}
	if j := jain(m.had); j < 0.99 && most-least > 2*sched.Quantum*m.slots || most-least > 4*sched.Quantum*m.slots {
		t.Fatalf("Jain %.4f of %v", j, m.had)
	}
}

// Flows that want all they can get change places no more than once a quantum.
func TestNobodyFlutters(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const steps = 1500
		m := &machine{slots: rapid.IntRange(1, 6).Draw(t, "slots"), had: make(map[string]int)}
		users := rapid.IntRange(2, 8).Draw(t, "users")
		for u := range users {
			size := rapid.SampledFrom([]int{1, 2, 10, 31, 32, 33, 100, 100_000}).Draw(t, "size")
			for range m.slots + 1 {
				m.push(&source{flow: user(fmt.Sprint(u)), size: func() int { return size }}, 0)
			}
		}
		for now := range steps {
			m.step(now)
		}
		m.equal(t, (steps-1)*m.slots)
		if limit := steps * m.slots / sched.Quantum; m.parks > limit {
			t.Fatalf("%d were parked in %d steps of %d slots", m.parks, steps, m.slots)
		}
	})
}

// The background gets a sixteenth beside normal work, and never nothing.
func TestBackground(t *testing.T) {
	for name, test := range map[string]struct{ slots, normal, size int }{
		"one slot, endless answers":           {1, 2, 100_000},
		"four slots, endless answers":         {4, 8, 100_000},
		"four slots, short answers":           {4, 8, 40},
		"no more normal work than slots":      {4, 4, 40}, // it is gone for a moment between two answers
		"no more normal work than slots, one": {1, 1, 64},
	} {
		t.Run(name, func(t *testing.T) {
			const steps = 50_000
			m := &machine{slots: test.slots, had: make(map[string]int)}
			for range 10 {
				m.push(&source{flow: sched.Flow{Background: true, User: "b"}, size: func() int { return 100_000 }}, 0)
			}
			for range test.normal {
				m.push(&source{flow: sched.Flow{User: "n"}, size: func() int { return test.size }}, 0)
			}
			last, longest := 0, 0
			for now := range steps {
				before := m.had["b"]
				m.step(now)
				if m.had["b"] > before {
					longest, last = max(longest, now-last), now
				}
			}
			part := float64(m.had["b"]) / float64(steps*test.slots)
			if part < 1.0/16-0.01 || part > 1.0/16+0.01 {
				t.Errorf("the background has had %.3f", part)
			}
			if limit := 40 * sched.Quantum; longest > limit {
				t.Errorf("it had nothing for %d steps", longest)
			}
		})
	}
}

// Who comes while others have everything, and wait for more, begins at once: however deep
// their queues are, and however often it comes back, as long as it takes no more than its part.
func TestNewcomer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		slots := rapid.IntRange(1, 6).Draw(t, "slots")
		m := &machine{slots: slots, had: make(map[string]int)}
		others := rapid.IntRange(1, 5).Draw(t, "others")
		for u := range others {
			size := rapid.SampledFrom([]int{10, 100, 100_000}).Draw(t, "size")
			for range 40 {
				m.push(&source{flow: user(fmt.Sprint(u)), size: func() int { return size }}, 0)
			}
		}
		now := 0
		for range 3 {
			// Long enough that it owes nobody anything.
			for range rapid.IntRange(150, 300).Draw(t, "pause") {
				m.step(now)
				now++
			}
			began := -1
			e := m.q.Push(user("newcomer"), 0, &job{source: &source{flow: user("newcomer"), begun: func(waited int) { began = waited }}, size: 20, waits: -1, came: now})
			m.admit(now)
			if began != 0 {
				t.Fatalf("it waits: %v", m.had)
			}
			for e.Item.used < 19 { // then it goes
				e.Item.used++
				m.q.Charge(e, e.Item.used)
			}
			m.q.Done(e, 20)
			m.running = slices.DeleteFunc(m.running, func(r *sched.Entry[*job]) bool { return r == e })
			m.admit(now)
		}
	})
}
