package watchdog_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/watchdog"
)

// A history is a State, and the evidence in the samples that led to it. The test counts the evidence
// itself, to check the State's decisions.
type history struct {
	s       watchdog.State
	stuck   int // samples in a row with active calls and without progress, at most 3
	stopped int // samples in a row in state T, at most 3
	calm    int // samples since the last late sample, suspension, debugger or freeze, at most 3
	dry     int // samples in a row without a wait for the disk, at most 3
}

// next returns the history after the sample x, and the action that State.Next returned for it.
func (l history) next(x watchdog.Sample) (history, watchdog.Action) {
	var a watchdog.Action
	l.s, a = l.s.Next(x)
	count := func(n *int, is bool) {
		if *n = min(*n+1, 3); !is {
			*n = 0
		}
	}
	jump := x.Elapsed > 3*time.Second || x.Suspended || x.Frozen || x.Traced
	count(&l.calm, !jump)
	count(&l.stuck, !jump && x.Active > 0 && !x.Moved && x.Process != watchdog.Stopped)
	count(&l.stopped, !jump && x.Process == watchdog.Stopped)
	count(&l.dry, x.Process != watchdog.Disk)
	return l, a
}

// alphabet returns the samples of which TestEverySequence tries every sequence.
func alphabet() (all []watchdog.Sample) {
	for _, progress := range []bool{true, false} {
		for _, cpu := range []time.Duration{0, 100 * time.Millisecond, 20 * time.Second} {
			for _, process := range []watchdog.Process{watchdog.Running, watchdog.Sleeping, watchdog.Disk, watchdog.Stopped} {
				for _, beat := range []bool{true, false} {
					all = append(all, sample(func(x *watchdog.Sample) {
						x.Moved, x.CPU, x.Process, x.Beat = progress, cpu, process, beat
					}))
				}
			}
		}
	}
	return append(all,
		sample(traced), sample(halted, traced), sample(spins, traced), sample(frozen), sample(late), sample(suspended), sample(spins, late),
		sample(free), sample(free, spins), sample(free, halted), sample(locked))
}

// TestEverySequence tries every sequence of samples up to a depth, for a first engine and for a
// replacement. It checks that there is evidence for each kill, and that after each sequence a lasting
// spin, deadlock or stop leads to a kill within a bound.
func TestEverySequence(t *testing.T) {
	depth := 10
	if testing.Short() {
		depth = 6
	}
	letters := alphabet()
	seen := map[history]bool{{}: true, {s: watchdog.Replaced()}: true}
	layer := []history{{}, {s: watchdog.Replaced()}}
	kills := make(map[string]int)
	ends := make(map[watchdog.State]bool) // states from which every kind of wedge has been tried
	for range depth {
		var next []history
		for _, l := range layer {
			for i := range letters {
				x := letters[i]
				after, a := l.next(x)
				switch a.Verb {
				case watchdog.Kill:
					kills[a.Reason]++
					if why := wrong(after, &x); why != "" {
						t.Fatalf("killed (%s), but %s: %+v after %+v", a.Reason, why, x, l)
					}
					continue
				case watchdog.Resume:
					if x.Process != watchdog.Stopped || x.Traced {
						t.Fatalf("SIGCONT for a process that is not stopped: %+v", x)
					}
				case watchdog.Canary:
					if x.Active > 0 {
						t.Fatalf("a canary beside calls: %+v", x)
					}
				case watchdog.Nothing:
				}
				if !seen[after] {
					seen[after] = true
					next = append(next, after)
				}
			}
		}
		layer = next
	}
	for l := range seen {
		if ends[l.s] {
			continue
		}
		ends[l.s] = true
		for name, wedge := range map[string]watchdog.Sample{
			"spin": sample(spins), "deadlock": sample(), "deadlock without beats": sample(mute), "spin without beats": sample(mute, spins), "stop": sample(halted),
		} {
			const bound = 32 // samples of 1 s: the cooldown takes 30 s; without it, 12 would suffice
			if !killed(l.s, wedge, bound) {
				t.Fatalf("%s: not killed within %d samples after %+v", name, bound, l)
			}
		}
	}
	t.Logf("%d histories, %d states, %d kinds of kills", len(seen), len(ends), len(kills))
	if len(kills) == 0 {
		t.Error("no kill")
	}
}

// wrong returns the reason why a kill after the sample x is wrong, or "" if it is right. l is the history
// after x.
func wrong(l history, x *watchdog.Sample) string {
	switch {
	case x.Traced:
		return "a debugger is attached"
	case x.Moved && x.Process != watchdog.Stopped:
		return "its steps move"
	case x.Process == watchdog.Disk || x.Process != watchdog.Stopped && l.dry < 3:
		return "it waits for its disk"
	case l.calm < 3:
		return fmt.Sprintf("only %d samples came since a jump", l.calm)
	case l.stuck < 3 && l.stopped < 3:
		return fmt.Sprintf("there are %d and %d samples of evidence", l.stuck, l.stopped)
	}
	return ""
}

// killed reports whether repeating x leads from s to a kill within bound samples.
func killed(s watchdog.State, x watchdog.Sample, bound int) bool {
	for range bound {
		var a watchdog.Action
		if s, a = s.Next(x); a.Verb == watchdog.Kill {
			return true
		}
	}
	return false
}
