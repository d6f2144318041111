package gate

import (
	"cmp"
	"slices"
	"time"

	"github.com/inferd-go/inferd/client/stats"
)

// Stats holds the numbers of requests at the gate, and the totals of ended requests.
type Stats struct {
	Running, Waiting int
	Parked           int             // included in Waiting: begun, and preempted or stalled before
	Stalled          int             // begun, and waiting for their client to read
	Callers          []Caller        // by user and program
	Backends         []BackendCounts // by name; without backends that were never chosen
}

type (
	// Counts are the requests and tokens of a caller or a backend.
	Counts = stats.Counts
	// A Caller is a program of a user. The gate leaves KVTokens 0.
	Caller = stats.Caller
)

// BackendCounts are the counts of a backend.
type BackendCounts struct {
	Name string
	Counts
}

// Stats returns the present counts.
func (m *Machine[T]) Stats(now time.Time) Stats {
	s := Stats{Running: m.all.running, Waiting: m.all.waiting, Parked: m.all.parked, Stalled: m.all.stalled}
	places := m.places()
	for key, c := range m.callers {
		s.Callers = append(s.Callers, Caller{
			User: key.User, Program: key.Program, Exe: c.exe, Counts: c.counts(now), Place: places[c], Refused: c.refused,
		})
	}
	for name, a := range m.backends {
		s.Backends = append(s.Backends, BackendCounts{Name: name, Counts: a.counts(now)})
	}
	slices.SortFunc(s.Callers, func(a, b Caller) int {
		return cmp.Or(cmp.Compare(a.User, b.User), cmp.Compare(a.Program, b.Program))
	})
	slices.SortFunc(s.Backends, func(a, b BackendCounts) int { return cmp.Compare(a.Name, b.Name) })
	return s
}

// places returns the place of each caller's first waiting request in the queue for its backend. Of
// each flow, only the first request counts, because flows take turns. The place is an estimate: a
// costly answer sets its flow back.
func (m *Machine[T]) places() map[*caller]int {
	if m.queue.Len() == 0 {
		return nil
	}
	places, before := make(map[*caller]int), make(map[*account]int)
	for j := range m.queue.Heads((*Request[T]).kind) {
		r := j.Item
		before[r.account]++
		if places[r.caller] == 0 {
			places[r.caller] = before[r.account]
		}
	}
	return places
}
