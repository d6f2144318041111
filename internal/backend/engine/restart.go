package engine

import (
	"slices"
	"time"
)

// The parameters of [restartPolicy.next].
const (
	loadDeaths    = 3  // in a row, after which the engine is given up
	freeRestarts  = 10 // restarts without a pause within restartWindow
	restartWindow = time.Minute
	firstPause    = 100 * time.Millisecond // doubles with every further death
	longestPause  = 30 * time.Second
)

// A restartPolicy counts the deaths of an engine and decides on its restarts. It reads no clock.
type restartPolicy struct {
	loads  int           // deaths during load since the engine was last ready
	deaths []time.Time   // deaths of ready engines within restartWindow
	pause  time.Duration // before the last restart
}

// next records a death at now; ready is true if the engine had been ready. It returns the pause before
// the next start, or giveUp if no start is to follow.
//
// A ready engine that dies is replaced at once, up to ten times a minute; further replacements wait
// 0.1 s, doubled each time up to 30 s. After three deaths in a row during load, the engine is given up.
func (r *restartPolicy) next(now time.Time, ready bool) (pause time.Duration, giveUp bool) {
	if !ready {
		r.loads++
		return 0, r.loads >= loadDeaths
	}
	r.loads = 0
	r.deaths = slices.DeleteFunc(r.deaths, func(t time.Time) bool { return now.Sub(t) >= restartWindow })
	r.deaths = append(r.deaths, now)
	if len(r.deaths) <= freeRestarts {
		r.pause = 0
		return 0, false
	}
	r.pause = min(max(2*r.pause, firstPause), longestPause)
	return r.pause, false
}

// starts counts the starts of an entry's engines. It reads no clock.
type starts struct {
	all    int
	recent []time.Time // restarts, at least those of the last hour; the pauses bound their number
}

// note records a start.
func (s *starts) note(now time.Time) {
	if s.all++; s.all == 1 {
		return
	}
	s.recent = append(slices.DeleteFunc(s.recent, func(t time.Time) bool { return now.Sub(t) >= time.Hour }), now)
}

// restarts returns the number of restarts, in all and within the last hour.
func (s *starts) restarts(now time.Time) (all, hour int) {
	for _, t := range s.recent {
		if now.Sub(t) < time.Hour {
			hour++
		}
	}
	return max(s.all-1, 0), hour
}

// reset forgets the deaths during load, for an operator's retry.
func (r *restartPolicy) reset() { r.loads = 0 }
