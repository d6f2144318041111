package gate_test

import (
	"errors"
	"slices"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/inferd-go/inferd/internal/gate"
	"github.com/inferd-go/inferd/internal/sched"
)

type request = gate.Request[*expected]

// An expected is the expected state of one request, derived only from its events and effects.
type expected struct {
	*request
	begun   bool
	state   gate.State
	usage   gate.Usage
	ending  string // error or event that ended it
	backend gate.Backend
}

// A driver passes events to a machine, and carries out its effects as a gate does. After each
// event it compares the machine with the expected states.
type driver struct {
	*rapid.T
	m       gate.Machine[*expected]
	now     time.Time
	all     []*expected
	closed  bool
	choices map[string]choice // by model
	out     map[string]int64  // tokens of ended requests, by caller
	victim  *expected         // the request that the latest effect preempted, if any
}

type choice struct {
	backend gate.Backend
	err     error
}

func newDriver(t *rapid.T, l gate.Limits) *driver {
	d := &driver{T: t, now: time.Unix(0, 0), choices: make(map[string]choice), out: make(map[string]int64)}
	d.m.Limits = l
	return d
}

// in returns the requests in one of the given states, oldest first.
func (d *driver) in(states ...gate.State) (all []*expected) {
	for _, l := range d.all {
		if slices.Contains(states, l.state) {
			all = append(all, l)
		}
	}
	return all
}

func (d *driver) arrive(user, program, model string, background bool) *expected {
	l := &expected{state: gate.Arrived}
	l.request = &request{
		Item: l, Prompt: 1,
		Flow:  sched.Path{User: user, Program: program, Background: background},
		Route: gate.Route{Model: model},
	}
	d.all = append(d.all, l)
	c := d.choices[model]
	if c.err != nil && !d.closed {
		d.end(l, c.err.Error())
		d.all = d.all[:len(d.all)-1]
		return l
	}
	d.setBackends(d.m.Arrive(l.request, c.backend), l, c.backend)
	d.drain()
	return l
}

// drain carries out all effects. It fails the test if the machine needs the choice for a model
// twice before a request begins.
func (d *driver) drain() {
	asked := make(map[string]int)
	for {
		for r := d.m.Undecided(); r != nil; r = d.m.Undecided() {
			c := d.choices[r.Route.Model]
			if c.err != nil {
				d.m.Reject(r, c.err)
				continue
			}
			asked[r.Route.Model]++
			d.setBackends(d.m.Assign(r, c.backend), r.Item, c.backend)
		}
		e, ok := d.m.Next()
		if !ok {
			return
		}
		d.obey(e)
		if e.Kind == gate.Begin {
			clear(asked)
		}
		for model, n := range asked {
			if n > 1 {
				d.Fatalf("the choice for %s was asked for %d times", model, n)
			}
		}
	}
}

func (d *driver) setBackends(moved []*request, of *expected, b gate.Backend) {
	for _, r := range moved {
		if r.Route != of.Route {
			d.Fatalf("a request of the route %v moved with %v", r.Route, of.Route)
		}
		r.Item.backend = b
	}
}

// obey applies an effect to the expected state of its request. It fails the test if the diagram at
// gate.State has no such transition.
func (d *driver) obey(e gate.Effect[*expected]) {
	l := e.Request.Item
	from := map[gate.Kind][]gate.State{
		gate.Begin: {gate.Arrived, gate.Waiting}, gate.Wait: {gate.Arrived}, gate.Refuse: {gate.Arrived, gate.Waiting},
		gate.Pause: {gate.Running, gate.Stalled}, gate.Resume: {gate.Parked}, gate.Cancel: {gate.Running, gate.Parked},
	}[e.Kind]
	if !slices.Contains(from, l.state) {
		d.Fatalf("effect %d for a request in state %d", e.Kind, l.state)
	}
	victim := d.victim
	d.victim = nil
	switch e.Kind {
	case gate.Begin:
		if victim != nil && (l.backend.NoPreempt || d.overParkLimit(l, victim)) {
			d.Fatalf("%v preempts another request on %+v", l.Caller(), l.backend)
		}
		l.state, l.begun = gate.Running, true
	case gate.Resume:
		l.state = gate.Running
	case gate.Wait:
		if d.queueFull(l) {
			d.Fatalf("%v waits without a place in the queue", l.Caller())
		}
		l.state = gate.Waiting
	case gate.Pause:
		if l.state == gate.Running {
			if !l.backend.Preemptible {
				d.Fatal("a request was preempted that is not preemptible")
			}
			l.state, d.victim = gate.Parked, l
		}
	case gate.Refuse, gate.Cancel:
		if errors.Is(e.Err, gate.ErrQueueFull) && !d.queueFull(l) {
			d.Fatalf("queue full for %v, with a place left", l.Caller())
		}
		d.end(l, e.Err.Error())
	}
}

func (d *driver) end(l *expected, how string) {
	if l.ending != "" {
		d.Fatalf("a request ended twice: %q, %q", l.ending, how)
	}
	l.state, l.ending = gate.Ended, how
}

func (d *driver) leave(l *expected, final *gate.Final) {
	d.m.Leave(d.now, l.request, l.usage, final)
	if l.state != gate.Ended {
		if l.begun && final != nil {
			d.out[l.key()] += int64(final.Out)
		}
		d.end(l, "left")
	}
	d.drain()
}

