package sched_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/inferd-go/inferd/internal/sched"
)

// A machine runs jobs in a number of slots. In a step each running job uses one unit. Then free
// slots are filled, and jobs are preempted, by the rules of the gate.
type machine struct {
	q       sched.Queue[*load]
	slots   int
	running []*sched.Job[*load]

	served      map[string]int // units, by user
	preemptions int
}

// A load is the item of a job that ends when it has used size units. Its source then pushes the next
// load.
type load struct {
	*source
	size, used int
	waits      int // steps from its arrival until it first ran; -1 until then
	arrived    int // the step in which it was pushed
}

// A source keeps one load in the queue or running at all times.
type source struct {
	path    sched.Path
	size    func() int
	started func(waited int)
}

func (m *machine) push(s *source, now int) {
	m.q.Push(s.path, 0, &load{source: s, size: s.size(), waits: -1, arrived: now})
}

func (m *machine) run(e *sched.Job[*load], now int) {
	m.running = append(m.running, e)
	if j := e.Item; j.waits < 0 {
		j.waits = now - j.arrived
		if j.started != nil {
			j.started(j.waits)
		}
	}
}

func (m *machine) step(now int) {
	for _, e := range slices.Clone(m.running) {
		j := e.Item
		j.used++
		m.served[j.path.User]++
		if j.used < j.size {
			m.q.Charge(e, j.used)
			continue
		}
		m.q.Done(e, j.used)
		m.running = slices.DeleteFunc(m.running, func(r *sched.Job[*load]) bool { return r == e })
		m.push(j.source, now)
	}
	m.admit(now)
}

func (m *machine) admit(now int) {
	for len(m.running) < m.slots {
		e := m.q.Pop(func(*load) bool { return true })
		if e == nil {
			return
		}
		m.run(e, now)
	}
	for m.preempt(now) {
	}
}

func (m *machine) preempt(now int) bool {
	for e := range m.q.Heads(func(*load) string { return "" }) {
		if v := m.q.Victim(e, m.running); v != nil {
			m.preemptions++
			m.q.Preempt(v)
			m.running = slices.DeleteFunc(m.running, func(r *sched.Job[*load]) bool { return r == v })
			m.q.Start(e)
			m.run(e, now)
			return true
		}
	}
	return false
}

// jain returns Jain's index of fairness: 1 if all shares are equal.
func jain(all map[string]int) float64 {
	var sum, squares float64
	for _, n := range all {
		sum += float64(n)
		squares += float64(n) * float64(n)
	}
	return sum * sum / (float64(len(all)) * squares)
}

