package gate_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/inferd-go/inferd/internal/gate"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/sched"
)

// After any events in any order, no slot is taken twice or idle while a request waits for it, the
// counts equal a recount, and each request ends exactly once.
func TestAllEvents(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newDriver(t, gate.Limits{
			Active: rapid.IntRange(0, 5).Draw(t, "active"),
			Depth:  rapid.IntRange(0, 4).Draw(t, "depth"),
			Total:  rapid.IntRange(1, 12).Draw(t, "total"),
		})
		for _, m := range models {
			d.choose(m)
		}
		for range rapid.IntRange(1, 120).Draw(t, "events") {
			d.now = d.now.Add(time.Millisecond)
			d.randomEvent()
			d.check()
		}
		for _, m := range models {
			d.choices[m] = choice{backend: gate.Backend{Name: "x"}}
		}
		for _, l := range d.all { // also those that have ended
			d.leave(l, nil)
			d.check()
		}
		if n := len(d.in(gate.Ended)); n != len(d.all) {
			t.Fatalf("%d of %d have ended", n, len(d.all))
		}
	})
}

var models = []string{"a", "b", "c"}

// choose changes the choice for a model to a random backend or none.
func (d *driver) choose(model string) {
	b := gate.Backend{Name: rapid.SampledFrom([]string{"x", "y"}).Draw(d.T, "backend")}
	b.Slots = map[string]int{"x": 0, "y": 3}[b.Name]
	b.Preemptible = rapid.Bool().Draw(d.T, "preemptible")
	b.NoPreempt = !b.Preemptible && rapid.Bool().Draw(d.T, "no preemption")
	d.choices[model] = choice{backend: b}
	if rapid.IntRange(0, 9).Draw(d.T, "down") == 0 {
		d.choices[model] = choice{err: infer.Errorf(infer.Unavailable, "no backend available")}
	}
}

// some returns a random request in one of the given states, or nil if there is none.
func (d *driver) some(states ...gate.State) *expected {
	all := d.in(states...)
	if len(all) == 0 {
		return nil
	}
	return rapid.SampledFrom(all).Draw(d.T, "request")
}

// events are the random events, each with the states of a request in which it may happen.
var events = map[string]struct {
	of []gate.State
	do func(*driver, *expected)
}{
	"charge": {[]gate.State{gate.Running}, func(d *driver, l *expected) {
		d.charge(l, rapid.IntRange(0, 3*sched.Quantum).Draw(d.T, "tokens"))
	}},
	"answer": {[]gate.State{gate.Running, gate.Parked, gate.Stalled}, func(d *driver, l *expected) {
		d.leave(l, &gate.Final{In: 3, Cached: 1, Out: 7})
	}},
	"fail":                {[]gate.State{gate.Running, gate.Parked, gate.Stalled}, func(d *driver, l *expected) { d.leave(l, nil) }},
	"expire":              {[]gate.State{gate.Waiting}, func(d *driver, l *expected) { d.leave(l, nil) }},
	"leave after the end": {[]gate.State{gate.Ended}, func(d *driver, l *expected) { d.leave(l, nil) }},
	"stall": {[]gate.State{gate.Running, gate.Parked}, func(d *driver, l *expected) {
		d.stall(l, rapid.IntRange(0, 4).Draw(d.T, "memory") > 0)
	}},
	"resume": {[]gate.State{gate.Stalled}, (*driver).resume},
}

func (d *driver) randomEvent() {
	names := append(slices.Sorted(maps.Keys(events)), "arrive", "arrive", "arrive", "charge", "choice", "close")
	switch event := rapid.SampledFrom(names).Draw(d.T, "event"); event {
	case "arrive":
		l := d.arrive(
			rapid.SampledFrom([]string{"1", "2", "3"}).Draw(d.T, "user"), rapid.SampledFrom([]string{"p", "q"}).Draw(d.T, "program"),
			rapid.SampledFrom(models).Draw(d.T, "model"), rapid.IntRange(0, 3).Draw(d.T, "band") == 0,
		)
		if d.closed != (l.ending == gate.ErrClosed.Error()) {
			d.Fatalf("closed: %v, and it ended with %q", d.closed, l.ending)
		}
	case "choice":
		d.choose(rapid.SampledFrom(models).Draw(d.T, "model"))
	case "close":
		if rapid.IntRange(0, 9).Draw(d.T, "really") == 0 {
			d.closed = true
			d.m.Close()
			d.drain()
		}
	default:
		if l := d.some(events[event].of...); l != nil {
			events[event].do(d, l)
		}
	}
}

