package batch

import (
	"strings"
	"time"
)

// Stats are counters of a loop's past work, and the usage of its cache.
type Stats struct {
	Steps            int64
	Stalls           int64         // steps after which a stream had waited for longer than the stall budget
	Prefill          int64         // prompt tokens decoded
	PrefillOffloaded int64         // of those, by the prefill worker
	Decode           int64         // tokens of answers, those that ended one included
	Cached           int64         // prompt tokens that were in the cache
	Evicted          int64         // times that a sequence lost its cells, and goes on
	Aborted          int64         // steps and prefill jobs that were called off
	Step             time.Duration // the last one without prompts

	Running, Paused int   // sequences
	Used            int   // cells that those need
	Retained        int   // cells that only retained sequences have
	Offloaded       int   // tokens of retained sequences in memory
	Dead            int   // cells that no sequence has, but that are not yet empty
	Slides, Slid    int64 // times that cells were moved together, and tokens that were
	Owners          map[string]Usage
}

// Usage is the usage of the cache by one owner.
type Usage struct {
	Used     int   // tokens of running and paused sequences
	Retained int   // tokens of retained ones
	Cached   int64 // prompt tokens that were in the cache
}

// Stats returns a copy.
func (l *Loop) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats
}

// addStats changes the stats.
func (l *Loop) addStats(change func(*Stats)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.stats)
}

// countStep counts a step that has just ended.
func (l *stepper) countStep(streams, prompt int, took time.Duration, now time.Time) {
	gap := took
	if !l.last.IsZero() {
		gap = now.Sub(l.last)
	}
	l.last = time.Time{}
	if streams > 0 {
		l.last = now
	}
	stalled := streams > 0 && gap > l.times.StallBudget(streams)
	l.addStats(func(st *Stats) {
		st.Steps++
		st.Prefill += int64(prompt)
		st.Decode += int64(streams)
		if stalled {
			st.Stalls++
		}
		if streams > 0 && prompt == 0 {
			st.Step = took
		}
	})
}

// publishPause is the time between two updates of the cache's stats while the loop is busy.
const publishPause = 100 * time.Millisecond

// publishStats updates the stats of the cache, if it is time or the loop will be idle.
func (l *stepper) publishStats() {
	now := time.Now()
	if now.Sub(l.counted) < publishPause && l.running() {
		return
	}
	l.counted = now
	running, paused := 0, 0
	owners := make(map[string]Usage)
	for owner, n := range l.cachedOf {
		owners[owner] = Usage{Cached: n}
	}
	for _, s := range l.live {
		if s.state.Running() {
			running++
		} else {
			paused++
		}
		o := owners[s.Owner]
		o.Used += s.cached()
		owners[s.Owner] = o
	}
	l.cache.RetainedByOwner(func(owner string, tokens int) {
		owner, _, _ = strings.Cut(owner, partMark)
		o := owners[owner]
		o.Retained += tokens
		owners[owner] = o
	})
	l.addStats(func(st *Stats) { st.Running, st.Paused, st.Owners = running, paused, owners })
	l.publishUsage()
}

func (l *stepper) publishUsage() {
	u := l.cache.Usage()
	l.addStats(func(st *Stats) {
		st.Used, st.Retained, st.Offloaded = u.Active, u.Retained, u.Offloaded
		st.Dead, st.Slides, st.Slid = u.Dead, u.Slides, u.Slid
	})
}
