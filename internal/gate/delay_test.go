package gate_test

import (
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/gate"
	"github.com/inferd-go/inferd/internal/sched"
)

// The delay grows with the queue and with the time that a request holds its slot, shrinks with the
// slots, and is in whole seconds from 1 to 60.
func TestDelay(t *testing.T) {
	for name, test := range map[string]struct {
		waiting, slots int
		mean           time.Duration
		want           time.Duration
	}{
		"nothing is known":             {0, 0, 0, time.Second},
		"a queue of unknown requests":  {10, 1, 0, time.Second},
		"short requests":               {10, 4, 20 * time.Millisecond, time.Second},
		"one slot":                     {3, 1, 5 * time.Second, 20 * time.Second},
		"four slots":                   {3, 4, 5 * time.Second, 5 * time.Second},
		"a part of a second":           {0, 1, 1100 * time.Millisecond, 2 * time.Second},
		"a minute":                     {5, 1, 10 * time.Second, time.Minute},
		"more than a minute":           {5, 1, 11 * time.Second, time.Minute},
		"more than a time can be":      {1 << 30, 1, 1000 * time.Hour, time.Minute},
		"a long request, and no queue": {0, 2, 30 * time.Second, 15 * time.Second},
	} {
		if got := gate.Delay(test.waiting, test.slots, test.mean); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

// The delay of a backend depends on its own queue, slots and requests and on Limits.Active, but not
// on other backends. Without a name, it is the delay of the slowest backend; after Close, it is one
// second.
func TestDelayOfBackends(t *testing.T) {
	m := gate.Machine[string]{Limits: gate.Limits{Depth: 100, Total: 100}}
	now := time.Unix(0, 0)
	slots := map[string]int{"slow": 1, "fast": 2}
	of := func(name string) gate.Backend { return gate.Backend{Name: name, Slots: slots[name]} }
	arrive := func(name string) *gate.Request[string] {
		r := &gate.Request[string]{Flow: sched.Path{User: "1"}, Route: gate.Route{Model: name}, Prompt: 1}
		m.Arrive(r, of(name))
		for {
			for u := m.Undecided(); u != nil; u = m.Undecided() {
				m.Assign(u, of(u.Route.Model))
			}
			if _, ok := m.Next(); !ok {
				return r
			}
		}
	}
	check := func(what string, want map[string]time.Duration) {
		t.Helper()
		for name, d := range want {
			if got := m.Delay(name); got != d {
				t.Errorf("%s: the delay of %q is %s, want %s", what, name, got, d)
			}
		}
	}
	check("at the start", map[string]time.Duration{"": time.Second, "slow": time.Second})
	for range 2 {
		m.Leave(now, arrive("slow"), gate.Usage{Held: 8 * time.Second}, nil)
		m.Leave(now, arrive("fast"), gate.Usage{Held: 4 * time.Second}, nil)
	}
	check("with free slots", map[string]time.Duration{"slow": 8 * time.Second, "fast": 2 * time.Second, "": 8 * time.Second, "other": time.Second})
	for range 3 { // one runs, and two wait
		arrive("slow")
	}
	check("with a queue", map[string]time.Duration{"slow": 24 * time.Second, "fast": 2 * time.Second, "": 24 * time.Second})
	m.Leave(now, arrive("fast"), gate.Usage{Held: 12 * time.Second}, nil)
	check("after a longer request", map[string]time.Duration{"fast": 3 * time.Second}) // (4 s + 8 s / 8) / 2
	m.Limits.Active = 1
	check("with one permit", map[string]time.Duration{"fast": 5 * time.Second})
	m.Close()
	check("after the close", map[string]time.Duration{"slow": time.Second, "": time.Second})
}
