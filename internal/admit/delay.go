package admit

import (
	"time"

	"github.com/inferd-go/inferd/internal/infer"
)

// RetryAfter estimates the time after which a refused request, if it is sent again, would get a
// slot of its backend. The estimate comes from the queue and from the time for which recent
// requests have held their slots. It is in whole seconds, from 1 s to 60 s. If req has no task yet,
// its backend is unknown, and the longest estimate of all backends holds. It is 1 s if no backend
// takes the request, and for a count, which needs no slot.
func (g *Gate) RetryAfter(req *infer.Request) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if req.Task == nil {
		return g.machine.Delay("")
	}
	if _, counts := req.Task.(*infer.Count); counts {
		return time.Second
	}
	if req.Needs == nil {
		req.Needs = new(infer.Needs(req.Task))
	}
	to, err := g.Choose(req)
	if err != nil {
		return time.Second
	}
	return g.machine.Delay(to.Name)
}

// pauseLocked records that t has no slot from now on.
func (t *ticket) pauseLocked(now time.Time) {
	if !t.began.IsZero() {
		t.held += now.Sub(t.began)
		t.began = time.Time{}
	}
}