// Users with unlimited demand get equal shares, whatever the sizes of their requests and
// however many programs, clients and connections they have.
func TestSharesAreEqual(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const steps = 1500
		m := &machine{slots: rapid.IntRange(1, 6).Draw(t, "slots"), served: make(map[string]int)}
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		for u := range rapid.IntRange(2, 6).Draw(t, "users") {
			most := rapid.SampledFrom([]int{8, 32, 128, 512, 100_000}).Draw(t, "size")
			programs, clients := rapid.IntRange(1, 12).Draw(t, "programs"), rapid.IntRange(1, 2).Draw(t, "clients")
			for range rapid.IntRange(m.slots+1, m.slots+8).Draw(t, "connections") {
				m.push(&source{
					path: sched.Path{User: fmt.Sprint(u), Program: fmt.Sprint(r.IntN(programs)), Client: fmt.Sprint(r.IntN(clients))},
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

// equal checks that all users together were served want units, which means that no slot was ever
// free, and that their shares are equal.
func (m *machine) equal(t *rapid.T, want int) {
	total, least, most := 0, want, 0
	for _, n := range m.served {
		total += n
		least, most = min(least, n), max(most, n)
	}
	if total != want {
		t.Fatalf("%d units used, want %d", total, want)
	}
	if j := jain(m.served); j < 0.99 && most-least > 2*sched.Quantum*m.slots || most-least > 4*sched.Quantum*m.slots {
		t.Fatalf("Jain %.4f of %v", j, m.served)
	}
}

// Flows with unlimited demand preempt each other no more than once a quantum.
func TestPreemptionIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const steps = 1500
		m := &machine{slots: rapid.IntRange(1, 6).Draw(t, "slots"), served: make(map[string]int)}
		users := rapid.IntRange(2, 8).Draw(t, "users")
		for u := range users {
			size := rapid.SampledFrom([]int{1, 2, 10, 31, 32, 33, 100, 100_000}).Draw(t, "size")
			for range m.slots + 1 {
				m.push(&source{path: user(fmt.Sprint(u)), size: func() int { return size }}, 0)
			}
		}
		for now := range steps {
			m.step(now)
		}
		m.equal(t, (steps-1)*m.slots)
		if limit := steps * m.slots / sched.Quantum; m.preemptions > limit {
			t.Fatalf("%d preemptions in %d steps of %d slots", m.preemptions, steps, m.slots)
		}
	})
}

// While there is normal work, background work gets a sixteenth of the service, and never starves.
func TestBackground(t *testing.T) {
	for name, test := range map[string]struct{ slots, normal, size int }{
		"one slot, endless answers":           {1, 2, 100_000},
		"four slots, endless answers":         {4, 8, 100_000},
		"four slots, short answers":           {4, 8, 40},
		"no more normal work than slots":      {4, 4, 40}, // a slot may be idle between two answers
		"no more normal work than slots, one": {1, 1, 64},
	} {
		t.Run(name, func(t *testing.T) {
			const steps = 50_000
			m := &machine{slots: test.slots, served: make(map[string]int)}
			for range 10 {
				m.push(&source{path: sched.Path{Background: true, User: "b"}, size: func() int { return 100_000 }}, 0)
			}
			for range test.normal {
				m.push(&source{path: sched.Path{User: "n"}, size: func() int { return test.size }}, 0)
			}
			last, longest := 0, 0
			for now := range steps {
				before := m.served["b"]
				m.step(now)
				if m.served["b"] > before {
					longest, last = max(longest, now-last), now
				}
			}
			share := float64(m.served["b"]) / float64(steps*test.slots)
			if share < 1.0/16-0.01 || share > 1.0/16+0.01 {
				t.Errorf("the background got a share of %.3f", share)
			}
			if limit := 40 * sched.Quantum; longest > limit {
				t.Errorf("the background got nothing for %d steps", longest)
			}
		})
	}
}

// A user without debt gets a slot at once although other users hold all slots and have long queues. It
// does so at each return, as long as it takes no more than its share.
func TestNewcomer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		slots := rapid.IntRange(1, 6).Draw(t, "slots")
		m := &machine{slots: slots, served: make(map[string]int)}
		others := rapid.IntRange(1, 5).Draw(t, "others")
		for u := range others {
			size := rapid.SampledFrom([]int{10, 100, 100_000}).Draw(t, "size")
			for range 40 {
				m.push(&source{path: user(fmt.Sprint(u)), size: func() int { return size }}, 0)
			}
		}
		now := 0
		for range 3 {
			// The pause is long enough for the new user to have no debt.
			for range rapid.IntRange(150, 300).Draw(t, "pause") {
				m.step(now)
				now++
			}
			waited := -1
			e := m.q.Push(user("newcomer"), 0, &load{source: &source{path: user("newcomer"), started: func(steps int) { waited = steps }}, size: 20, waits: -1, arrived: now})
			m.admit(now)
			if waited != 0 {
				t.Fatalf("it waits: %v", m.served)
			}
			for e.Item.used < 19 { // then its client disconnects
				e.Item.used++
				m.q.Charge(e, e.Item.used)
			}
			m.q.Done(e, 20)
			m.running = slices.DeleteFunc(m.running, func(r *sched.Job[*load]) bool { return r == e })
			m.admit(now)
		}
	})
}