func (d *driver) charge(l *expected, tokens int) {
	l.usage.Tokens += int64(tokens)
	d.m.Charge(d.now, l.request, l.usage)
	d.drain()
}

func (d *driver) stall(l *expected, memory bool) {
	full := !memory || d.queueFull(l)
	before := l.state
	if !full {
		l.state = gate.Stalled
	}
	d.m.Stall(d.now, l.request, l.usage, memory)
	d.drain()
	if full != (l.ending == gate.ErrUnread.Error()) {
		d.Fatalf("state %d: no place or memory: %v, and it ended with %q", before, full, l.ending)
	}
}

func (d *driver) resume(l *expected) {
	l.state = gate.Parked
	d.m.Resume(l.request)
	d.drain()
}

func (l *expected) key() string { return l.Caller().User + "/" + l.Caller().Program }

// queueFull reports whether the queue has no place for a request, from a recount of the taken
// places.
func (d *driver) queueFull(of *expected) bool {
	caller, user, all := 0, 0, 0
	for _, l := range d.in(gate.Waiting, gate.Stalled) {
		all++
		if l.Caller().User == of.Caller().User {
			user++
			if l.Caller() == of.Caller() {
				caller++
			}
		}
	}
	l := d.m.Limits
	return caller >= l.Depth || user >= max(l.Depth, l.Total/2) || all >= l.Total
}

// overParkLimit reports whether a request must not preempt another, from a recount of all parked
// and stalled requests except but.
func (d *driver) overParkLimit(of, but *expected) bool {
	caller, user := 0, 0
	for _, l := range d.in(gate.Parked, gate.Stalled) {
		if l != but && l.Caller().User == of.Caller().User {
			user++
			if l.Caller() == of.Caller() {
				caller++
			}
		}
	}
	limit := max(d.m.Limits.Depth, of.backend.Slots, 1)
	return caller >= limit || user >= max(limit, d.m.Limits.Total/2)
}

// check compares the machine with a recount.
func (d *driver) check() {
	backends, callers, all := make(map[string]gate.Counts), make(map[string]gate.Counts), gate.Counts{}
	running := 0
	for _, l := range d.all {
		if l.State() != l.state {
			d.Fatalf("in state %d, by its effects %d", l.State(), l.state)
		}
		for _, of := range []struct {
			in   map[string]gate.Counts
			name string
		}{{backends, l.backend.Name}, {callers, l.key()}} {
			of.in[of.name] = count(of.in[of.name], l.state)
		}
		all = count(all, l.state)
		if l.state == gate.Running {
			running++
		}
	}
	s := d.m.Stats(d.now)
	if got := (gate.Counts{Running: s.Running, Waiting: s.Waiting, Parked: s.Parked, Stalled: s.Stalled}); got != all {
		d.Fatalf("%+v, recounted %+v", got, all)
	}
	ignore := cmpopts.IgnoreFields(gate.Counts{}, "Requests", "InputTokens", "CachedTokens", "OutputTokens", "Rate")
	for _, b := range s.Backends {
		if diff := cmp.Diff(backends[b.Name], b.Counts, ignore); diff != "" {
			d.Fatalf("%s: -recounted +got\n%s", b.Name, diff)
		}
	}
	for _, c := range s.Callers {
		if diff := cmp.Diff(callers[c.User+"/"+c.Program], c.Counts, ignore); diff != "" {
			d.Fatalf("%s: -recounted +got\n%s", c.User+"/"+c.Program, diff)
		}
		if c.OutputTokens != d.out[c.User+"/"+c.Program] {
			d.Fatalf("%s: %d tokens, want %d", c.User, c.OutputTokens, d.out[c.User+"/"+c.Program])
		}
	}
	d.checkSlots(backends, running)
	if waiting := d.in(gate.Arrived, gate.Waiting); d.closed && len(waiting) > 0 || len(d.in(gate.Arrived)) > 0 {
		d.Fatalf("%d wait, closed: %v", len(waiting), d.closed)
	}
}

func count(c gate.Counts, s gate.State) gate.Counts {
	switch s {
	case gate.Waiting:
		c.Waiting++
	case gate.Running:
		c.Running++
	case gate.Parked:
		c.Waiting++
		c.Parked++
	case gate.Stalled:
		c.Stalled++
	case gate.New, gate.Arrived, gate.Ended:
	}
	return c
}

// checkSlots checks that no slot is taken twice, nor free while a request waits for it.
func (d *driver) checkSlots(backends map[string]gate.Counts, running int) {
	permit := d.m.Limits.Active == 0 || running < d.m.Limits.Active
	if d.m.Limits.Active > 0 && running > d.m.Limits.Active {
		d.Fatalf("%d run, of at most %d", running, d.m.Limits.Active)
	}
	for _, l := range d.in(gate.Waiting, gate.Running, gate.Parked) {
		n, slots := backends[l.backend.Name].Running, max(l.backend.Slots, 1)
		if n > slots {
			d.Fatalf("%d run on %d slots of %s", n, slots, l.backend.Name)
		}
		if l.state != gate.Running && n < slots && permit {
			d.Fatalf("a request in state %d waits for a free slot of %s", l.state, l.backend.Name)
		}
	}
}
