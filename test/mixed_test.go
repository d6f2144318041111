package test

import (
	"context"
	"flag"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/inferd-go/inferd/bench/load"
)

// mixed is the number of requests in each case of TestMixed; row i of make bench-peers sends 10,000.
var mixed = flag.Int("mixed", 600, "requests to send in each case of TestMixed")

// Sixteen callers send requests of all kinds to all generation sockets. Each answer ends once and
// has only its own text, and the daemon's counts agree with the usage in the answers, within a bound
// for requests that hung up.
func TestMixed(t *testing.T) {
	for name, leave := range map[string]bool{"everybody stays": false, "a third leaves": true} {
		t.Run(name, func(t *testing.T) {
			d := mocked(t, fmt.Sprintf(`{"backends":[%s]}`, load.MixedBackends), "--queue-depth", "256", "--queue-total", "512")
			m := load.Mixed{
				Targets: []load.Target{
					{Dialect: load.V1, Path: d.socket("infer.sock")},
					{Dialect: load.V2, Path: d.socket("infer.v2.sock")},
					{Dialect: load.LP, Path: d.socket("inferd.sock")},
				},
				Requests: max(*mixed/load.MixedCallers, 1), Streams: 2, Leave: leave, Seed: 1,
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience+time.Duration(*mixed)*100*time.Millisecond)
			defer cancel()
			var (
				asker load.Asker
				all   sync.WaitGroup
				mu    sync.Mutex
				sum   load.Tally
			)
			for caller := range load.MixedCallers {
				all.Go(func() {
					tally := m.Run(ctx, &asker, caller)
					mu.Lock()
					defer mu.Unlock()
					sum.Add(&tally)
				})
			}
			all.Wait()
			if err := asker.Close(); err != nil {
				t.Error(err)
			}
			if len(sum.Faults) > 0 {
				t.Errorf("%d faults:\n%s", len(sum.Faults), strings.Join(sum.Faults[:min(10, len(sum.Faults))], "\n"))
			}
			if sum.Answered == 0 || sum.Refused == 0 || (sum.Left > 0) != leave {
				t.Errorf("%+v", sum)
			}
			eventually(t, "everybody is out", func() bool { s := d.stats(); return s.Running == 0 && s.Waiting == 0 })
			if err := sum.Agrees(d.tokens()); err != nil {
				t.Error(err)
			}
		})
	}
}

// tokens returns the numbers of input and output tokens of all entries.
func (d *daemon) tokens() (in, out int64) {
	d.t.Helper()
	for _, b := range d.stats().Backends {
		in += b.In
		out += b.Out
	}
	return in, out
}
