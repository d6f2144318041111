package admit

import (
	"cmp"
	"slices"
	"time"

	"github.com/inferd-go/inferd/internal/infer"
)

// maxIdle is how many callers are remembered that neither run nor wait.
const maxIdle = 1024

// Stats counts the requests at the gate, and those that have passed.
type Stats struct {
	Running, Waiting int      // requests
	Parked           int      // of the waiting: they have begun, and wait for a slot
	Stalled          int      // they have begun, and wait for their client to read
	Callers          []Caller // by user and program
	Places           []Usage  // by name; without places that were never chosen
}

// Counts are what requests have come to.
type Counts struct {
	Running, Waiting int
	Parked           int     // of the waiting
	Stalled          int     // begun, and neither running nor waiting: the client does not read
	Requests         int64   // that have ended
	In, Cached, Out  int64   // tokens of those; of what went in, how much was known
	Rate             float64 // tokens a second that are being written
}

// A Caller is a program of a user.
type Caller struct {
	User, Program string
	Exe           string // path of its executable, when it was last here
	Counts
	Refused int64 // requests, because the queue was full

	last    uint64 // number of its last request
	written rate
}

// A Usage counts the requests of a place.
type Usage struct {
	Name string
	Counts

	written rate
}

// count counts a request in a state.
func (c *Counts) count(s state, by int) {
	switch s {
	case waiting:
		c.Waiting += by
	case running:
		c.Running += by
	case parked:
		c.Waiting += by
		c.Parked += by
	case stalled:
		c.Stalled += by
	case fresh, ended:
	}
}

// Stats returns a copy.
func (g *Gate) Stats() Stats {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.settleLocked()
	now := time.Now()
	s := Stats{Running: len(g.running), Waiting: g.queue.Len()}
	for _, c := range g.callers {
		s.Callers = append(s.Callers, *c)
		s.Callers[len(s.Callers)-1].Rate = c.written.at(now)
		s.Parked += c.Parked
		s.Stalled += c.Stalled
	}
	for _, p := range g.places {
		s.Places = append(s.Places, *p)
		s.Places[len(s.Places)-1].Rate = p.written.at(now)
	}
	slices.SortFunc(s.Callers, func(a, b Caller) int {
		return cmp.Or(cmp.Compare(a.User, b.User), cmp.Compare(a.Program, b.Program))
	})
	slices.SortFunc(s.Places, func(a, b Usage) int { return cmp.Compare(a.Name, b.Name) })
	return s
}

// countsLocked are the accounts that t is counted in.
func (g *Gate) countsLocked(t *ticket) [2]*Counts {
	return [...]*Counts{&t.caller.Counts, &g.placeLocked(t.place.Name).Counts}
}

func (g *Gate) placeLocked(name string) *Usage {
	p := g.places[name]
	if p == nil {
		if g.places == nil {
			g.places = make(map[string]*Usage)
		}
		p = &Usage{Name: name}
		g.places[name] = p
	}
	return p
}

// callerLocked returns the account of the caller of req.
func (g *Gate) callerLocked(req *infer.Request) *Caller {
	key := req.Peer.Caller()
	c := g.callers[key]
	if c == nil {
		if g.callers == nil {
			g.callers = make(map[infer.Caller]*Caller)
		}
		if len(g.callers) >= maxIdle {
			g.forgetLocked()
		}
		c = &Caller{User: key.User, Program: key.Program}
		g.callers[key] = c
	}
	c.Exe = req.Peer.Exe
	g.seen++
	c.last = g.seen
	return c
}

// forgetLocked drops the idle caller with the oldest last request.
func (g *Gate) forgetLocked() {
	var oldest *Caller
	for _, c := range g.callers {
		if c.Running == 0 && c.Waiting == 0 && c.Stalled == 0 && (oldest == nil || c.last < oldest.last) {
			oldest = c
		}
	}
	if oldest != nil {
		delete(g.callers, infer.Caller{User: oldest.User, Program: oldest.Program})
	}
}
