package admit_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd-go/inferd/internal/infer"
)

// RetryAfter estimates when a refused request would get a slot, from the queue and from the time
// for which earlier requests had their slots. For counts, and for requests that no backend takes,
// it is 1 s.
func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(1, 10)
		if got := s.gate.RetryAfter(request("a")); got != time.Second {
			t.Errorf("at the start: %s", got)
		}
		s.ask(t.Context(), "first")
		var all sync.WaitGroup
		for i := range 5 { // one runs, and four wait
			all.Go(func() { s.ask(t.Context(), fmt.Sprint("gen", i)) })
		}
		synctest.Wait()
		count := &infer.Request{Task: &infer.Count{Of: &infer.Generate{}}}
		for name, test := range map[string]struct {
			req  *infer.Request
			want time.Duration
		}{
			"a request":           {request("later"), 5 * time.Second},
			"a request not read":  {&infer.Request{}, 5 * time.Second},
			"a request to count":  {count, time.Second},
			"a second estimate":   {request("later"), 5 * time.Second},
			"vectors, same slots": {&infer.Request{Task: &infer.Embed{Inputs: []string{"a"}}}, 5 * time.Second},
		} {
			if got := s.gate.RetryAfter(test.req); got != test.want {
				t.Errorf("%s: %s, want %s", name, got, test.want)
			}
		}
		s.goAway(infer.Errorf(infer.Unavailable, "away"))
		if got := s.gate.RetryAfter(request("later")); got != time.Second {
			t.Errorf("without a backend: %s", got)
		}
		s.goAway(nil)
		all.Wait()
		if got := s.gate.RetryAfter(request("later")); got != time.Second {
			t.Errorf("with an empty queue: %s", got)
		}
	})
}

// The time for which a request is parked does not count as time with a slot.
func TestRetryAfterParks(t *testing.T) {
	bubble(t, 1, 20, func(d *desk) {
		d.send(d.t.Context(), "1", "a", 1000)
		d.send(d.t.Context(), "2", "b", 1000)
		begin := time.Now()
		d.all.Wait()
		if took := time.Since(begin); took < 1900*tick {
			d.t.Fatalf("both end after %s", took)
		}
		if got := d.gate.RetryAfter(request("c")); got < 10*time.Second || got > 11*time.Second {
			d.t.Errorf("after two requests of 10 s with a slot: %s", got)
		}
	})
}
