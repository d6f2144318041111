package gate

import (
	"slices"
	"time"

	"github.com/inferd-go/inferd/internal/infer"
)

// maxIdle bounds the callers in memory: from this number on, a new caller replaces an idle one, if
// there is one.
const maxIdle = 1024

// A tally counts requests by state.
type tally struct {
	running, waiting int
	parked           int // included in waiting
	stalled          int
}

// count adds n requests in a state.
func (t *tally) count(s State, n int) {
	switch s {
	case Waiting:
		t.waiting += n
	case Running:
		t.running += n
	case Parked:
		t.waiting += n
		t.parked += n
	case Stalled:
		t.stalled += n
	case New, Arrived, Ended:
	}
}

// places returns the number of places in the queue that are taken: by requests that wait to begin,
// and by stalled ones.
func (t *tally) places() int { return t.waiting - t.parked + t.stalled }

// slotless returns the number of requests that have begun and have no slot.
func (t *tally) slotless() int { return t.parked + t.stalled }

// An account is the tally of a caller or a backend, with totals of ended requests.
type account struct {
	tally
	slots           int   // of a backend
	requests        int64 // that have ended
	in, cached, out int64 // tokens of the requests that have ended
	generated       rate
	held            mean // time for which a request of a backend holds its slot
}

// full reports whether all slots of a backend are taken.
func (a *account) full() bool { return a.running >= a.slots }

func (a *account) counts(now time.Time) Counts {
	return Counts{
		Running: a.running, Waiting: a.waiting, Parked: a.parked, Stalled: a.stalled,
		Requests: a.requests, InputTokens: a.in, CachedTokens: a.cached, OutputTokens: a.out, Rate: a.generated.at(now),
	}
}

// A caller is a program of a user.
type caller struct {
	account
	user    *user
	exe     string // path of its executable at its last request
	refused int64
	last    uint64 // number of its last request
}

type user struct {
	tally
	callers int
}

// set changes the state of a request, and updates every count and list.
func (m *Machine[T]) set(r *Request[T], s State) {
	if r.caller != nil {
		for _, t := range [...]*tally{&m.all, &r.caller.user.tally, &r.caller.tally, &r.account.tally} {
			t.count(r.state, -1)
			t.count(s, 1)
		}
	}
	if before, after := r.state.unbegun(), s.unbegun(); before && !after {
		m.quit(r)
	} else if after && !before {
		m.join(r)
	}
	if r.state == Running {
		i := slices.Index(m.running, r)
		m.running = slices.Delete(m.running, i, i+1)
	}
	if s == Running {
		m.running = append(m.running, r)
	}
	r.state = s
}

// unbegun reports whether s is the state of a request that is at the gate and has not begun.
func (s State) unbegun() bool { return s == Arrived || s == Waiting }

// countTokens updates the rates, given the number n of tokens generated for r so far.
func (r *Request[T]) countTokens(now time.Time, n int64) {
	more := float64(n - r.counted)
	if more == 0 {
		return
	}
	r.counted = n
	r.caller.generated.add(now, more)
	r.account.generated.add(now, more)
}

func (m *Machine[T]) accountOf(b Backend) *account {
	a := m.backends[b.Name]
	if a == nil {
		if m.backends == nil {
			m.backends = make(map[string]*account)
		}
		a = new(account)
		m.backends[b.Name] = a
	}
	a.slots = b.Slots
	return a
}

func (m *Machine[T]) callerOf(key infer.Caller, exe string) *caller {
	c := m.callers[key]
	if c == nil {
		if m.callers == nil {
			m.callers, m.users = make(map[infer.Caller]*caller), make(map[string]*user)
		}
		if len(m.callers) >= maxIdle {
			m.forget()
		}
		u := m.users[key.User]
		if u == nil {
			u = new(user)
			m.users[key.User] = u
		}
		u.callers++
		c = &caller{user: u}
		m.callers[key] = c
	}
	m.arrivals++
	c.exe, c.last = exe, m.arrivals
	return c
}

// forget drops the idle caller with the oldest last request, if any caller is idle.
func (m *Machine[T]) forget() {
	var key infer.Caller
	var oldest *caller
	for k, c := range m.callers {
		if c.running == 0 && c.waiting == 0 && c.stalled == 0 && (oldest == nil || c.last < oldest.last) {
			key, oldest = k, c
		}
	}
	if oldest == nil {
		return
	}
	delete(m.callers, key)
	if oldest.user.callers--; oldest.user.callers == 0 {
		delete(m.users, key.User)
	}
}
