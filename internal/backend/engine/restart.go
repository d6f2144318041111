package engine

import (
	"slices"
	"time"
)

// The parameters of [restartPolicy.next].
const (
	loadDeaths    = 3                      // in a row, after which the engine is given up
	freeRestarts  = 10                     // within restartWindow: at once
	restartWindow = time.Minute            //
	firstPause    = 100 * time.Millisecond // doubles with every further death
	longestPause  = 30 * time.Second
)

// A restartPolicy counts the deaths of an engine, and decides about its restarts. It reads
// no clock.
type restartPolicy struct {
	loads  int           // deaths during load since the engine was last ready
	deaths []time.Time   // of a ready engine, within restartWindow
	pause  time.Duration // before the last restart that had to wait
}

// next records a death. It returns the pause before the next start, or giveUp if there is to be
// none.
//
// A ready engine that dies is replaced at once, up to ten times a minute, then after
// a pause of 0.1 s that doubles up to 30 s. An engine that dies three times in a row
// while it loads is given up.
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

// starts has the times of recent starts. It reads no clock.
type starts struct {
	all    int
	recent []time.Time // the restarts of the last hour or more; the pauses bound their number
}

// note records a start.
func (s *starts) note(now time.Time) {
	if s.all++; s.all == 1 {
		return
	}
	s.recent = append(slices.DeleteFunc(s.recent, func(t time.Time) bool { return now.Sub(t) >= time.Hour }), now)
}

// restarts counts the restarts, and those within the last hour.
func (s *starts) restarts(now time.Time) (all, hour int) {
	for _, t := range s.recent {
		if now.Sub(t) < time.Hour {
			hour++
		}
	}
	return max(s.all-1, 0), hour
}

// reset sets the number of deaths during load to 0, for an operator's retry.
func (r *restartPolicy) reset() { r.loads = 0 }