// Callers with unlimited demand get equal shares of the slots, whatever the sizes of their
// requests. The difference is at most two quanta for each slot.
func TestSharesAreEqual(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const steps = 600
		d := newDriver(t, gate.Limits{Depth: 100, Total: 1000})
		slots, users := rapid.IntRange(1, 4).Draw(t, "slots"), rapid.IntRange(2, 5).Draw(t, "users")
		d.choices["m"] = choice{backend: gate.Backend{Name: "m", Slots: slots, Preemptible: true}}
		sizes := make([]int64, users)
		served := make([]int, users)
		for u := range users {
			sizes[u] = int64(rapid.SampledFrom([]int{8, 50, 300, 100_000}).Draw(t, "size"))
			for range slots + 2 {
				d.arrive(fmt.Sprint(u), "p", "m", false)
			}
		}
		for range steps {
			d.now = d.now.Add(time.Millisecond)
			for _, l := range d.in(gate.Running) {
				u := int(l.Caller().User[0] - '0')
				served[u]++
				if d.charge(l, 1); l.usage.Tokens >= sizes[u] {
					d.leave(l, &gate.Final{In: 1, Out: int(l.usage.Tokens)})
					d.arrive(l.Caller().User, "p", "m", false)
				}
			}
			d.all = slices.DeleteFunc(d.all, func(l *expected) bool { return l.state == gate.Ended })
		}
		if least, most := slices.Min(served), slices.Max(served); most-least > 2*sched.Quantum*slots {
			t.Fatalf("served %v on %d slots", served, slots)
		}
	})
}

// settle chooses backends and collects effects until m has no more, and returns the effects.
func settle(m *gate.Machine[string], choose func(name string) (gate.Backend, error)) (effects []string) {
	for {
		for r := m.Undecided(); r != nil; r = m.Undecided() {
			if b, err := choose(r.Item); err != nil {
				m.Reject(r, err)
			} else {
				m.Assign(r, b)
			}
		}
		e, ok := m.Next()
		if !ok {
			return effects
		}
		effects = append(effects, fmt.Sprint(e.Kind, e.Request.Item, e.Err))
	}
}

// oneRuns returns a machine with one running request and two that wait for its slot.
func oneRuns() (*gate.Machine[string], *gate.Request[string]) {
	m := &gate.Machine[string]{Limits: gate.Limits{Depth: 3, Total: 3}}
	all := make([]gate.Request[string], 3)
	for i := range all {
		all[i] = gate.Request[string]{Item: fmt.Sprint(i), Prompt: 1}
		m.Arrive(&all[i], gate.Backend{Name: "x"})
		settle(m, func(string) (gate.Backend, error) { return gate.Backend{Name: "x"}, nil })
	}
	return m, &all[0]
}

// If no backend takes the requests of a route, each is refused with its own error.
func TestRejectEach(t *testing.T) {
	m, first := oneRuns()
	m.Leave(time.Time{}, first, gate.Usage{}, nil)
	got := settle(m, func(name string) (gate.Backend, error) { return gate.Backend{}, errors.New("no " + name) })
	slices.Sort(got)
	want := []string{fmt.Sprint(gate.Refuse, "1", "no 1"), fmt.Sprint(gate.Refuse, "2", "no 2")}
	if !slices.Equal(got, want) {
		t.Errorf("effects %q, want %q", got, want)
	}
}

// After a request has begun, the backend is chosen again, even for requests of the same route: the
// breaker of a failed backend may let only one request through.
func TestChoiceAfterBegin(t *testing.T) {
	m, first := oneRuns()
	m.Leave(time.Time{}, first, gate.Usage{}, nil)
	var asked int
	got := settle(m, func(string) (gate.Backend, error) {
		if asked++; asked == 1 {
			return gate.Backend{Name: "tried", Slots: 2}, nil
		}
		return gate.Backend{}, errors.New("down")
	})
	want := []string{fmt.Sprint(gate.Begin, "1", nil), fmt.Sprint(gate.Refuse, "2", "down")}
	if !slices.Equal(got, want) {
		t.Errorf("effects %q, want %q", got, want)
	}
}

// A caller's place is that of its first waiting request among the first requests of all flows at
// the same backend. A caller with many requests does not push the others back, and a running
// request has no place.
func TestPlaces(t *testing.T) {
	m := &gate.Machine[string]{Limits: gate.Limits{Depth: 9, Total: 99}}
	of := func(model string) (gate.Backend, error) { return gate.Backend{Name: model}, nil }
	arrive := func(user, model string) *gate.Request[string] {
		r := &gate.Request[string]{Item: model, Flow: sched.Path{User: user}, Route: gate.Route{Model: model}, Prompt: 1}
		b, _ := of(model)
		m.Arrive(r, b)
		settle(m, of)
		return r
	}
	check := func(what string, want map[string]int) {
		t.Helper()
		got := make(map[string]int)
		for _, c := range m.Stats(time.Time{}).Callers {
			got[c.User] = c.Place
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s: places %v, want %v", what, got, want)
		}
	}
	first := arrive("a", "x")
	arrive("other", "y")
	check("nothing waits", map[string]int{"a": 0, "other": 0})
	for range 3 {
		arrive("b", "x")
	}
	arrive("c", "x")
	arrive("d", "x")
	arrive("other", "y")
	check("some wait", map[string]int{"a": 0, "b": 1, "c": 2, "d": 3, "other": 1})
	m.Leave(time.Time{}, first, gate.Usage{}, nil)
	settle(m, of)
	check("the next one runs", map[string]int{"a": 0, "b": 3, "c": 1, "d": 2, "other": 1})
}
