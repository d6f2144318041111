package progress_test

import (
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/progress"
)

func TestReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p progress.Progress
		check := func(when string, want progress.Report) {
			t.Helper()
			if got := p.Report(); !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %+v, want %+v", when, got, want)
			}
		}
		check("at first", progress.Report{})
		time.Sleep(time.Second)
		check("a second later", progress.Report{Since: time.Second})
		calls := []uint64{7, 0, 9}
		p.Begin(calls, time.Minute)
		calls[0] = 3
		p.Enter(progress.Decode)
		time.Sleep(time.Hour)
		check("in a step", progress.Report{Phase: progress.Decode, Since: time.Hour, Calls: []uint64{7, 9}, CPU: time.Minute})
		p.End()
		p.Enter(progress.Sample)
		p.Finish(3)
		check("after it", progress.Report{Units: 4, Phase: progress.Sample})
		if got := progress.Sample.String(); got != "sample" {
			t.Errorf("Sample is %q", got)
		}
	})
}

// Concurrent readers always see the calls and the CPU time of the same step, and a count of units
// that never falls.
func TestReaders(t *testing.T) {
	var p progress.Progress
	var all sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		all.Go(func() {
			for last := uint64(0); ; {
				r := p.Report()
				if r.Units < last || len(r.Calls) > 0 && r.CPU != time.Duration(r.Calls[0]) {
					t.Errorf("%+v after %d", r, last)
				}
				last = r.Units
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for i := range 5000 {
		call := uint64(i/3 + 1)
		p.Begin([]uint64{call}, time.Duration(call))
		p.Enter(progress.Decode)
		p.End()
	}
	close(done)
	all.Wait()
}
